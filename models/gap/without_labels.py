"""Accuracy on a target foretold without its labels, and what was right about it (G15).

`Foreteller` takes no label of the target. What comes of it is held against the truth afterwards,
by `judge`, on the same bootstrap draws.
"""

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import ndtr, ndtri
from sklearn.isotonic import isotonic_regression

from models.estimate import Estimate
from models.gap.resampling import Replicates, replicates, weighted_accuracy

LEAST_OTHERS = 2  # models beside the one judged
LEAST_ON_LINE = 5  # models in all whose pairs are enough for a line
MOST_OTHERS = 20  # their pairs grow with the square
LEAST_R2 = 0.95  # of the line through agreements, below which it foretells nothing
_BINS, _IMAGES_A_BIN = 100, 25
_ROWS = 4096
_METHOD = "bootstrap, within classes of the reference, normal"

ATC_CONFIDENCE, ATC_ENTROPY = "ATC, confidence", "ATC, entropy"
DOC, CBPE, AGREEMENT = "DoC", "CBPE", "agreement"

RIGHT = "right, as far as chance lets see"
TOO_HIGH = "too high"
TOO_LOW = "too low"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Foretold:
    """Accuracy on the target as one method foretells it.

    Attributes
    ----------
    name : of the method
    values : float64 [1 + m], the sample's and each replicate's; None where it cannot be known
    predicted : the same with its interval
    method, assumptions : in words
    """

    name: str
    values: np.ndarray | None
    predicted: Estimate
    method: str
    assumptions: str


@dataclass(frozen=True)
class Judged:
    """What was foretold, beside the truth.

    Attributes
    ----------
    error : foretold minus true accuracy, with the chance of both sets' images
    covered : whether the interval of what was foretold holds the true accuracy; None if unknown
    verdict : in words
    """

    error: Estimate
    covered: bool | None
    verdict: str


class Foreteller:
    """Foretells accuracy on a target from what a model says of its images, without their labels."""

    def __init__(
        self,
        reference_labels: Int[np.ndarray, " n1"],
        reference_correct: Bool[np.ndarray, " n1"],
        n_target: int,
        *,
        seed: int,
    ) -> None:
        """Draw the replicates: within classes of the reference, of the target as a whole.

        Parameters
        ----------
        reference_labels, reference_correct
            Class ids, and whether the model is right; it was fitted on other rows.
        n_target
            Images of the target.
        seed
            Of the draws.
        """
        self._correct = reference_correct
        self.drawn = replicates(reference_labels, np.zeros(n_target, np.int64), seed=seed)
        self._accuracy = weighted_accuracy(reference_correct, self.drawn.reference)

    def atc(
        self, name: str, reference: Float[np.ndarray, " n1"], target: Float[np.ndarray, " n2"]
    ) -> Foretold:
        """Average thresholded confidence: share of the target above a threshold.

        The threshold t is where share(reference ≥ t) is the accuracy there. Images that lie on the
        threshold count in the share that makes this exact, so that a set foretells itself exactly.

        Parameters
        ----------
        name
            ATC_CONFIDENCE or ATC_ENTROPY.
        reference, target
            Scores that are higher where the model is surer.

        Source: S. Garg and others (2022), Leveraging Unlabeled Data to Predict Out-of-Distribution
        Performance, ICLR.

        Examples
        --------
        >>> correct = np.array([True, True, False, False])
        >>> teller = Foreteller(np.zeros(4, int), correct, 2, seed=0)
        >>> sure = np.array([0.9, 0.8, 0.7, 0.6])
        >>> teller.atc(ATC_CONFIDENCE, sure, np.array([0.95, 0.5])).predicted.estimate
        0.5
        """
        score, at = np.unique(-reference, return_inverse=True)  # rising, from the surest down
        order = np.argsort(at, kind="stable")
        starts = np.searchsorted(at[order], np.arange(len(score)))
        mass = np.add.reduceat(self.drawn.reference[order], starts, axis=0, dtype=np.float64)
        reached = np.cumsum(mass, axis=0)
        descending = np.sort(-target)
        above = np.zeros((len(target) + 1, self.drawn.target.shape[1]))
        np.cumsum(self.drawn.target[np.argsort(-target)], axis=0, dtype=np.float64, out=above[1:])
        values = np.empty(reached.shape[1])
        for j in range(reached.shape[1]):
            wanted = self._accuracy[j] * reached[-1, j]
            # a hair below, since sums of weights are rounded
            i = int(np.searchsorted(reached[:, j], wanted * (1 - 1e-12)))
            part = (wanted - reached[i, j] + mass[i, j]) / mass[i, j] if mass[i, j] > 0 else 1.0
            first = np.searchsorted(descending, score[i], side="left")
            last = np.searchsorted(descending, score[i], side="right")
            on = above[last, j] - above[first, j]
            values[j] = (above[first, j] + min(max(part, 0.0), 1.0) * on) / above[-1, j]
        return self._foretold(
            name,
            values,
            "share of the target at or above the score that as many images of the reference reach "
            "as are right there",
            "the score ranks right before wrong images equally well on both splits",
        )

    def doc(
        self, reference: Float[np.ndarray, " n1"], target: Float[np.ndarray, " n2"]
    ) -> Foretold:
        """Difference of confidences: a1 − (mean confidence on the reference − on the target).

        Source: D. Guillory and others (2021), Predicting with Confidence on Unseen Distributions,
        ICCV.

        Examples
        --------
        >>> teller = Foreteller(np.zeros(2, int), np.array([True, False]), 2, seed=0)
        >>> half = np.array([0.5, 0.5])
        >>> teller.doc(half, np.array([0.25, 0.5])).predicted.estimate
        0.375
        """
        means = [
            np.asarray(score @ w.astype(np.float64) / w.sum(axis=0, dtype=np.float64))
            for score, w in ((reference, self.drawn.reference), (target, self.drawn.target))
        ]
        return self._foretold(
            DOC,
            self._accuracy - (means[0] - means[1]),
            "accuracy on the reference minus what mean confidence falls by",
            "confidence falls by as much as accuracy does",
        )

    def cbpe(
        self, reference: Float[np.ndarray, " n1"], target: Float[np.ndarray, " n2"]
    ) -> Foretold:
        """Confidence-based performance estimate: mean confidence on the target, calibrated.

        The calibration is the share that is right in each of up to 100 bins of equal mass of the
        reference, made to rise with confidence (isotonic). It is fitted on the reference and
        applied to other images, so that nothing is judged by its own label; the mean over the
        reference itself is the accuracy there, exactly.

        Source: B. Zadrozny and C. Elkan (2002), KDD, for the calibration; CBPE is NannyML's name.

        Examples
        --------
        >>> teller = Foreteller(np.zeros(4, int), np.array([True, True, False, False]), 2, seed=0)
        >>> teller.cbpe(np.array([0.9, 0.9, 0.9, 0.9]), np.array([0.9, 0.9])).predicted.estimate
        0.5
        """
        n_bins = max(1, min(_BINS, len(reference) // _IMAGES_A_BIN))
        edges = np.unique(np.quantile(reference, np.arange(1, n_bins) / n_bins))
        here, there = (np.searchsorted(edges, one, side="right") for one in (reference, target))
        total = _sums(here, self.drawn.reference, len(edges) + 1)
        right = _sums(here[self._correct], self.drawn.reference[self._correct], len(edges) + 1)
        on_target = _sums(there, self.drawn.target, len(edges) + 1)
        values = np.empty(total.shape[1])
        for j in range(total.shape[1]):
            weight = np.maximum(total[:, j], 1e-12)
            calibrated = isotonic_regression(right[:, j] / weight, sample_weight=weight)
            values[j] = calibrated @ on_target[:, j] / on_target[:, j].sum()
        return self._foretold(
            CBPE,
            values,
            "mean over the target of the accuracy that images of this confidence have on the "
            "reference",
            "images of equal confidence are equally often right on both splits",
        )

    def agreement(
        self, reference: Int[np.ndarray, "n1 j"], target: Int[np.ndarray, "n2 j"]
    ) -> Foretold:
        """Foretell from how often models agree on either set.

        With five models and more whose pairwise agreements lie on a line in probit (R² at least
        .95), this model's accuracy is moved along that line (ALine-S). Otherwise accuracy falls by
        as much as the mean agreement of this model with the others.

        Parameters
        ----------
        reference, target
            Predicted class of each image: this model's first, then the others', at least two.

        Source: C. Baek and others (2022), Agreement-on-the-Line, NeurIPS.

        Examples
        --------
        >>> teller = Foreteller(np.zeros(2, int), np.array([True, True]), 2, seed=0)
        >>> same, other = np.zeros((2, 3), int), np.array([[0, 0, 0], [0, 1, 1]])
        >>> teller.agreement(same, other).predicted.estimate
        0.5
        """
        pairs = list(combinations(range(reference.shape[1]), 2))
        shares = [
            _agreements(answers, pairs, w)
            for answers, w in ((reference, self.drawn.reference), (target, self.drawn.target))
        ]
        if reference.shape[1] >= LEAST_ON_LINE:
            ends = [
                ndtri(np.clip(share, 0.5 / len(answers), 1 - 0.5 / len(answers)))
                for share, answers in zip(shares, (reference, target), strict=True)
            ]
            slope, intercept, r2 = _lines(*ends)
            if r2 >= LEAST_R2:
                n = len(self._correct)
                a1 = ndtri(np.clip(self._accuracy, 0.5 / n, 1 - 0.5 / n))
                return self._foretold(
                    AGREEMENT,
                    ndtr(slope * a1 + intercept),
                    f"agreement on the line: accuracy moved along the probit line through the "
                    f"agreements of {len(pairs)} pairs of {reference.shape[1]} models "
                    f"(R² {r2:.2f})",
                    "accuracies lie on the same line as agreements",
                )
        mine = [share[:, [a == 0 for a, _ in pairs]].mean(axis=1) for share in shares]
        return self._foretold(
            AGREEMENT,
            self._accuracy - (mine[0] - mine[1]),
            "accuracy on the reference minus what the mean agreement with "
            f"{reference.shape[1] - 1} other models falls by",
            "models that agree less are wrong more, by as much",
        )

    def unknown(self, name: str, reason: str) -> Foretold:
        """Null with a reason."""
        null = Estimate.unknown(reason, n=self.drawn.n, unit="fraction")
        return Foretold(name, None, null, "none", "none")

    def _foretold(self, name: str, values: np.ndarray, method: str, assumptions: str) -> Foretold:
        found = self.drawn.estimate(values)
        assert found.low is not None
        assert found.high is not None
        predicted = replace(
            found,
            low=max(0.0, found.low),
            high=min(1.0, found.high),
            method=f"{_METHOD}, {len(values) - 1} replicates",
        )
        return Foretold(name, values, predicted, method, assumptions)


def judge(foretold: Foretold, target_correct: Bool[np.ndarray, " n2"], drawn: Replicates) -> Judged:
    """Hold what was foretold against the truth.

    Parameters
    ----------
    foretold
        Of a `Foreteller`.
    target_correct
        Whether the model is right on each image of the target.
    drawn
        The foreteller's draws: foretold and true accuracy move together in them.
    """
    if foretold.values is None:
        null = Estimate.unknown(str(foretold.predicted.reason), n=drawn.n, unit="fraction")
        return Judged(null, None, UNKNOWN)
    truth = weighted_accuracy(target_correct, drawn.target)
    found = drawn.estimate(foretold.values - truth)
    error = replace(found, method=f"{_METHOD}, {len(truth) - 1} replicates")
    return judged(foretold.predicted, error, float(truth[0]))


def judged(predicted: Estimate, error: Estimate, truth: float) -> Judged:
    """Say whether an estimate of an accuracy held the truth.

    Examples
    --------
    >>> predicted = Estimate(0.7, 0.6, 0.8, "", {}, "fraction")
    >>> judged(predicted, Estimate(0.05, 0.01, 0.09, "", {}, "fraction"), 0.65).verdict
    'too high'
    """
    if None in (predicted.low, predicted.high, error.low, error.high):
        return Judged(error, None, UNKNOWN)
    assert predicted.low is not None
    assert predicted.high is not None
    assert error.low is not None
    assert error.high is not None
    words = TOO_HIGH if error.low > 0 else TOO_LOW if error.high < 0 else RIGHT
    return Judged(error, predicted.low <= truth <= predicted.high, words)


def _sums(place: np.ndarray, weights: np.ndarray, n: int) -> np.ndarray:
    """Weight in each bin and column, float64 [n, 1 + m]."""
    found = np.zeros((n, weights.shape[1]))
    order = np.argsort(place, kind="stable")
    there, starts = np.unique(place[order], return_index=True)
    if len(there):
        found[there] = np.add.reduceat(weights[order], starts, axis=0, dtype=np.float64)
    return found


def _agreements(
    answers: np.ndarray, pairs: list[tuple[int, int]], weights: np.ndarray
) -> np.ndarray:
    """Share of weight on which each pair agrees, float64 [1 + m, pairs]."""
    first, second = (np.array(side) for side in zip(*pairs, strict=True))
    found = np.zeros((weights.shape[1], len(pairs)))
    for start in range(0, len(answers), _ROWS):
        here = answers[start : start + _ROWS]
        same = (here[:, first] == here[:, second]).astype(np.float32)
        found += weights[start : start + _ROWS].T @ same
    return np.asarray(found / weights.sum(axis=0, dtype=np.float64)[:, None])


def _lines(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Least-squares lines over pairs, one a draw: slopes, intercepts, R² in the sample."""
    mx, my = x.mean(axis=1), y.mean(axis=1)
    dx, dy = x - mx[:, None], y - my[:, None]
    xx, xy, yy = ((a * b).sum(axis=1) for a, b in ((dx, dx), (dx, dy), (dy, dy)))
    slope = xy / np.maximum(xx, 1e-12)
    r2 = float(xy[0] ** 2 / (xx[0] * yy[0])) if xx[0] > 0 and yy[0] > 0 else 0.0
    return slope, my - slope * mx, r2
