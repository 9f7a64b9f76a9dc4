"""Scores of one test set, each with its interval."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from models.estimate import LEVEL, TAILS, Estimate, Z, share
from models.heads import Predictions

N_BINS = 15
N_DRAWS = 1000


@dataclass(frozen=True)
class Scores:
    """What a head is worth on one test set.

    Attributes
    ----------
    n : number of images
    top1, top5 : shares of 1; top5 is null below six classes, where it says nothing
    nll : mean −log probability of the label in nats; null where labels are unknown to the head
    ece : expected calibration error, a share of 1

    All but top1 are null where an imported model came without what they are made from.
    """

    n: int
    top1: Estimate
    top5: Estimate
    nll: Estimate
    ece: Estimate


def scores(predictions: Predictions, *, n_classes: int, seed: int) -> Scores:
    """Scores of a head from its predictions on one test set.

    Parameters
    ----------
    predictions
        Of all n images of the set.
    n_classes
        Number of classes that the head tells apart.
    seed
        Of the bootstrap.
    """
    return scores_of_answers(
        predictions.correct,
        in_top5=predictions.in_top5,
        confidence=predictions.confidence,
        nll=predictions.nll,
        n_classes=n_classes,
        seed=seed,
    )


def scores_of_answers(
    correct: Bool[np.ndarray, " n"],
    *,
    in_top5: Bool[np.ndarray, " n"] | None = None,
    confidence: Float[np.ndarray, " n"] | None = None,
    nll: Float[np.ndarray, " n"] | None = None,
    n_classes: int,
    seed: int,
) -> Scores:
    """Scores of a model of which only its answers are known; null with a reason what they lack.

    Parameters
    ----------
    correct
        Whether each of the n images of the set is classified as its label says.
    in_top5, confidence, nll
        As in `Predictions`, where they are known.
    n_classes
        Number of classes that the model tells apart.
    seed
        Of the bootstrap.

    Examples
    --------
    >>> found = scores_of_answers(np.array([True, False]), n_classes=10, seed=0)
    >>> found.top1.estimate, found.ece.estimate, found.ece.reason
    (0.5, None, 'the predictions came without confidences')
    """
    n = len(correct)
    number = {"images": n}

    def unknown(reason: str, unit: str = "fraction") -> Estimate:
        return Estimate.unknown(reason, n=number, unit=unit)

    if n == 0:
        nothing = unknown("no images")
        return Scores(0, nothing, nothing, nothing, nothing)
    if in_top5 is None:
        top5 = unknown("the predictions came without the second to fifth classes")
    elif n_classes <= 5:
        top5 = unknown("fewer than six classes")
    else:
        top5 = share(int(in_top5.sum()), n)
    return Scores(
        n=n,
        top1=share(int(correct.sum()), n),
        top5=top5,
        nll=(
            unknown("the predictions came without the probability of the true class", "nats")
            if nll is None
            else _mean_nll(nll, seed)
        ),
        ece=(
            unknown("the predictions came without confidences")
            if confidence is None
            else _calibration_error(confidence, correct, seed)
        ),
    )


def equal_mass_bins(confidence: Float[np.ndarray, " n"], n_bins: int) -> Int[np.ndarray, " n"]:
    """Bin of each row, 0 … n_bins-1, by the rank of its confidence; equal values share a bin.

    Examples
    --------
    >>> equal_mass_bins(np.array([0.9, 0.1, 0.5, 0.5]), 2).tolist()
    [1, 0, 0, 0]
    """
    _, first, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2  # mean rank of each value, from 0
    rank = middle[first]
    return np.minimum((rank * n_bins / len(confidence)).astype(np.int64), n_bins - 1)


def calibration_error(
    confidence: Float[np.ndarray, " n"], correct: np.ndarray, n_bins: int = N_BINS
) -> float:
    """Return Σ_b share_b · |accuracy_b − mean confidence_b| over bins of equal mass, in [0, 1].

    Biased upward in small sets: compare sets at equal n.

    Source: M. P. Naeini, G. F. Cooper and M. Hauskrecht (2015), AAAI, with bins of equal mass
    instead of equal width.

    Examples
    --------
    >>> round(calibration_error(np.array([0.9, 0.9, 0.6, 0.6]), np.array([1, 1, 1, 0]), 2), 3)
    0.1
    """
    bins = equal_mass_bins(confidence, n_bins)
    excess = np.bincount(bins, confidence - correct, minlength=n_bins)
    return float(np.abs(excess).sum() / len(confidence))


def _mean_nll(nll: Float[np.ndarray, " n"], seed: int) -> Estimate:
    number = {"images": len(nll)}
    n_unknown = int(np.isnan(nll).sum())
    if n_unknown:
        return Estimate.unknown(
            f"{n_unknown} images have a label that the head was not trained on",
            n=number,
            unit="nats",
        )
    rng = np.random.default_rng(seed)
    draws = np.array([nll[rng.integers(len(nll), size=len(nll))].mean() for _ in range(N_DRAWS)])
    low, high = np.quantile(draws, TAILS)
    return Estimate(
        float(nll.mean()),
        float(low),
        float(high),
        f"bootstrap of images, percentile, {N_DRAWS} draws",
        number,
        "nats",
        seed=seed,
    )


def _calibration_error(
    confidence: Float[np.ndarray, " n"], correct: Bool[np.ndarray, " n"], seed: int
) -> Estimate:
    """ECE with an interval that allows for its upward bias.

    The mean excess of a bin varies by chance, and its absolute value counts that as error. So the
    low end lies below the value whose squared excesses have the chance variance taken off, and
    reaches down to 0 where a perfectly calibrated head with these confidences would show as large
    an error in 1 of 20 sets; the high end lies above the plain value. Conservative.
    """
    n = len(correct)
    value = calibration_error(confidence, correct)
    bins = equal_mass_bins(confidence, N_BINS)
    excess = confidence - correct
    mass = np.maximum(np.bincount(bins, minlength=N_BINS), 1)  # ties may leave a bin empty
    mean = np.bincount(bins, excess, minlength=N_BINS) / mass
    variance = np.bincount(bins, np.square(excess - mean[bins]), minlength=N_BINS) / mass**2
    rng = np.random.default_rng(seed)
    draws, by_chance = np.empty(N_DRAWS), np.empty(N_DRAWS)
    for i in range(N_DRAWS):
        drawn = rng.integers(n, size=n)
        draws[i] = np.abs(np.bincount(bins[drawn], excess[drawn], minlength=N_BINS)).sum() / n
        calibrated = confidence - (rng.random(n) < confidence)
        by_chance[i] = np.abs(np.bincount(bins, calibrated, minlength=N_BINS)).sum() / n
    half = Z * float(draws.std())
    corrected = float(np.sqrt(np.maximum(np.square(mean) - variance, 0)) @ mass / n)
    calibration_fits = value <= np.quantile(by_chance, LEVEL)
    return Estimate(
        value,
        0.0 if calibration_fits else max(0.0, corrected - half),
        value + half,
        f"bootstrap of images round the value with and without its bias, {N_BINS} bins of equal "
        f"mass, {N_DRAWS} draws",
        {"images": n},
        "fraction",
        seed=seed,
    )
