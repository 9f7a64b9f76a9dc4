"""The one record that every number with an interval is, and the intervals of single shares."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

LEVEL = 0.95
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)  # probabilities of the two ends of an interval
Z = float(norm.isf(TAILS[0]))


@dataclass(frozen=True)
class Estimate:
    """A number with its interval and where they come from.

    Attributes
    ----------
    estimate, low, high
        The value and the ends of its interval; null (None) where it cannot be known.
    level : coverage that the interval aims at, .95
    method : how the interval was made
    n : images of each set that took part, under the set's name
    unit : unit of the three numbers
    seed : where chance took part
    reason : why the value is null
    """

    estimate: float | None
    low: float | None
    high: float | None
    method: str
    n: Mapping[str, int]
    unit: str
    level: float = LEVEL
    seed: int | None = None
    reason: str | None = None

    @classmethod
    def unknown(cls, reason: str, *, n: Mapping[str, int], unit: str) -> "Estimate":
        """Return a null that says why.

        Examples
        --------
        >>> Estimate.unknown("no images", n={"images": 0}, unit="fraction").estimate is None
        True
        """
        return cls(None, None, None, "none", n, unit, reason=reason)


def wilson(k: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval for a share of k in n.

    Parameters
    ----------
    k, n
        Successes and trials, n ≥ 1.

    Returns
    -------
    low, high : in [0, 1]

    Source: E. B. Wilson (1927), JASA 22, 209-212.

    Examples
    --------
    >>> low, high = wilson(50, 100)
    >>> round(low, 3), round(high, 3)
    (0.404, 0.596)
    >>> wilson(30, 30)[1]
    1.0
    """
    z = float(norm.isf((1 - level) / 2))
    share = k / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # at the ends rounding could leave the share itself outside
    return max(0.0, min(share, float(middle - half))), min(1.0, max(share, float(middle + half)))


def share(k: int, n: int) -> Estimate:
    """Return a share of k in n with Wilson's interval.

    Examples
    --------
    >>> share(3, 4).estimate
    0.75
    """
    if n == 0:
        return Estimate.unknown("no images", n={"images": 0}, unit="fraction")
    low, high = wilson(k, n)
    return Estimate(k / n, low, high, "Wilson score interval", {"images": n}, "fraction")
