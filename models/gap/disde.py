"""The gap in three terms: harder but seen, same look but other outcome, new to the target (G6)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from models.estimate import Estimate
from models.gap.difference import newcombe
from models.gap.domain import (
    REFUSE_AUC,
    WARN_AUC,
    WARN_SHARE,
    Separator,
    design,
    effective_share,
)
from models.gap.ledger import REFUSED, Group, verdict
from models.gap.resampling import Replicates, replicates

HARDER, OUTCOME, NEW = "harder but seen", "same z, other outcome", "new to the target"
TERMS = (HARDER, OUTCOME, NEW)
ASSUMPTIONS = (
    "an image that is as likely from either set, given z, is common ground; 'same z, other "
    "outcome' is whatever z does not show of the difference: label noise, another meaning of a "
    "class, and difficulty that z does not see"
)


@dataclass(frozen=True)
class Decomposition:
    """The gap in three terms, for one choice of z.

    Attributes
    ----------
    name : of z
    terms : by name, in the order of TERMS; null where refused; they sum to the gap
    verdicts : of each term, in words
    auc, calibration_error : of the classifier that tells the sets apart by z, out of fold
    effective_reference, effective_target : images that the weights of common ground leave, as a
        share of those there are
    refusal : why there are no terms, or None
    warnings : what to beware of, in sentences
    """

    name: str
    terms: dict[str, Estimate]
    verdicts: dict[str, str]
    auc: float
    calibration_error: float
    effective_reference: float
    effective_target: float
    refusal: str | None
    warnings: list[str]


def common_weights(
    log_odds: Float[np.ndarray, "n m"], is_target: Bool[np.ndarray, " n"], drawn: Replicates
) -> Float[np.ndarray, "n m"]:
    """Weights that give both sets the same distribution of z, that of their common ground.

    With T = 1 on the target, α its share of all images and π(z) = P(T = 1 | z), they are
    (1 − α) π / D on the reference and α (1 − π) / D on the target, D = α (1 − π) + (1 − α) π. With
    the ratio of densities r = π (1 − α) / ((1 − π) α) that is r / (1 + r) and 1 / (1 + r): between
    0 and 1, so that nothing need be clipped.

    Parameters
    ----------
    log_odds
        log π / (1 − π) of each image, reference first, in the sample and each replicate.
    is_target
        Which rows are of the target.
    drawn
        Weights of the images in each column, which the answer contains.

    Examples
    --------
    >>> drawn = Replicates(np.ones((2, 1)), np.ones((2, 1)), seed=0)
    >>> both = np.array([False, False, True, True])
    >>> common_weights(np.log([[1.0], [3.0], [1.0], [3.0]]), both, drawn).round(3)[:, 0].tolist()
    [0.5, 0.75, 0.5, 0.25]
    """
    totals = [side.sum(axis=0, dtype=np.float64) for side in (drawn.reference, drawn.target)]
    ratio = log_odds - np.log(totals[1] / totals[0]).astype(log_odds.dtype)
    ratio[is_target] *= -1
    np.clip(ratio, -80, 80, out=ratio)  # float32's exp goes no further
    shares = 1 / (1 + np.exp(-ratio))
    n1 = len(drawn.reference)
    shares[:n1] *= drawn.reference
    shares[n1:] *= drawn.target
    return np.asarray(shares)


def three_terms(
    reference_right: Float[np.ndarray, " n1"],
    target_right: Float[np.ndarray, " n2"],
    log_odds: Float[np.ndarray, "n m"],
    drawn: Replicates,
) -> Float[np.ndarray, "3 m"]:
    """Terms a1 − a1S, a1S − a2S, a2S − a2, where S is the common ground of `common_weights`.

    Parameters
    ----------
    reference_right, target_right
        Whether each image is right (0 or 1), or the chance that it is.
    log_odds
        Of being of the target, given z, reference first; one column for the sample, and one for
        each replicate of `drawn`.

    Source: T. T. Cai, H. Namkoong, S. Yadlowsky (2023), Diagnosing Model Performance Under
    Distribution Shift.

    Examples
    --------
    >>> drawn = Replicates(np.ones((2, 1)), np.ones((2, 1)), seed=0)
    >>> three_terms(np.array([1.0, 1.0]), np.array([1.0, 0.0]), np.zeros((4, 1)), drawn)[:, 0]
    array([0. , 0.5, 0. ])
    """
    n1 = len(reference_right)
    is_target = np.arange(len(log_odds)) >= n1
    shared = common_weights(log_odds, is_target, drawn)
    a1, a1s = (_mean(reference_right, w) for w in (drawn.reference, shared[:n1]))
    a2, a2s = (_mean(target_right, w) for w in (drawn.target, shared[n1:]))
    return np.stack([a1 - a1s, a1s - a2s, a2s - a2])


def _mean(right: np.ndarray, weights: np.ndarray) -> np.ndarray:
    w = weights.astype(np.float64)
    return np.asarray(right @ w / w.sum(axis=0))


class Disde:
    """Decomposes the gap between two test sets for several choices of z.

    All share the folds of the classifiers and the bootstrap's draws; each replicate refits the
    classifier.
    """

    def __init__(
        self,
        reference_labels: Int[np.ndarray, " n1"],
        reference_correct: Bool[np.ndarray, " n1"],
        target_labels: Int[np.ndarray, " n2"],
        target_correct: Bool[np.ndarray, " n2"],
        *,
        seed: int,
    ) -> None:
        """Take two test sets; folds and replicates are drawn once they are needed.

        Parameters
        ----------
        reference_labels, reference_correct, target_labels, target_correct
            Class ids, and whether the head is right; the head was fitted on other rows.
        seed
            Of folds and bootstrap.
        """
        self._right = reference_correct.astype(float), target_correct.astype(float)
        self._labels, self._seed = (reference_labels, target_labels), seed
        n_right = int(reference_correct.sum()), int(target_correct.sum())
        self.gap = newcombe(n_right[0], len(reference_correct), n_right[1], len(target_correct))

    @cached_property
    def _drawn(self) -> Replicates:
        return replicates(*self._labels, seed=self._seed)

    @cached_property
    def _separator(self) -> Separator:
        return Separator(self._drawn, np.concatenate(self._labels), seed=self._seed)

    def decompose(self, name: str, groups: Sequence[Group]) -> Decomposition:
        """Decompose by the covariates of some groups, taken together as z."""
        separator = self._separator
        z = [design(g.values, separator.is_target, n_knots=g.n_knots) for g in groups]
        domain = separator.fit(np.concatenate(z, axis=1))
        n1 = separator.n_reference
        own = Replicates(self._drawn.reference[:, :1], self._drawn.target[:, :1], self._drawn.seed)
        shares = common_weights(domain.log_odds[:, :1], separator.is_target, own)[:, 0]
        effective = effective_share(shares[:n1]), effective_share(shares[n1:])
        refusal = domain.refusal
        if refusal is None:
            values = three_terms(*self._right, domain.log_odds, self._drawn)
            terms = {
                term: self._drawn.estimate(of_term)
                for term, of_term in zip(TERMS, values, strict=True)
            }
            verdicts = {term: verdict(found, self.gap) for term, found in terms.items()}
        else:
            null = Estimate.unknown(refusal, n=self._drawn.n, unit="fraction")
            terms = dict.fromkeys(TERMS, null)
            verdicts = dict.fromkeys(TERMS, REFUSED)
        return Decomposition(
            name, terms, verdicts, domain.auc, domain.calibration_error, *effective, refusal,
            [] if refusal else _warnings(domain.auc, effective),
        )  # fmt: skip


def _warnings(auc: float, effective: tuple[float, float]) -> list[str]:
    found = []
    if auc > WARN_AUC:
        found.append(
            f"a classifier tells the sets apart with AUC {auc:.2f}, above {WARN_AUC:.2f} (above "
            f"{REFUSE_AUC:.2f} would be refused): little is common to both"
        )
    found += [
        f"the common ground weighs as much as {share:.0%} of the {which}'s images, below "
        f"{WARN_SHARE:.0%}: the terms rest on few images"
        for share, which in zip(effective, ("reference", "target"), strict=True)
        if share < WARN_SHARE
    ]
    return found
