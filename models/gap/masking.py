"""Fitting a head again without some features: what it does to the gap, beside random sets (G10)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from models.estimate import Estimate
from models.gap.resampling import Replicates, weighted_accuracy

N_SETS = 20
TOLERATED = 0.002  # accuracy on the target: the lower end of its change must lie above minus this
_CLOSE = 0.02  # of the importance wanted
_SWAPS = 4  # tried a feature of the set, and 16 besides

NARROWS = "narrows the gap"
COSTS = "the gap is smaller, but accuracy on the target is lower"
UNSURE = "the gap is smaller, but accuracy on the target is not shown to hold"
WIDENS = "widens the gap"
NO_CHANGE = "no change of the gap that is told from 0"


def matched_sets(
    importance: Float[np.ndarray, " d"],
    chosen: Int[np.ndarray, " q"],
    *,
    seed: int,
    n_sets: int = N_SETS,
) -> list[Int[np.ndarray, " q"]]:
    """Random sets of features, as many as were chosen and of about the same total importance.

    Each begins as a random set and swaps features until its importance is within 2 % of the chosen
    ones', as far as the others allow. Chosen features take part only where there are fewer than
    twice as many others. Sets that come out twice count once, so that there may be fewer.

    Parameters
    ----------
    importance
        Σ_k w²_kj var_j of each feature over the train rows.
    chosen
        The features that were set out.
    seed
        Of the draws.

    Examples
    --------
    >>> sets = matched_sets(np.array([1.0, 1.0, 9.0, 5.0]), np.array([0]), seed=0, n_sets=3)
    >>> sorted({int(one[0]) for one in sets})
    [1]
    """
    rng = np.random.default_rng(seed)
    q, wanted = len(chosen), float(importance[chosen].sum())
    others = np.setdiff1d(np.arange(len(importance)), chosen)
    pool = others if len(others) >= 2 * q else np.arange(len(importance))
    found: dict[tuple[int, ...], np.ndarray] = {}
    own = tuple(sorted(chosen.tolist()))
    for _ in range(n_sets):
        one = _matched(importance, pool, q, wanted, rng)
        found.setdefault(tuple(one.tolist()), one)
    found.pop(own, None)
    return list(found.values())


def _matched(
    importance: np.ndarray, pool: np.ndarray, q: int, wanted: float, rng: np.random.Generator
) -> np.ndarray:
    order = rng.permutation(pool)
    inside, outside = order[:q], order[q:]
    for _ in range(16 + _SWAPS * q):
        missing = wanted - importance[inside].sum()
        if abs(missing) <= _CLOSE * wanted or len(outside) == 0:
            break
        i = rng.integers(q)
        # half of the others, so that sets differ where only a few features would do
        some = rng.permutation(len(outside))[: max(1, len(outside) // 2)]
        off = np.abs(importance[outside[some]] - importance[inside[i]] - missing)
        best = some[off.argmin()]
        if off.min() < abs(missing):
            inside[i], outside[best] = outside[best], inside[i]
    return np.sort(inside)


@dataclass(frozen=True)
class MaskEffect:
    """What another head on the same images changes, new minus old.

    Attributes
    ----------
    gap : change of accuracy on the reference minus that on the target; below 0: narrower
    reference, target : change of accuracy
    verdict : in words
    """

    gap: Estimate
    reference: Estimate
    target: Estimate
    verdict: str

    @property
    def is_accepted(self) -> bool:
        """Whether the gap is smaller and accuracy on the target not lower."""
        return self.verdict == NARROWS


def mask_effect(
    old: tuple[Bool[np.ndarray, " n1"], Bool[np.ndarray, " n2"]],
    new: tuple[Bool[np.ndarray, " n1"], Bool[np.ndarray, " n2"]],
    drawn: Replicates,
) -> MaskEffect:
    """Change of gap and accuracies from one head to another, paired image by image.

    The gap is called narrower where the whole interval of its change lies below 0 and that of the
    change of accuracy on the target above −.2 points: a gap that shrinks because the reference got
    worse while the target did too is no success.

    Parameters
    ----------
    old, new
        Whether each head is right, on reference and target.
    drawn
        Bootstrap weights of the images.
    """
    first, second = (
        weighted_accuracy(after, weights) - weighted_accuracy(before, weights)
        for before, after, weights in zip(old, new, (drawn.reference, drawn.target), strict=True)
    )
    gap, reference, target = (drawn.estimate(v) for v in (first - second, first, second))
    return MaskEffect(gap, reference, target, _verdict(gap, target))


def _verdict(gap: Estimate, target: Estimate) -> str:
    assert gap.low is not None
    assert gap.high is not None
    assert target.low is not None
    assert target.high is not None
    if gap.low > 0:
        return WIDENS
    if gap.high >= 0:
        return NO_CHANGE
    if target.low > -TOLERATED:
        return NARROWS
    return COSTS if target.high < 0 else UNSURE
