"""Calibration on both sets beside scikit-learn's numbers, and what its increase covers."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from models.gap.calibration import Answers, brier_scores, calibration, reliability_bins
from models.gap.resampling import replicates


def answers(seed, n, k=5, too_sure=1.0):
    """Labels drawn from the probabilities; then the model says sharper ones."""
    rng = np.random.default_rng(seed)
    z = 2 * rng.normal(size=(n, k))
    labels = (rng.random((n, 1)) > softmax(z, axis=1).cumsum(axis=1)).sum(axis=1)
    labels = np.minimum(labels, k - 1)
    p = softmax(too_sure * z, axis=1)
    own = p[np.arange(n), labels]
    found = Answers(
        p.argmax(axis=1) == labels,
        p.max(axis=1),
        -np.log(own),
        brier_scores((too_sure * z).astype(np.float32), labels, np.arange(k)),
    )
    return found, labels, p


def both(first, second):
    drawn = replicates(first[1], second[1], seed=0)
    return calibration(first[0], second[0], drawn)


def test_numbers_are_scikit_learns():
    first, second = answers(0, 3000), answers(1, 1500, too_sure=1.5)
    found = both(first, second)
    for side, (mine, labels, p) in (("reference", first), ("target", second)):
        assert getattr(found.brier, side).estimate == pytest.approx(
            brier_score_loss(labels, p, scale_by_half=False), abs=1e-6
        )
        assert getattr(found.nll, side).estimate == pytest.approx(log_loss(labels, p), abs=1e-6)
        # no ties, and n is a multiple of 15: all bins weigh the same
        true, said = calibration_curve(
            mine.correct, mine.confidence, n_bins=15, strategy="quantile"
        )
        assert getattr(found.ece, side).estimate == pytest.approx(
            np.abs(true - said).mean(), abs=1e-6
        )
        bins = reliability_bins(mine.confidence, mine.correct)
        assert [b.accuracy.estimate for b in bins] == pytest.approx(true.tolist(), abs=1e-6)
        assert [b.confidence for b in bins] == pytest.approx(said.tolist(), abs=1e-6)
    assert found.overconfidence.increase.low > 0
    assert found.ece.increase.low > 0
    assert found.nll.increase.estimate == pytest.approx(
        found.nll.target.estimate - found.nll.reference.estimate
    )


def test_sets_of_other_sizes_are_compared_at_equal_size():
    """Both sets are calibrated: the plain error of the small one is larger all the same."""
    inside, plain = 0, []
    for seed in range(10):
        found = both(answers(seed, 4000), answers(100 + seed, 400))
        inside += found.ece.increase.low <= 0 <= found.ece.increase.high
        plain.append(found.ece.target.estimate - found.ece.reference.estimate)
    assert inside >= 7
    assert np.mean(plain) > 0.01


def test_a_set_with_itself_and_the_other_way_round():
    first, second = answers(0, 900), answers(1, 900, too_sure=2)
    same = both(first, first)
    assert same.brier.increase.estimate == pytest.approx(0, abs=1e-12)
    assert same.ece.increase.estimate == 0
    there, back = both(first, second), both(second, first)
    assert back.ece.increase.estimate == pytest.approx(-there.ece.increase.estimate, abs=1e-12)


def test_what_is_not_known_is_null_with_a_reason():
    first, second = answers(0, 100), answers(1, 100)
    bare = [(Answers(one[0].correct), one[1]) for one in (first, second)]
    found = both(*bare)
    for measure in (found.ece, found.overconfidence, found.nll, found.brier):
        assert measure.increase.estimate is None
        assert measure.increase.reason
    assert found.reliability is None
    assert brier_scores(np.zeros((1, 2)), np.array([7]), np.array([0, 1])) is None
