"""Which classes differ, or lose more than others: tests that know how many they look at (G3)."""

import numpy as np
from jaxtyping import Float, Int
from scipy.special import betaln, gammaln
from scipy.stats import norm

_HALVINGS = 60
_TIE = 1e-7  # of a log-probability: outcomes this close are equally likely


def equality_p_values(
    k1: Int[np.ndarray, " k"],
    n1: Int[np.ndarray, " k"],
    k2: Int[np.ndarray, " k"],
    n2: Int[np.ndarray, " k"],
) -> Float[np.ndarray, " k"]:
    """Two-sided p-value of each pair of counts for p1 = p2, by Fisher's exact test.

    Outcomes that are at most as likely as the one seen count against equality. Exact, and with
    ten images cautious: few outcomes are possible.

    Parameters
    ----------
    k1, n1, k2, n2
        Images that count and images in all, on the reference and on the target, n ≥ 1.

    Source: R. A. Fisher (1935), JRSS 98, 39-82.

    Examples
    --------
    >>> equality_p_values(np.array([3]), np.array([4]), np.array([1]), np.array([4])).round(4)
    array([0.4857])
    """
    tables, of_row = np.unique(np.stack([k1, n1, k2, n2], axis=1), axis=0, return_inverse=True)
    k1, n1, k2, n2 = tables.T
    fewest = np.maximum(k1 + k2 - n2, 0)
    row, x = _supports(fewest, np.minimum(n1, k1 + k2))
    n, m, rest = n1[row], n2[row], (k1 + k2)[row] - x
    log_ways = -gammaln(x + 1) - gammaln(n - x + 1) - gammaln(rest + 1) - gammaln(m - rest + 1)
    return _at_most_as_likely(row, log_ways, k1 - fewest)[of_row.ravel()]


def prediction_p_values(
    k2: Int[np.ndarray, " k"],
    n2: Int[np.ndarray, " k"],
    *,
    expected: Float[np.ndarray, " k"],
    s: float,
) -> Float[np.ndarray, " k"]:
    """Two-sided p-value of each class for k2 ~ BetaBinomial(n2, m s, (1 − m) s), G4's prediction.

    The question is whether a class stands out from classes of its accuracy on the reference, given
    how much these differ among themselves: where they differ much (small s), little stands out.
    Outcomes that are at most as likely as the one seen count. The class took part in the fit of m
    and s, which makes the test cautious where classes are few.

    Parameters
    ----------
    k2, n2
        Images right and in all on the target, n ≥ 1.
    expected
        m, in (0, 1); see `models.gap.classes.ClassModel`.
    s
        The same model's.

    Source: J. G. Skellam (1948), JRSS B 10, 257-261, for the distribution.

    Examples
    --------
    >>> prediction_p_values(np.array([0]), np.array([1]), expected=np.array([0.75]), s=9.0)
    array([0.25])
    """
    row, x = _supports(np.zeros_like(n2), n2)
    n, alpha, beta = n2[row], expected[row] * s, (1 - expected[row]) * s
    log_p = betaln(x + alpha, n - x + beta) - gammaln(x + 1) - gammaln(n - x + 1)
    return _at_most_as_likely(row, log_p, k2)


def _supports(fewest: np.ndarray, most: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every possible count of every row, one behind the other, with the row it is of."""
    width = most - fewest + 1
    row = np.repeat(np.arange(len(width)), width)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(width) - width - fewest, width)


def _at_most_as_likely(row: np.ndarray, log_p: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Share of probability, row by row, on counts at most as likely as the seen one (its place)."""
    if not len(row):
        return np.empty(0)
    start = np.flatnonzero(np.diff(row, prepend=-1))
    p = np.exp(log_p - np.maximum.reduceat(log_p, start)[row])
    counts = log_p <= log_p[start + seen][row] + _TIE
    return np.asarray(np.add.reduceat(np.where(counts, p, 0.0), start) / np.add.reduceat(p, start))


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


def holm(p_values: Float[np.ndarray, " q"]) -> Float[np.ndarray, " q"]:
    """Return adjusted p-values: those up to .05 hold a false one with probability .05 at most.

    Source: S. Holm (1979), Scandinavian Journal of Statistics 6, 65-70.

    Examples
    --------
    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    stepped = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted


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
