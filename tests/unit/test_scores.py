import numpy as np
import pytest
from sklearn.metrics import log_loss

from models.gap.scores import calibration_error, equal_mass_bins, scores
from models.heads import Predictions


def predictions(confidence, correct, nll=None):
    n = len(correct)
    return Predictions(
        predicted=np.zeros(n, np.int64),
        confidence=np.asarray(confidence, float),
        correct=np.asarray(correct, bool),
        in_top5=np.ones(n, bool),
        nll=-np.log(np.asarray(confidence, float)) if nll is None else np.asarray(nll, float),
    )


def test_scores_of_one_set():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 0.99, 500)
    correct = rng.random(500) < confidence
    nll = np.where(correct, -np.log(confidence), -np.log(1 - confidence))
    found = scores(predictions(confidence, correct, nll), n_classes=10, seed=0)
    assert found.n == 500
    assert found.top1.estimate == correct.mean()
    assert found.nll.estimate == pytest.approx(log_loss(correct, confidence))
    assert found.nll.low < found.nll.estimate < found.nll.high
    assert 0 <= found.ece.low <= found.ece.estimate <= found.ece.high
    assert found.top5.estimate == 1
    assert scores(predictions([0.5], [True]), n_classes=5, seed=0).top5.estimate is None


@pytest.mark.parametrize("error", [0.0, 0.06])
def test_the_interval_of_the_calibration_error_covers_in_spite_of_its_bias(error):
    rng = np.random.default_rng(0)
    covered = []
    for seed in range(25):
        confidence = rng.uniform(0.5, 0.95, 400)
        correct = rng.random(400) < confidence - error
        ece = scores(predictions(confidence, correct), n_classes=9, seed=seed).ece
        covered.append(ece.low <= error <= ece.high)
    assert np.mean(covered) >= 0.88


def test_scores_that_cannot_be_known_say_why():
    unknown = scores(predictions([0.5, 0.5], [True, False], [0.1, np.nan]), n_classes=9, seed=0)
    assert unknown.nll.estimate is None
    assert "1 images have a label" in unknown.nll.reason
    assert scores(predictions([], []), n_classes=9, seed=0).ece.reason == "no images"


def test_bins_hold_equal_masses_and_keep_ties_together():
    assert (
        np.bincount(equal_mass_bins(np.random.default_rng(0).random(150), 15)).tolist() == [10] * 15
    )
    assert len(set(equal_mass_bins(np.full(100, 0.5), 15).tolist())) == 1
    assert calibration_error(np.full(100, 0.7), np.arange(100) < 70) == pytest.approx(0, abs=1e-12)
