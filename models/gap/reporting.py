"""All that is said of one head and two test sets."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from models.estimate import Estimate
from models.gap.classes import ClassGap, ClassModel, class_counts, class_gaps
from models.gap.difference import bootstrap_within_classes, label_shift, newcombe
from models.gap.features import FeatureShift, feature_shifts


@dataclass(frozen=True)
class TestSet:
    """One test set as a head sees it.

    Attributes
    ----------
    labels : int64 [n], class ids
    correct : bool [n], whether the head is right
    features : float32 [n, d]; None where the model's features are not known here
    """

    __test__ = False  # not a test class, whatever its name begins with

    labels: Int[np.ndarray, " n"]
    correct: Bool[np.ndarray, " n"]
    features: Float[np.ndarray, "n d"] | None = None


@dataclass(frozen=True)
class GapReport:
    """The gap of one head between two test sets, and what goes with it.

    Attributes
    ----------
    gap : accuracy on the reference minus accuracy on the target (Newcombe)
    gap_within_classes : the same with the bootstrap within classes, as a cross-check
    label_shift : part of the gap that another mix of classes alone makes, Σ (p_c − q_c) a1_c; None
        where the target has a class that the reference lacks
    classes : largest shrunken gap first
    class_model : the fit behind the shrinkage; None where no class is in both sets
    features : largest shift × weight first; None where the features are not known
    """

    gap: Estimate
    gap_within_classes: Estimate
    label_shift: float | None
    classes: list[ClassGap]
    class_model: ClassModel | None
    features: list[FeatureShift] | None


def report(
    reference: TestSet,
    target: TestSet,
    *,
    train_sd: Float[np.ndarray, " d"] | None = None,
    head_weights: Float[np.ndarray, " d"] | None = None,
    seed: int,
    progress: Callable[[float, str], None] = lambda _share, _message: None,
) -> GapReport:
    """Explain the gap of one head between two test sets.

    Parameters
    ----------
    reference, target
        Test set 1 and test set 2; the gap is the first minus the second.
    train_sd
        Standard deviation of each feature over the train rows, for units; None, as the next one,
        where the features are not known: then none are compared.
    head_weights
        Of `models.heads.Head.feature_weights`.
    seed
        Of every draw.
    progress
        Called with the share done and a message.
    """
    progress(0.0, "comparing classes")
    class_ids = np.union1d(reference.labels, target.labels)
    k1, n1 = class_counts(reference.labels, reference.correct, class_ids)
    k2, n2 = class_counts(target.labels, target.correct, class_ids)
    classes, class_model = class_gaps(class_ids, k1, n1, k2, n2, seed=seed)
    return GapReport(
        gap=newcombe(int(k1.sum()), int(n1.sum()), int(k2.sum()), int(n2.sum())),
        gap_within_classes=bootstrap_within_classes(k1, n1, k2, n2, seed=seed),
        label_shift=label_shift(k1, n1, n2),
        classes=classes,
        class_model=class_model,
        features=(
            None
            if reference.features is None
            or target.features is None
            or train_sd is None
            or head_weights is None
            else feature_shifts(
                reference.features,
                reference.labels,
                target.features,
                target.labels,
                train_sd=train_sd,
                head_weights=head_weights,
                seed=seed,
                progress=progress,
            )
        ),
    )
