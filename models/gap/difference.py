"""The gap between two test sets and its interval (G1)."""

import numpy as np
from jaxtyping import Int

from models.estimate import LEVEL, Estimate, wilson

N_DRAWS = 2000


def newcombe(k1: int, n1: int, k2: int, n2: int) -> Estimate:
    """Gap k1/n1 − k2/n2 with Newcombe's hybrid score interval.

    low = G − √((a1−l1)² + (u2−a2)²), high = G + √((u1−a1)² + (a2−l2)²), where (l, u) are the two
    Wilson intervals.

    Parameters
    ----------
    k1, n1
        Images right and images in all on the reference.
    k2, n2
        The same on the target.

    Source: R. G. Newcombe (1998), Statistics in Medicine 17, 873-890, method 10.

    Examples
    --------
    >>> gap = newcombe(56, 70, 48, 80)
    >>> round(gap.estimate, 4), round(gap.low, 4), round(gap.high, 4)
    (0.2, 0.0524, 0.3339)
    """
    number = {"reference": int(n1), "target": int(n2)}
    if n1 == 0 or n2 == 0:
        return Estimate.unknown("a test set without images", n=number, unit="fraction")
    a1, a2 = k1 / n1, k2 / n2
    (l1, u1), (l2, u2) = wilson(k1, n1), wilson(k2, n2)
    gap = float(a1 - a2)
    return Estimate(
        gap,
        gap - float(np.hypot(a1 - l1, u2 - a2)),
        gap + float(np.hypot(u1 - a1, a2 - l2)),
        "Newcombe hybrid score interval",
        number,
        "fraction",
    )


def bootstrap_within_classes(
    k1: Int[np.ndarray, " k"],
    n1: Int[np.ndarray, " k"],
    k2: Int[np.ndarray, " k"],
    n2: Int[np.ndarray, " k"],
    *,
    seed: int,
) -> Estimate:
    """Gap with a bootstrap that resamples the images of each class within each set.

    A mean of zeros and ones resampled within a class is a binomial draw, so no row is touched. The
    interval is the one for sets drawn with these class counts: narrower than Newcombe's where
    classes differ in difficulty.

    Parameters
    ----------
    k1, n1, k2, n2
        Per class: images right and in all, on the reference and on the target.
    seed
        Of the draws.

    Source: B. Efron and R. J. Tibshirani (1993), An Introduction to the Bootstrap, ch. 13.
    """
    number = {"reference": int(n1.sum()), "target": int(n2.sum())}
    if n1.sum() == 0 or n2.sum() == 0:
        return Estimate.unknown("a test set without images", n=number, unit="fraction")
    rng = np.random.default_rng(seed)
    draws = _resampled_accuracy(k1, n1, rng) - _resampled_accuracy(k2, n2, rng)
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(
        float(k1.sum() / n1.sum() - k2.sum() / n2.sum()),
        float(low),
        float(high),
        f"bootstrap within classes, percentile, {N_DRAWS} draws",
        number,
        "fraction",
        seed=seed,
    )


def _resampled_accuracy(k: np.ndarray, n: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    present = n > 0
    share = k[present] / n[present]
    drawn = rng.binomial(n[present], share, size=(N_DRAWS, int(present.sum())))
    return np.asarray(drawn.sum(axis=1) / n.sum())
