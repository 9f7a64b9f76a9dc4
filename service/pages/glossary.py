"""Words of the field in plain words: each is explained where it is printed."""

import re

from markupsafe import Markup, escape

GLOSSARY = {
    "gap": "Accuracy on test set 1 minus accuracy on test set 2, in percentage points.",
    "reference": "Test set 1: gaps are counted from here.",
    "target": "Test set 2: the one that is compared with test set 1.",
    "points": "Percentage points: 90 % minus 83 % are 7 points.",
    "95 % interval": "A range made so that it holds the true value in 95 of 100 such studies.",
    "backbone": "The network that turns an image into features; it stays as it is.",
    "head": "The classifier that is trained on the features.",
    "shrunken": "Drawn towards what classes have in common, the more the fewer images a class has: "
    "the better guess, and still a guess. Its interval says how good.",
    "raw": "As counted; with few images mostly chance.",
    "q value": "The share of false ones to expect among all that are called clear at this value.",
    "probit": "A scale on which models of most accuracies lie near one straight line: accuracy, "
    "stretched near 0 and 100 %.",
    "effective robustness": "Accuracy on test set 2 beyond what models of this accuracy on test "
    "set 1 have.",
    "prediction band": "Where 95 of 100 further models are expected.",
    "calibration": "Whether probabilities mean what they say: where it says 80 %, 80 in 100 are "
    "right.",
    "confidence": "The probability that the model gives to its own answer.",
    "margin": "How far the winning class is ahead of the next, in scores.",
    "ledger": "The gap written as a sum: each term says how much goes with one difference between "
    "the two sets.",
    "difficulty": "How hard an image is for this model, told without its label: how sure the "
    "model is, how near train images are.",
    "entropy": "How evenly the probabilities are spread over classes: 0 where the model is sure.",
    "hubness": "How often an image is among the nearest of others.",
    "rest": "What goes with nothing that was measured here.",
    "label shift": "Another mix of classes.",
    "covariate": "Something known of each image, such as its brightness or how sure people are.",
    "standardised gap": "What the gap would be were images that are alike in this equally frequent "
    "in both sets.",
    "weight": "How much a feature counts in the head.",
    "shift": "How far the mean of a feature moved from test set 1 to test set 2, in standard "
    "deviations of the train rows.",
    "twin": "For an image that the model gets wrong: the most similar one of the same class in the "
    "other set that it gets right.",
    "NLL": "Mean of minus the logarithm of the probability of the true class; lower is better.",
    "Holm": "A way to test several things at once: the chance of any false one stays below 5 %.",
    "TOST": "Two one-sided tests: whether a change is smaller than what would matter.",
    "PCA": "The two directions along which train rows vary most.",
    "UMAP": "A picture that keeps near images near; distances far apart mean little.",
    "excess": "What a class or group loses beyond the gap of all images.",
    "explore half": "Half of each test set, from which ideas may be taken.",
    "confirm half": "The other half, on which ideas are tested once.",
    "norm": "The length of a feature vector.",
    "AUC": "How well two things are told apart: .5 is guessing, 1 is perfect.",
    "seal": "A prediction that was stored before the labels were read.",
}
_WORD = re.compile(
    r"(?<![\w-])(" + "|".join(re.escape(w) for w in sorted(GLOSSARY, key=len, reverse=True)) + r")"
    r"(?![\w-])"
)
_COMMON = {"gap", "points", "reference", "target", "head", "raw", "weight", "shift", "rest"}


def term(word: str, shown: str | None = None) -> Markup:
    """Return a word with its explanation, which hovering over it or focusing it shows.

    Raises
    ------
    KeyError
        It is not in the glossary.
    """
    return Markup(
        '<span class="term" tabindex="0" role="note" data-tip="{tip}" '
        'aria-label="{shown}: {tip}">{shown}</span>'
    ).format(tip=GLOSSARY[word], shown=shown or word)


def explained(sentence: str) -> Markup:
    """Return a sentence as HTML in which the first mention of each rarer word is explained."""
    seen: set[str] = set()

    def mark(found: re.Match[str]) -> str:
        word = found.group(1)
        if word in seen or word in _COMMON:
            return str(escape(word))
        seen.add(word)
        return str(term(word))

    parts, end = [], 0
    for found in _WORD.finditer(sentence):
        parts += [str(escape(sentence[end : found.start()])), mark(found)]
        end = found.end()
    return Markup("".join([*parts, str(escape(sentence[end:]))]))
