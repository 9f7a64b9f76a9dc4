"""How far raw class gaps can be trusted: reliability, and the winner's curse on halves (G4)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from models.estimate import TAILS, Estimate
from models.gap.classes import by_counts
from models.gap.difference import newcombe

N_REPLICATES = 1000
N_SPLITS = 20
WORST = 0.10  # share of classes that is called the worst
_FEWEST = 3  # classes whose spread is looked at


@dataclass(frozen=True)
class Reliability:
    """How much of the spread of raw class gaps is more than chance.

    Attributes
    ----------
    raw_sd : standard deviation of the raw gaps over classes; None with fewer than three
    sampling_sd : what chance alone would show, from the classes' own accuracies; None with raw_sd
    share : 1 − sampling variance / raw variance; below 0 where chance alone would show more
    n_classes : classes with at least two images in each set, of which all this is
    n_better : of those, how many have a higher raw accuracy on the target
    """

    raw_sd: float | None
    sampling_sd: float | None
    share: Estimate
    n_classes: int
    n_better: int


def reliability(
    k1: Int[np.ndarray, " k"],
    n1: Int[np.ndarray, " k"],
    k2: Int[np.ndarray, " k"],
    n2: Int[np.ndarray, " k"],
    *,
    seed: int,
) -> Reliability:
    """Reliability of raw class gaps: the share of their variance that is not sampling.

    The sampling variance is the mean over classes of a1 (1 − a1) / (n1 − 1) + a2 (1 − a2) /
    (n2 − 1). The interval resamples classes, as draws from many such classes.

    Parameters
    ----------
    k1, n1, k2, n2
        Images right and in all, on the reference and on the target, per class.
    seed
        Of the bootstrap.

    Source: F. M. Lord and M. R. Novick (1968), Statistical Theories of Mental Test Scores, ch. 3.

    Examples
    --------
    >>> ten = np.full(4, 10)
    >>> found = reliability(np.array([10, 10, 0, 0]), ten, np.array([0, 0, 0, 0]), ten, seed=0)
    >>> found.share.estimate, found.sampling_sd
    (1.0, 0.0)
    """
    enough = (n1 > 1) & (n2 > 1)
    order = by_counts(k1, n1, k2, n2)
    order = order[enough[order]]
    k1, n1, k2, n2 = (column[order] for column in (k1, n1, k2, n2))
    a1, a2 = k1 / n1, k2 / n2
    raw, n_classes = a1 - a2, len(k1)
    n_better = int((raw < -1e-12).sum())
    n = {"reference": int(n1.sum()), "target": int(n2.sum())}
    if n_classes < _FEWEST:
        reason = f"fewer than {_FEWEST} classes with two images in each set"
        unknown = Estimate.unknown(reason, n=n, unit="fraction")
        return Reliability(None, None, unknown, n_classes, n_better)
    sampling = a1 * (1 - a1) / (n1 - 1) + a2 * (1 - a2) / (n2 - 1)
    spread, by_chance = float(raw.var(ddof=1)), float(sampling.mean())
    if spread < 1e-20:
        share = Estimate.unknown("all classes have the same raw gap", n=n, unit="fraction")
        return Reliability(0.0, by_chance**0.5, share, n_classes, n_better)
    draws = np.random.default_rng(seed).multinomial(
        n_classes, np.full(n_classes, 1 / n_classes), size=N_REPLICATES
    )
    centred = raw - raw.mean()
    mean = draws @ centred / n_classes
    # classes drawn with replacement spread less than the classes themselves by (k − 1) / k, and
    # the unbiased variance of the sample is k / (k − 1) times its plain one
    varied = (draws @ centred**2 / n_classes - mean**2) * (n_classes / (n_classes - 1)) ** 2
    drawn = 1 - (draws @ sampling / n_classes) / np.maximum(varied, 1e-20)
    low, high = np.quantile(drawn, TAILS)
    value = 1 - by_chance / spread
    share = Estimate(
        value,
        min(float(low), value),
        max(float(high), value),
        f"bootstrap of classes, percentile, {N_REPLICATES} replicates",
        n,
        "fraction",
        seed=seed,
    )
    return Reliability(spread**0.5, by_chance**0.5, share, n_classes, n_better)


@dataclass(frozen=True)
class Halves:
    """What the worst classes hold of the gap in the half of the target that chose them, or not.

    Attributes
    ----------
    n_classes : classes with an image in the reference and two in the target
    n_worst : a tenth of them, those of the largest raw gap in one half
    chosen : share of the gap that they hold in the half that chose them
    other : share that they hold in the other half; a tenth of the gap would be no more than theirs
    """

    n_classes: int
    n_worst: int
    chosen: Estimate
    other: Estimate


def halves(
    k1: Int[np.ndarray, " k"],
    n1: Int[np.ndarray, " k"],
    k2: Int[np.ndarray, " k"],
    n2: Int[np.ndarray, " k"],
    *,
    seed: int,
    n_splits: int = N_SPLITS,
) -> Halves:
    """Share of the gap in the tenth of classes that looks worst, where they were chosen and not.

    The target's images are split within classes by chance, and each half chooses once; the
    reference stays whole. Counts are all that it takes: how many right images fall into a half of a
    class is a hypergeometric draw. Of classes that tie for the last place each counts in part. A
    class counts as much as its share of the reference.

    Parameters
    ----------
    k1, n1, k2, n2
        Images right and in all, on the reference and on the target, per class.
    seed
        Of the splits.
    n_splits
        Random splits, of which the mean is told; the bounds hold 95 % of them.
    """
    enough = (n1 > 0) & (n2 > 1)
    order = by_counts(k1, n1, k2, n2)
    order = order[enough[order]]
    k1, n1, k2, n2 = (column[order] for column in (k1, n1, k2, n2))
    n = {"reference": int(n1.sum()), "target": int(n2.sum())}
    n_worst = max(1, round(WORST * len(k1)))
    shares: list[tuple[float, float]] = []
    reason = _why_not(k1, n1, k2, n2)
    if reason is None:
        rng = np.random.default_rng(seed)
        a1, weight, size = k1 / n1, n1 / n1.sum(), n2 // 2
        for _ in range(n_splits):
            right = rng.hypergeometric(k2, n2 - k2, size)
            gaps = [a1 - right / size, a1 - (k2 - right) / (n2 - size)]
            for chooses, judges in (gaps, gaps[::-1]):
                is_worst = _largest(chooses, n_worst) * weight
                totals = float(chooses @ weight), float(judges @ weight)
                if min(totals) <= 0:
                    reason = "a half of the target shows no gap to be shared"
                    break
                shares.append((is_worst @ chooses / totals[0], is_worst @ judges / totals[1]))
    if reason is not None:
        unknown = Estimate.unknown(reason, n=n, unit="fraction")
        return Halves(len(k1), n_worst, unknown, unknown)

    def of(values: Float[np.ndarray, " m"]) -> Estimate:
        low, high = np.quantile(values, TAILS)
        method = (
            f"mean of {n_splits} random splits of the target within classes, each half choosing "
            "once; the bounds hold 95 % of them: the spread of splits, not of samples"
        )
        value = float(values.mean())
        return Estimate(value, float(low), float(high), method, n, "fraction", seed=seed)

    chosen, other = np.array(shares).T
    return Halves(len(k1), n_worst, of(chosen), of(other))


def _why_not(k1: np.ndarray, n1: np.ndarray, k2: np.ndarray, n2: np.ndarray) -> str | None:
    if len(k1) < _FEWEST:
        return f"fewer than {_FEWEST} classes with an image in the reference and two in the target"
    whole = newcombe(int(k1.sum()), int(n1.sum()), int(k2.sum()), int(n2.sum()))
    if whole.low is None or whole.low <= 0:
        return "the gap is not above 0, so there is nothing to hold a share of"
    return None


def _largest(values: np.ndarray, m: int) -> np.ndarray:
    """Weights that sum to m, 1 on the largest values; those that tie for the last share it."""
    values = values.round(12)
    last = np.partition(values, len(values) - m)[len(values) - m]
    above, level = values > last, values == last
    return np.asarray(above + level * ((m - above.sum()) / level.sum()))
