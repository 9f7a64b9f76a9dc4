"""Which confusions (label → predicted class) became more or less frequent between two sets."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from models.estimate import Estimate
from models.gap.difference import newcombe
from models.gap.excess import benjamini_hochberg, equality_p_values

N_LISTED = 50


@dataclass(frozen=True)
class Confusion:
    """One wrong answer to one class on both sets.

    Attributes
    ----------
    label, predicted : the true class and the one that the model says
    k_reference, k_target : images of the class that got this answer
    n_reference, n_target : images of the class
    difference : share on the target minus share on the reference (Newcombe): positive means more
        frequent on the target
    p_value : Fisher's exact test that the share is the same
    q_value : the same, adjusted for looking at all pairs
    """

    label: int
    predicted: int
    k_reference: int
    k_target: int
    n_reference: int
    n_target: int
    difference: Estimate
    p_value: float
    q_value: float


@dataclass(frozen=True)
class Confusions:
    """All pairs, of which the clearest are listed.

    Attributes
    ----------
    listed : smallest q first, at most as many as asked for
    n_pairs : pairs seen in either set, of classes that are in both: all are tested
    n_q05, n_q10 : pairs with q at most .05, .10
    smallest_clear : share of a class that a confusion which the reference lacks must reach on the
        target to be clear alone (p at most .05 / n_pairs) at the median images a class; None where
        even all of them would not do, or there are no pairs
    """

    listed: list[Confusion]
    n_pairs: int
    n_q05: int
    n_q10: int
    smallest_clear: float | None


def confusions(
    labels1: Int[np.ndarray, " n1"],
    predicted1: Int[np.ndarray, " n1"],
    labels2: Int[np.ndarray, " n2"],
    predicted2: Int[np.ndarray, " n2"],
    *,
    n_listed: int = N_LISTED,
) -> Confusions:
    """Test every confusion that either set shows for a changed share of its class.

    Parameters
    ----------
    labels1, predicted1
        True and predicted classes on the reference.
    labels2, predicted2
        The same on the target.
    n_listed
        How many to list.

    Examples
    --------
    >>> found = confusions(np.zeros(9, int), np.zeros(9, int), np.zeros(9, int), np.ones(9, int))
    >>> found.n_pairs, found.listed[0].difference.estimate
    (1, 1.0)
    """
    classes = np.unique(np.concatenate([labels1, labels2, predicted1, predicted2]))
    n1, n2 = (
        np.bincount(np.searchsorted(classes, labels), minlength=len(classes))
        for labels in (labels1, labels2)
    )
    in_both = (n1 > 0) & (n2 > 0)
    keys, counts = zip(
        *(
            _wrong(classes, in_both, labels, predicted)
            for labels, predicted in ((labels1, predicted1), (labels2, predicted2))
        ),
        strict=True,
    )
    pairs = np.union1d(*keys)
    if not len(pairs):
        return Confusions([], 0, 0, 0, None)
    k1, k2 = np.zeros(len(pairs), np.int64), np.zeros(len(pairs), np.int64)
    for k, key, count in zip((k1, k2), keys, counts, strict=True):
        k[np.searchsorted(pairs, key)] = count
    of_label, of_predicted = np.divmod(pairs, len(classes))
    smallest = _smallest_clear(int(np.median(n1[in_both])), int(np.median(n2[in_both])), len(pairs))
    n1, n2 = n1[of_label], n2[of_label]
    p = equality_p_values(k1, n1, k2, n2)
    q = benjamini_hochberg(p)
    order = np.lexsort((pairs, -np.abs(k2 / n2 - k1 / n1).round(12), p.round(15), q.round(15)))
    listed = [
        Confusion(
            int(classes[of_label[i]]),
            int(classes[of_predicted[i]]),
            int(k1[i]),
            int(k2[i]),
            int(n1[i]),
            int(n2[i]),
            _target_minus_reference(int(k1[i]), int(n1[i]), int(k2[i]), int(n2[i])),
            float(p[i]),
            float(q[i]),
        )
        for i in order[:n_listed]
    ]
    n_q05, n_q10 = int((q <= 0.05).sum()), int((q <= 0.10).sum())
    return Confusions(listed, len(pairs), n_q05, n_q10, smallest)


def _smallest_clear(n1: int, n2: int, n_pairs: int) -> float | None:
    k2 = np.arange(1, n2 + 1)
    p = equality_p_values(np.zeros_like(k2), np.full(n2, n1), k2, np.full(n2, n2))
    clear = k2[p <= 0.05 / n_pairs]
    return float(clear[0] / n2) if len(clear) else None


def _wrong(
    classes: np.ndarray, in_both: np.ndarray, labels: np.ndarray, predicted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Wrong pairs as label · k + predicted, and how often each is there."""
    of_label, of_predicted = np.searchsorted(classes, labels), np.searchsorted(classes, predicted)
    keys = of_label * len(classes) + of_predicted
    return np.unique(keys[(of_label != of_predicted) & in_both[of_label]], return_counts=True)


def _target_minus_reference(k1: int, n1: int, k2: int, n2: int) -> Estimate:
    found = newcombe(k2, n2, k1, n1)
    number = {"reference": n1, "target": n2}
    return Estimate(found.estimate, found.low, found.high, found.method, number, found.unit)
