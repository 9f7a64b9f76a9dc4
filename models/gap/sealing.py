"""One prediction of the accuracy that a target will show, made before its labels are read.

What is predicted is the share of right answers on the target's own, finite images: the number that
an evaluation will print. Its interval is therefore a prediction interval, of three parts: the
chance in what the methods read, the chance of the target's images, and what the methods believe.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import t as student

from models.estimate import LEVEL, Estimate, Z
from models.gap.line import Line, inside
from models.gap.resampling import Replicates, weighted_accuracy
from models.gap.without_labels import (
    ATC_CONFIDENCE,
    ATC_ENTROPY,
    Foreteller,
    Foretold,
)

LINE = "line"
LEAST_METHODS = 2
SHARE_BELIEVED = 0.25  # standard deviation of a foretold change, as a share of it, at the least

BLIND = (
    "No method that sees no label of the target sees that its labels are noisier, or that images "
    "which look the same belong to another class now: where either has changed, the interval may "
    "miss."
)
ALIKE = "the truth differs from the methods about as much as they differ from each other"


@dataclass(frozen=True)
class Voice:
    """What one method foretells.

    Attributes
    ----------
    foretold : with the values of the sample and of each replicate
    scatter : variance of what is foretold beyond that of the replicates, as a line's models have
    """

    foretold: Foretold
    scatter: float = 0.0


@dataclass(frozen=True)
class Combined:
    """The prediction, and the parts of its interval.

    Attributes
    ----------
    predicted : accuracy on the target's images, with a 95 % prediction interval
    n_methods : that take part
    chance_sd : bootstrap standard deviation of the methods' mean, a line's scatter with it
    images_sd : binomial standard deviation of the target's images
    spread_sd : standard deviation between methods; None with fewer than two
    least_sd : a quarter of the foretold change: what the disagreement is never taken to be below
    """

    predicted: Estimate
    n_methods: int
    chance_sd: float
    images_sd: float
    spread_sd: float | None
    least_sd: float


def by_confidence(
    teller: Foreteller,
    confidence: tuple[Float[np.ndarray, " n1"], Float[np.ndarray, " n2"]],
    entropy: tuple[Float[np.ndarray, " n1"], Float[np.ndarray, " n2"]],
) -> list[Voice]:
    """Return the voices of ATC (twice), DoC and CBPE.

    Parameters
    ----------
    teller
        Knows whether the model is right on the reference.
    confidence, entropy
        Of the model's probabilities, on reference and target; entropy in nats.
    """
    found = (
        teller.atc(ATC_CONFIDENCE, *confidence),
        teller.atc(ATC_ENTROPY, -entropy[0], -entropy[1]),
        teller.doc(*confidence),
        teller.cbpe(*confidence),
    )
    return [Voice(one) for one in found]


def by_line(
    line: Line, reference_correct: Bool[np.ndarray, " n1"], drawn: Replicates, method: str
) -> Voice:
    """Return the voice of the line through other models.

    Parameters
    ----------
    line
        Accuracy on the target over that on the reference.
    reference_correct
        Whether this model is right on each image of the reference.
    drawn
        The draws of the other voices, so that all move together.
    method
        Which models the line goes through, in words.
    """
    n = len(reference_correct)
    accuracy = weighted_accuracy(reference_correct, drawn.reference)
    values = line.expected(np.clip(accuracy, 0.5 / n, 1 - 0.5 / n))
    among = line.predicted(inside(float(accuracy[0]), n))
    assert among.low is not None
    assert among.high is not None
    assumptions = "this model lies on the line of the others, whose target labels were used"
    foretold = Foretold(LINE, values, drawn.estimate(values), method, assumptions)
    return Voice(foretold, ((among.high - among.low) / (2 * Z)) ** 2)


def alone(voice: Voice, n_target: int) -> Estimate:
    """Return what one method foretells, with a 95 % interval for what the target will show.

    The method is taken at its word: its interval holds the chance of what it read and of the
    target's images, and nothing for what it believes.

    Parameters
    ----------
    n_target
        Images of the target.

    Examples
    --------
    >>> null = Estimate(0.5, 0.5, 0.5, "", {"reference": 9, "target": 100}, "fraction")
    >>> found = alone(Voice(Foretold("a", np.full(4, 0.5), null, "", "")), 100)
    >>> found.low, found.high  # half an image's standard deviation is .05
    (0.402..., 0.597...)
    """
    predicted = voice.foretold.predicted
    if voice.foretold.values is None or predicted.estimate is None:
        return predicted
    own = float(np.var(voice.foretold.values[1:], ddof=1)) + voice.scatter
    half = Z * float(np.sqrt(own + _of_images(predicted.estimate, n_target)))
    return Estimate(
        predicted.estimate,
        max(0.0, predicted.estimate - half),
        min(1.0, predicted.estimate + half),
        "bootstrap within classes of the reference, with the binomial chance of the target's images"
        + (" and the scatter of the line's models" if voice.scatter else ""),
        predicted.n,
        "fraction",
        seed=predicted.seed,
    )


def combine(voices: Sequence[Voice], reference_accuracy: float, n_target: int) -> Combined:
    """Combine what several methods foretell into one prediction.

    All count equally: they mostly read the same scores, so that a weight by precision would honour
    the same chance several times, and their errors are mostly beliefs, which no bootstrap sees. The
    truth is taken as one more draw from where the methods' answers come from: its variance about
    their mean is that of the mean's chance and of the target's images, and (1 + 1/k) times the
    variance between the k methods, with Student's quantile for so few of them (Satterthwaite's
    degrees of freedom). Methods that read the same confidences can also be wrong together, which
    their spread does not show: the interval is never narrower than with a standard deviation of a
    quarter of the change that is foretold.

    Parameters
    ----------
    voices
        Those without values are passed over.
    reference_accuracy
        Of this model.
    n_target
        Images of the target.

    Source: J. Higgins, S. Thompson and D. Spiegelhalter (2009), JRSS A 172, 137-159, for the
    prediction interval of a random-effects mean; F. Satterthwaite (1946), Biometrics 2, 110-114;
    equal weights and the least spread are ours.

    Examples
    --------
    >>> def says(name, value):
    ...     null = Estimate(value, value, value, "", {"target": 10**9}, "fraction")
    ...     return Voice(Foretold(name, np.full(4, value), null, "", ""))
    >>> found = combine([says("a", 0.8), says("b", 0.82), says("c", 0.84)], 0.82, 10**9)
    >>> round(found.predicted.estimate, 3), round(found.spread_sd, 3)
    (0.82, 0.02)
    >>> round(found.predicted.high - 0.82, 3)  # 4.303 × .02 × √(1 + 1/3)
    0.099
    """
    known = [voice for voice in voices if voice.foretold.values is not None]
    k = len(known)
    if k < LEAST_METHODS:
        null = Estimate.unknown(
            f"fewer than {LEAST_METHODS} methods foretell it",
            n={"target": n_target},
            unit="fraction",
        )
        return Combined(null, k, 0.0, 0.0, None, 0.0)
    values = np.stack([np.asarray(voice.foretold.values) for voice in known])
    mean = values.mean(axis=0)
    middle = float(mean[0])
    scatter = sum(voice.scatter for voice in known) / k**2
    chance = float(np.var(mean[1:], ddof=1)) + scatter
    images = _of_images(middle, n_target)
    spread = float(np.var(values[:, 0], ddof=1))
    least = SHARE_BELIEVED * abs(middle - reference_accuracy)
    surely, believed = chance + images, (1 + 1 / k) * spread
    freedom = (k - 1) * (1 + surely / believed) ** 2 if believed > 0 else np.inf
    half = max(
        float(student.isf((1 - LEVEL) / 2, freedom)) * math.sqrt(surely + believed),
        Z * math.sqrt(surely + least**2),
    )
    predicted = Estimate(
        middle,
        max(0.0, middle - half),
        min(1.0, middle + half),
        f"equal weights of {k} methods; prediction interval from the bootstrap, the "
        "binomial chance of the target's images, and what the methods differ by",
        known[0].foretold.predicted.n,
        "fraction",
        seed=known[0].foretold.predicted.seed,
    )
    return Combined(
        predicted,
        k,
        float(np.sqrt(chance)),
        float(np.sqrt(images)),
        float(np.sqrt(spread)),
        least,
    )


def _of_images(accuracy: float, n: int) -> float:
    """Variance of the accuracy of n images; never 0, for a share near 1 is not a certainty."""
    inner = inside(accuracy, n)
    return inner * (1 - inner) / n
