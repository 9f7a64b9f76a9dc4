"""47 real models on ImageNet and ImageNetV2, against the figures worked out beforehand."""

import pytest

from tests.science.imagenet_v2 import FOLDER, Predictions

pytestmark = [
    pytest.mark.science,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the shared data folder is absent"),
]


@pytest.fixture(scope="module")
def lines():
    return {line.model: line for line in Predictions().lines()}


def test_label_shift_is_exactly_0_in_all(lines):
    assert len(lines) == 47
    assert {line.label_shift for line in lines.values()} == {0.0}
    assert {line.n_others for line in lines.values()} == {46}


def test_class_gaps_of_the_best_model(lines):
    """Reliability .40; Benjamini-Hochberg names 22 classes at .05 and 38 at .10."""
    best = lines["pnasnet5large"]
    assert next(iter(lines)) == "pnasnet5large"
    assert round(best.reliability.estimate, 2) == 0.40
    assert (best.n_q05, best.n_q10) == (22, 38)


@pytest.mark.parametrize(
    ("model", "share"),
    [
        ("pnasnet5large", 60),
        ("senet154", 65),
        ("resnet152", 74),
        ("vgg19_bn", 78),
        ("resnet18", 80),
    ],
)
def test_agreement_explains_the_less_the_stronger_the_model(lines, model, share):
    found = lines[model].explained
    assert 100 * found.estimate == pytest.approx(share, abs=1.2)
    assert found.low < share / 100 < found.high


@pytest.mark.parametrize(
    ("model", "a1", "a2"), [("resnet152", 78.31, 67.02), ("vgg19_bn", 74.22, 61.89)]
)
def test_accuracies_are_the_published_ones(lines, model, a1, a2):
    assert [round(100 * a, 2) for a in lines[model].accuracy] == [a1, a2]


def test_every_gap_is_told_and_no_interval_is_null(lines):
    for line in lines.values():
        assert line.gap.low > 0
        assert 0 < line.errors_called_right.low < line.errors_called_right.high < 1
