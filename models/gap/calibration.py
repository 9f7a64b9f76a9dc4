"""Whether probabilities mean on the target what they mean on the reference (G14)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from models.estimate import Estimate, share
from models.gap.resampling import Replicates
from models.gap.scores import N_BINS, calibration_error, equal_mass_bins, scores_of_answers

N_SUBSAMPLES = 20
_BLOCK = 4096


@dataclass(frozen=True)
class Answers:
    """What a model said of one test set.

    Attributes
    ----------
    correct : whether it is right
    confidence : probability of the predicted class; None where it is not known
    nll : minus the log of the label's probability in nats; None where it is not known
    brier : of `brier_scores`; None where it is not known
    """

    correct: Bool[np.ndarray, " n"]
    confidence: Float[np.ndarray, " n"] | None = None
    nll: Float[np.ndarray, " n"] | None = None
    brier: Float[np.ndarray, " n"] | None = None


@dataclass(frozen=True)
class ReliabilityBin:
    """Images of one set of which the model is equally sure: mean confidence and accuracy."""

    n: int
    confidence: float
    accuracy: Estimate


@dataclass(frozen=True)
class Measure:
    """One measure on both sets; lower is better.

    Attributes
    ----------
    increase : target minus reference
    """

    reference: Estimate
    target: Estimate
    increase: Estimate


@dataclass(frozen=True)
class Calibration:
    """How far probabilities can be trusted on each set.

    Attributes
    ----------
    ece : expected calibration error; its increase compares sets of equal size, since the error is
        biased upward in small sets
    overconfidence : mean confidence minus accuracy
    nll, brier : mean −log probability of the label; mean squared distance of probabilities from
        the label, in [0, 2]
    reliability : bins of equal mass of each set, rising in confidence; None without confidences
    """

    ece: Measure
    overconfidence: Measure
    nll: Measure
    brier: Measure
    reliability: Mapping[str, list[ReliabilityBin]] | None


def calibration(reference: Answers, target: Answers, drawn: Replicates) -> Calibration:
    """Calibration of a model on both test sets (G14).

    ECE with 15 bins of equal mass, its interval allowing for its bias as in `models.gap.scores`.
    For the increase the larger set is cut to the size of the smaller in 20 random subsamples, and
    their mean error counts; the interval is that of the replicates.

    Parameters
    ----------
    reference, target
        Of all images.
    drawn
        Weights of the sample and its replicates; its seed is also that of the subsamples.

    Source: M. P. Naeini, G. F. Cooper, M. Hauskrecht (2015), AAAI; R. Roelofs et al. (2022),
    AISTATS, for bins of equal mass and the bias in small sets; G. W. Brier (1950), Monthly Weather
    Review 78, 1-3.
    """
    sides = {"reference": reference, "target": target}
    one = {
        name: scores_of_answers(
            side.correct, confidence=side.confidence, nll=side.nll, n_classes=1, seed=drawn.seed
        )
        for name, side in sides.items()
    }
    reliability = None
    no_confidence = Estimate.unknown(
        "the predictions came without confidences", n=drawn.n, unit="fraction"
    )
    ece = Measure(one["reference"].ece, one["target"].ece, no_confidence)
    over = Measure(no_confidence, no_confidence, no_confidence)
    if reference.confidence is not None and target.confidence is not None:
        ece = Measure(ece.reference, ece.target, _increase_of_ece(reference, target, drawn))
        over = _means(
            reference.confidence - reference.correct, target.confidence - target.correct, drawn
        )
        reliability = {
            name: reliability_bins(side.confidence, side.correct)
            for name, side in sides.items()
            if side.confidence is not None
        }
    nll = _nll(reference.nll, target.nll, one["reference"].nll, one["target"].nll, drawn)
    if reference.brier is None or target.brier is None:
        null = Estimate.unknown(
            "needs the probability of every class and labels that the head knows",
            n=drawn.n,
            unit="squared probability",
        )
        brier = Measure(null, null, null)
    else:
        brier = _means(reference.brier, target.brier, drawn, unit="squared probability")
    return Calibration(ece, over, nll, brier, reliability)


def reliability_bins(
    confidence: Float[np.ndarray, " n"], correct: Bool[np.ndarray, " n"], n_bins: int = N_BINS
) -> list[ReliabilityBin]:
    """Bins of equal mass, rising; bins that ties leave empty are left out.

    Examples
    --------
    >>> found = reliability_bins(np.array([0.9, 0.9, 0.5, 0.5]), np.array([1, 1, 1, 0], bool), 2)
    >>> [(b.n, b.confidence, b.accuracy.estimate) for b in found]
    [(2, 0.5, 0.5), (2, 0.9, 1.0)]
    """
    bins = equal_mass_bins(confidence, n_bins)
    n = np.bincount(bins, minlength=n_bins)
    total = np.bincount(bins, confidence, minlength=n_bins)
    right = np.bincount(bins, correct, minlength=n_bins)
    return [
        ReliabilityBin(int(n[b]), float(total[b] / n[b]), share(int(right[b]), int(n[b])))
        for b in np.flatnonzero(n)
    ]


def brier_scores(
    scores: Float[np.ndarray, "n k"],
    labels: Int[np.ndarray, " n"],
    class_ids: Int[np.ndarray, " k"],
) -> Float[np.ndarray, " n"] | None:
    """Squared distance of the probabilities from the label, Σ_k (p_k − [k = y])², in [0, 2].

    Parameters
    ----------
    scores
        Logits.
    labels
        Class ids.
    class_ids
        Of the columns, rising.

    Returns
    -------
    One a row; None where a label is none of the columns.

    Source: G. W. Brier (1950), Monthly Weather Review 78, 1-3.

    Examples
    --------
    >>> logits = np.log(np.array([[0.75, 0.25]]))
    >>> brier_scores(logits, np.array([1]), np.array([0, 1])).round(6).tolist()
    [1.125]
    """
    place = np.minimum(np.searchsorted(class_ids, labels), len(class_ids) - 1)
    if not np.array_equal(class_ids[place], labels):
        return None
    found = np.empty(len(labels))
    for start in range(0, len(labels), _BLOCK):
        here = slice(start, start + _BLOCK)
        z = scores[here].astype(np.float64)
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        own = p[np.arange(len(p)), place[here]]
        found[here] = np.square(p).sum(axis=1) - 2 * own + 1
    return found


def _increase_of_ece(reference: Answers, target: Answers, drawn: Replicates) -> Estimate:
    assert reference.confidence is not None
    assert target.confidence is not None
    n = min(len(reference.correct), len(target.correct))
    rng = np.random.default_rng(drawn.seed)
    first, second = (
        _weighted_ece(side.confidence, side.correct, weights, n, rng)
        for side, weights in ((reference, drawn.reference), (target, drawn.target))
        if side.confidence is not None
    )
    return drawn.estimate(second - first)


def _weighted_ece(
    confidence: np.ndarray, correct: np.ndarray, weights: np.ndarray, n: int,
    rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """ECE of n images of a set, then that of each replicate with the set's bins."""
    bins = equal_mass_bins(confidence, N_BINS)
    excess = np.zeros((N_BINS, len(bins)), np.float32)
    excess[bins, np.arange(len(bins))] = confidence - correct
    found = np.abs(excess @ weights).sum(axis=0, dtype=np.float64) / len(bins)
    found[0] = calibration_error(confidence, correct)
    if n < len(bins):
        drawn = [rng.permutation(len(bins))[:n] for _ in range(N_SUBSAMPLES)]
        found[0] = np.mean([calibration_error(confidence[i], correct[i]) for i in drawn])
    return np.asarray(found)


def _means(
    first: np.ndarray, second: np.ndarray, drawn: Replicates, *, unit: str = "fraction"
) -> Measure:
    a = first @ drawn.reference.astype(np.float64) / len(first)
    b = second @ drawn.target.astype(np.float64) / len(second)
    return Measure(
        drawn.estimate(a, unit=unit),
        drawn.estimate(b, unit=unit),
        drawn.estimate(b - a, unit=unit),
    )


def _nll(
    first: np.ndarray | None,
    second: np.ndarray | None,
    reference: Estimate,
    target: Estimate,
    drawn: Replicates,
) -> Measure:
    for side in (reference, target):
        if side.estimate is None:
            why = side.reason or "not known"
            return Measure(reference, target, Estimate.unknown(why, n=drawn.n, unit="nats"))
    assert first is not None
    assert second is not None
    return Measure(reference, target, _means(first, second, drawn, unit="nats").increase)
