"""Scores of one test set, each with its interval."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

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
    n = len(predictions.correct)
    number = {"images": n}
    if n == 0:
        nothing = Estimate.unknown("no images", n=number, unit="fraction")
        return Scores(0, nothing, nothing, nothing, nothing)
    return Scores(
        n=n,
        top1=share(int(predictions.correct.sum()), n),
        top5=(
            share(int(predictions.in_top5.sum()), n)
            if n_classes > 5
            else Estimate.unknown("fewer than six classes", n=number, unit="fraction")
        ),
        nll=_mean_nll(predictions.nll, seed),
        ece=_calibration_error(predictions, seed),
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


def _calibration_error(predictions: Predictions, seed: int) -> Estimate:
    """ECE with an interval that allows for its upward bias.

    The mean excess of a bin varies by chance, and its absolute value counts that as error. So the
    low end lies below the value whose squared excesses have the chance variance taken off, and
    reaches down to 0 where a perfectly calibrated head with these confidences would show as large
    an error in 1 of 20 sets; the high end lies above the plain value. Conservative.
    """
    n = len(predictions.correct)
    value = calibration_error(predictions.confidence, predictions.correct)
    bins = equal_mass_bins(predictions.confidence, N_BINS)
    excess = predictions.confidence - predictions.correct
    mass = np.maximum(np.bincount(bins, minlength=N_BINS), 1)  # ties may leave a bin empty
    mean = np.bincount(bins, excess, minlength=N_BINS) / mass
    variance = np.bincount(bins, np.square(excess - mean[bins]), minlength=N_BINS) / mass**2
    rng = np.random.default_rng(seed)
    draws, by_chance = np.empty(N_DRAWS), np.empty(N_DRAWS)
    for i in range(N_DRAWS):
        drawn = rng.integers(n, size=n)
        draws[i] = np.abs(np.bincount(bins[drawn], excess[drawn], minlength=N_BINS)).sum() / n
        calibrated = predictions.confidence - (rng.random(n) < predictions.confidence)
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
