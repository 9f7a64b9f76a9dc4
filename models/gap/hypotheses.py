"""Whether a refined head narrows a gap: changes on the same images, judged within a family.

Every test of a hypothesis pairs two heads image by image (G13). Chance findings among many
hypotheses are kept below 5 % by Holm's method over the whole family, tested or not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtri
from scipy.stats import norm

from models.estimate import Estimate, Z
from models.gap.difference import Paired, paired
from models.gap.resampling import Replicates, weighted_accuracy

LEVEL = 0.05
MARGIN = 0.003  # of accuracy: a change of the gap within it is no effect
TOLERATED = 0.002  # by which accuracy on the target may fall, as far as its interval shows
POWER = 0.8
SIDES = ("one", "two")
Sided = Literal["one", "two"]

NARROWS, HELPS_BOTH, HURTS, WIDENS = "narrows the gap", "helps both", "hurts", "widens the gap"
NO_EFFECT, UNDERPOWERED = f"no effect within {MARGIN * 100:.1f} points", "underpowered"
UNTESTED = "not tested yet"


@dataclass(frozen=True)
class Comparison:
    """A refined head beside its baseline, on the same images of two sets.

    Attributes
    ----------
    gap_change : gap of the refined head minus that of the baseline, Δ: below 0, it is smaller
    reference, target : refined minus baseline on each set, with McNemar's exact test
    distance_change : height above the line in probit, refined minus baseline: above 0, better; the
        line's slope is 1 where there is none
    standard_error : of Δ
    p_value : of Δ = 0, one-sided (Δ < 0) or two-sided
    p_wider : of Δ = 0 against Δ > 0, twice the one-sided one: nobody foretold that side
    p_same : of |Δ| being at least 0.3 points, the larger of two one-sided tests (TOST)
    """

    gap_change: Estimate
    reference: Paired
    target: Paired
    distance_change: Estimate
    standard_error: float
    p_value: float
    p_wider: float
    p_same: float


@dataclass(frozen=True)
class Verdict:
    """What a comparison shows, with its family in mind.

    Attributes
    ----------
    words : of the vocabulary above, the strongest first
    p_gap, p_target, p_both : Holm-adjusted p-values of Δ = 0, of equal accuracy on the target, and
        of not both accuracies being changed
    smallest : change of the gap that this data would have shown in four of five tries, at the
        level that the family leaves to its strictest test
    """

    words: tuple[str, ...]
    p_gap: float
    p_target: float
    p_both: float
    smallest: float


def compare(
    baseline: tuple[Bool[np.ndarray, " n1"], Bool[np.ndarray, " n2"]],
    refined: tuple[Bool[np.ndarray, " n1"], Bool[np.ndarray, " n2"]],
    drawn: Replicates,
    *,
    sided: Sided = "one",
    slope: float = 1.0,
) -> Comparison:
    """Pair two heads on reference and target.

    Δ = (a1' − a2') − (a1 − a2) with se² = se1² + se2², se = √(b + c − (b − c)²/n) / n of each set,
    where b + c is one more than was seen: a set on which the heads happen to agree does not show
    that they always do. For the p-values se is also no less than what it would be if Δ were what is
    tested (0, or 0.3 points): few gains seen by chance would otherwise come with a small spread.

    Parameters
    ----------
    baseline, refined
        Whether each is right on each image: reference, target.
    drawn
        Bootstrap weights of the same images.
    sided
        "one": Δ < 0 was foretold; "two": either.
    slope
        Of the line through published models, probit axes; 1 where there is none.

    Source: A. Agresti (2002), Categorical Data Analysis, section 10.1; D. J. Schuirmann (1987),
    Journal of Pharmacokinetics and Biopharmaceutics 15, 657-680 (TOST); T. Tango (1998), Statistics
    in Medicine 17, 891-908, for the spread under a given difference.

    Examples
    --------
    >>> labels = np.zeros(4, int)
    >>> right, wrong = np.ones(4, bool), np.zeros(4, bool)
    >>> half = np.array([True, True, False, False])
    >>> from models.gap.resampling import replicates
    >>> drawn = replicates(labels, labels, seed=0)
    >>> found = compare((right, wrong), (right, half), drawn)
    >>> found.gap_change.estimate, found.target.c, found.target.b
    (-0.5, 0, 2)
    """
    first, second = (paired(r, b) for r, b in zip(refined, baseline, strict=True))
    n = drawn.n
    if first.difference.estimate is None or second.difference.estimate is None:
        null = Estimate.unknown("a set without images", n=n, unit="fraction")
        return Comparison(null, first, second, null, float("inf"), 1.0, 1.0, 1.0)
    change = first.difference.estimate - second.difference.estimate
    se = float(np.hypot(_error(first, n["reference"]), _error(second, n["target"])))

    def z(tested: float) -> float:
        under = _error_under(tested, (first, n["reference"]), (second, n["target"]))
        return (change - tested) / max(se, under)

    return Comparison(
        Estimate(
            change,
            max(-2.0, change - Z * se),
            min(2.0, change + Z * se),
            "paired, large-sample normal, one more image that differs on each set than was seen",
            n,
            "fraction",
        ),
        first,
        second,
        _distance_change(baseline, refined, drawn, slope),
        se,
        float(norm.cdf(z(0.0)) if sided == "one" else 2 * norm.sf(abs(z(0.0)))),
        float(min(1.0, 2 * norm.sf(z(0.0)))),
        float(max(norm.cdf(z(MARGIN)), norm.sf(z(-MARGIN)))),
    )


def judge(found: Sequence[Comparison], *, n_tests: int) -> list[Verdict]:
    """Give a verdict on each comparison of one family.

    "narrows the gap" where the Holm-adjusted Δ is below 0, accuracy on the target is not lower
    (the interval of its change lies above −0.2 points) and the height above the line grows. "helps
    both" where both accuracies rise. "hurts" where accuracy on the target falls. "widens the gap"
    where Δ is above 0 and it does not hurt. Else "no effect" where Δ is shown to lie within ±0.3
    points, and "underpowered" where it is not.

    Parameters
    ----------
    found
        Those of the family that were tested.
    n_tests
        Hypotheses of the family, tested or not: each takes its share of the error rate.

    Source: S. Holm (1979), Scandinavian Journal of Statistics 6, 65-70.
    """
    p_gap = holm([one.p_value for one in found], n_tests=n_tests)
    p_target = holm([one.target.p_value for one in found], n_tests=n_tests)
    p_wider = holm([one.p_wider for one in found], n_tests=n_tests)
    both = [max(one.reference.p_value, one.target.p_value) for one in found]
    p_both = holm(both, n_tests=n_tests)
    strict = float(norm.isf(LEVEL / max(n_tests, 1) / 2)) + float(norm.ppf(POWER))
    return [
        Verdict(
            _words(one, float(a), float(b), float(c), float(d)),
            float(a),
            float(b),
            float(c),
            strict * one.standard_error,
        )
        for one, a, b, c, d in zip(found, p_gap, p_target, p_both, p_wider, strict=True)
    ]


def holm(p_values: Sequence[float], *, n_tests: int | None = None) -> Float[np.ndarray, " m"]:
    """Holm's adjusted p-values, in the order given.

    Parameters
    ----------
    n_tests
        Tests of the family; those without a p-value yet count as not significant.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    >>> holm([0.01], n_tests=8).tolist()
    [0.08]
    """
    p = np.asarray(p_values, float)
    m = len(p) if n_tests is None else n_tests
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (m - np.arange(len(p))))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def _words(
    one: Comparison, p_gap: float, p_target: float, p_both: float, p_wider: float
) -> tuple[str, ...]:
    change, target = one.gap_change.estimate, one.target.difference
    if change is None or target.estimate is None:
        return (UNDERPOWERED,)
    assert one.reference.difference.estimate is not None
    if target.estimate < 0 and p_target <= LEVEL:
        return (HURTS,)
    found = []
    if target.estimate > 0 and one.reference.difference.estimate > 0 and p_both <= LEVEL:
        found.append(HELPS_BOTH)
    # fifty images on which the heads agree do not show that the target's accuracy is not lower
    holds = target.estimate - Z * _error(one.target, target.n["images"]) > -TOLERATED
    better = (one.distance_change.estimate or 0.0) > 0
    if p_gap <= LEVEL and change < 0 and holds and better:
        found.append(NARROWS)
    if p_wider <= LEVEL:
        found.append(WIDENS)
    if found:
        return tuple(found)
    return (NO_EFFECT,) if one.p_same <= LEVEL else (UNDERPOWERED,)


def _error(found: Paired, n: int) -> float:
    """Return the standard error of a paired difference, with one image more that differs."""
    b, c = found.b, found.c
    return float(np.sqrt(max(0.0, b + c + 1 - (b - c) ** 2 / n)) / n)


def _error_under(tested: float, *sets: tuple[Paired, int]) -> float:
    """Return the standard error of Δ if it were `tested`.

    The two differences are moved to where they are that far apart, by inverse variance; each set's
    discordance is then the most likely one for its difference, with half an image more of either
    kind.
    """
    seen = [(found.b - found.c) / n for found, n in sets]
    variance = [_error(found, n) ** 2 for found, n in sets]
    miss = seen[0] - seen[1] - tested
    for _ in range(2):
        share = variance[0] / sum(variance)
        moved = seen[0] - share * miss, seen[1] + (1 - share) * miss
        variance = [
            _variance_at(found.b + 0.5, found.c + 0.5, n + 1, d)
            for (found, n), d in zip(sets, moved, strict=True)
        ]
    return float(np.sqrt(sum(variance)))


def _variance_at(b: float, c: float, n: int, difference: float) -> float:
    """Variance of (b − c)/n given its mean, by Tango's restricted estimate of the discordance."""
    if difference < 0:
        b, c = c, b
    d = min(abs(difference), 0.99)
    half = (b + c - (2 * n - b + c) * d) / 2
    lost = (half + np.sqrt(half**2 + 2 * n * c * d * (1 - d))) / (2 * n)
    return float((2 * lost + d - d * d) / n)


def _distance_change(
    baseline: tuple[np.ndarray, np.ndarray],
    refined: tuple[np.ndarray, np.ndarray],
    drawn: Replicates,
    slope: float,
) -> Estimate:
    def height(right: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        ends = [
            ndtri(np.clip(weighted_accuracy(side, w), 0.5 / len(side), 1 - 0.5 / len(side)))
            for side, w in zip(right, (drawn.reference, drawn.target), strict=True)
        ]
        return np.asarray(ends[1] - slope * ends[0])

    return drawn.estimate(height(refined) - height(baseline), unit="probit")
