"""Which classes lose more, or less, than the whole: a test that knows how many it looks at (G3)."""

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import norm

_HALVINGS = 60


def excess_p_values(
    k1: Int[np.ndarray, " k"],
    n1: Int[np.ndarray, " k"],
    k2: Int[np.ndarray, " k"],
    n2: Int[np.ndarray, " k"],
    *,
    gap: float,
) -> Float[np.ndarray, " k"]:
    """Two-sided p-value of each class for p1 − p2 = gap, by the score test with constrained MLE.

    Shrunken gaps and their posterior probabilities describe; read class by class they name some
    class in most worlds in which all lose the same. This test, after `benjamini_hochberg`, does
    not.

    Parameters
    ----------
    k1, n1, k2, n2
        Images right and in all, on the reference and on the target, n ≥ 1.
    gap
        What every class loses under the hypothesis, in (−1, 1).

    Source: C. P. Farrington and G. Manning (1990), Statistics in Medicine 9, 1447-1454.

    Examples
    --------
    >>> p = excess_p_values(np.array([90, 90]), np.array([100, 100]),
    ...                     np.array([80, 50]), np.array([100, 100]), gap=0.1)
    >>> p.round(3).tolist()
    [1.0, 0.0]
    """
    low = np.full(len(k1), max(0.0, -gap) + 1e-9)
    high = np.full(len(k1), min(1.0, 1.0 - gap) - 1e-9)
    # the score of the target's share falls where its share rises: halve until it is 0
    for _ in range(_HALVINGS):
        p2 = (low + high) / 2
        p1 = np.clip(p2 + gap, 1e-9, 1 - 1e-9)
        score = k1 / p1 - (n1 - k1) / (1 - p1) + k2 / p2 - (n2 - k2) / (1 - p2)
        low, high = np.where(score > 0, p2, low), np.where(score > 0, high, p2)
    p2 = (low + high) / 2
    p1 = np.clip(p2 + gap, 1e-9, 1 - 1e-9)
    spread = np.sqrt(p1 * (1 - p1) / n1 + p2 * (1 - p2) / n2)
    return np.asarray(2 * norm.sf(np.abs(k1 / n1 - k2 / n2 - gap) / spread)).clip(max=1.0)


def benjamini_hochberg(p: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """Return adjusted p-values: naming those at or below q keeps the share of false names at q.

    Source: Y. Benjamini and Y. Hochberg (1995), JRSS B 57, 289-300.

    Examples
    --------
    >>> benjamini_hochberg(np.array([0.01, 0.5, 0.02])).round(3).tolist()
    [0.03, 0.5, 0.03]
    """
    order = np.argsort(p)[::-1]
    ranked = p[order] * len(p) / np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum.accumulate(ranked)
    return adjusted.clip(max=1.0)
