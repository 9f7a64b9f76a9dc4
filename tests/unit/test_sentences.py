"""Sentences say what the numbers show, and no more."""

import numpy as np
import pytest

from models.gap.classes import class_gaps
from models.gap.difference import bootstrap_within_classes, label_shift, newcombe
from models.gap.reporting import GapReport
from service.sentences import in_words

NAMES = {0: "cat", 1: "dog", 2: "owl"}


def said(k1, n1, k2, n2, n_unknown=(0, 0)):
    k1, n1, k2, n2 = (np.array(x) for x in (k1, n1, k2, n2))
    classes, model = class_gaps(np.arange(len(k1)), k1, n1, k2, n2, seed=0)
    report = GapReport(
        newcombe(int(k1.sum()), int(n1.sum()), int(k2.sum()), int(n2.sum())),
        bootstrap_within_classes(k1, n1, k2, n2, seed=0),
        label_shift(k1, n1, n2), classes, model, [],
    )  # fmt: skip
    return in_words(report, "m", "val", "v2", NAMES, n_unknown)


def test_a_gap_is_said_with_its_interval():
    assert said([90] * 3, [100] * 3, [80] * 3, [100] * 3)[0] == (
        "m scores 10.0 points lower on v2 than on val (95 % interval 4.3 to 15.7)."
    )


def test_a_gain_has_an_interval_of_the_same_sign():
    assert said([80] * 3, [100] * 3, [90] * 3, [100] * 3)[0] == (
        "m scores 10.0 points higher on v2 than on val (95 % interval 4.3 to 15.7)."
    )


def test_an_interval_round_0_shows_no_gap():
    sentence = said([85] * 3, [100] * 3, [84] * 3, [100] * 3)[0]
    assert "1.0 points lower" in sentence
    assert "includes 0: these images do not show that there is a gap" in sentence
    assert "higher on v2" in said([84] * 3, [100] * 3, [85] * 3, [100] * 3)[0]


def test_the_same_score_is_said_so():
    assert "scores the same on v2 as on val" in said([9, 9], [10, 10], [9, 9], [10, 10])[0]


def test_an_end_that_excludes_0_is_not_rounded_to_it():
    assert "interval 0.03 to " in said([48_000], [50_000], [9_555], [10_000])[0]


def test_a_class_that_loses_more_and_one_that_gains_are_named():
    sentences = said([90, 90, 50], [100] * 3, [30, 90, 95], [100] * 3)
    assert any("lose more than the others" in s and s.endswith(": cat.") for s in sentences)
    assert any("lose less than the others, or gain" in s and "owl" in s for s in sentences)


def test_classes_that_cannot_be_told_apart_are_not_named():
    sentences = said([90, 88], [100] * 2, [80, 79], [100] * 2)
    assert any(s.startswith("Largest class gaps") and "no class is shown" in s for s in sentences)


def test_what_cannot_be_compared_is_said_so():
    sentences = said([9, 0], [10, 0], [0, 5], [0, 10])
    assert "Classes cannot be compared: fewer than two have images in both sets." in sentences
    assert said([0], [0], [1], [2]) == ["The gap cannot be known: a test set without images."]


def test_the_class_mix_and_unknown_classes_have_their_own_sentences():
    sentences = said([50, 90], [100, 100], [25, 270], [50, 300], n_unknown=(0, 12))
    assert any(
        "12 images of v2 with a class that the model was not trained on" in s for s in sentences
    )
    assert any("points of the gap come only from the class proportions" in s for s in sentences)
    assert not any("proportions" in s for s in said([9] * 2, [10] * 2, [5] * 2, [10] * 2))


@pytest.mark.parametrize("n", [6, 12])
def test_long_lists_are_cut(n):
    k1 = [90] * (2 * n)
    k2 = [40] * n + [90] * n
    sentence = next(s for s in said(k1, [100] * 2 * n, k2, [100] * 2 * n) if "lose more" in s)
    assert f"and {n - 5} more" in sentence
