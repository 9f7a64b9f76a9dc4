"""Differences of accuracy and their intervals: between two test sets (G1), two heads (G13)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from scipy.stats import binom

from models.estimate import TAILS, Estimate, Z, wilson

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


@dataclass(frozen=True)
class Paired:
    """How two heads differ on the same images.

    Attributes
    ----------
    difference : accuracy of the first minus accuracy of the second
    b, c : images that only the first has right, that only the second has right
    p_value : McNemar's exact test of equal accuracy, two-sided
    """

    difference: Estimate
    b: int
    c: int
    p_value: float


def paired(first: Bool[np.ndarray, " n"], second: Bool[np.ndarray, " n"]) -> Paired:
    """Accuracy of one head minus accuracy of another on the same images (G13).

    The interval is the large-sample one, (b−c)/n ± z·√(b + c − (b−c)²/n)/n. Where the two are
    right on the same images there is no spread to see, and its ends are null; so are they for
    heads that disagree on every image in the same way.

    Parameters
    ----------
    first, second
        Whether each is right, image by image.

    Source: Q. McNemar (1947), Psychometrika 12, 153-157; A. Agresti (2002), Categorical Data
    Analysis, section 10.1.

    Examples
    --------
    >>> found = paired(np.array([1, 1, 1, 0], bool), np.array([1, 0, 0, 0], bool))
    >>> found.difference.estimate, found.b, found.c, found.p_value
    (0.5, 2, 0, 0.5)
    """
    n = len(first)
    b, c = int((first & ~second).sum()), int((~first & second).sum())
    p_value = min(1.0, 2 * float(binom.cdf(min(b, c), b + c, 0.5)))
    if n == 0:
        return Paired(Estimate.unknown("no images", n={"images": 0}, unit="fraction"), b, c, 1.0)
    difference = (b - c) / n
    se = float(np.sqrt(max(0.0, b + c - (b - c) ** 2 / n)) / n)
    known = se > 0
    return Paired(
        Estimate(
            difference,
            max(-1.0, difference - Z * se) if known else None,
            min(1.0, difference + Z * se) if known else None,
            "paired, large-sample normal",
            {"images": n},
            "fraction",
            reason=None if known else "the images show no spread of the difference",
        ),
        b,
        c,
        p_value,
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

    A mean of zeros and ones resampled within a class is a binomial draw, so no row is touched. Each
    class's deviations are stretched by √(n_c / (n_c − 1)), since resampling n_c images understates
    their spread by that much; with one image in a class, or nothing but right or wrong within
    every class, there is no spread to see and the answer is null. The interval is the one for sets
    drawn with these class counts: narrower than Newcombe's where classes differ in difficulty.

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
    if min(n1[n1 > 0].min(), n2[n2 > 0].min()) < 2:
        return Estimate.unknown("a class with one image", n=number, unit="fraction")
    if not (((k1 > 0) & (k1 < n1)).any() or ((k2 > 0) & (k2 < n2)).any()):
        return Estimate.unknown("no class with both right and wrong", n=number, unit="fraction")
    rng = np.random.default_rng(seed)
    draws = _resampled_accuracy(k1, n1, rng) - _resampled_accuracy(k2, n2, rng)
    low, high = np.quantile(draws, TAILS)
    return Estimate(
        float(k1.sum() / n1.sum() - k2.sum() / n2.sum()),
        float(low),
        float(high),
        f"bootstrap within classes, percentile, {N_DRAWS} draws",
        number,
        "fraction",
        seed=seed,
    )


def label_shift(
    k1: Int[np.ndarray, " k"], n1: Int[np.ndarray, " k"], n2: Int[np.ndarray, " k"]
) -> float | None:
    """Part of the gap that another mix of classes alone makes, Σ (p_c − q_c) a1_c (G7).

    Exactly 0 where both sets have the same mix; None where the target has a class that the
    reference lacks, or a set has no images.

    Examples
    --------
    >>> label_shift(np.array([9, 5]), np.array([10, 10]), np.array([30, 10]))
    -0.1
    """
    if n1.sum() == 0 or n2.sum() == 0 or (n2[n1 == 0] > 0).any():
        return None
    there = n1 > 0
    p, q = n1[there] / n1.sum(), n2[there] / n2.sum()
    return float(np.round(((p - q) * k1[there] / n1[there]).sum(), 15))


def _resampled_accuracy(k: np.ndarray, n: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    k, n = k[n > 0], n[n > 0]
    share = k / n
    drawn = rng.binomial(n, share, size=(N_DRAWS, len(n))) / n
    stretched = share + (drawn - share) * np.sqrt(n / (n - 1))
    return np.asarray(stretched @ (n / n.sum()))
