"""Tests of many columns by the largest |t| of bootstrap replicates."""

import numpy as np

from models.gap.resampling import Replicates


def smallest_p(seed, d, m=100):
    """Of d columns of noise: the sample is drawn around 0, replicates around the sample."""
    rng = np.random.default_rng(seed)
    sample = rng.normal(size=d)
    values = np.vstack([sample, sample + rng.normal(size=(m, d))])
    drawn = Replicates(np.ones((2, m + 1), np.float32), np.ones((2, m + 1), np.float32), seed=0)
    return drawn.errors_and_p_values(values)[1].min()


def test_a_thousand_columns_of_noise_show_nothing():
    """With each replicate judged by a spread that knows it, 13 % of these had a finding."""
    share = np.mean([smallest_p(seed, 1000) <= 0.05 for seed in range(400)])
    assert 0.02 < share < 0.075


def test_what_does_not_move_is_no_finding():
    values = np.tile([1.0, 0.0, np.nan], (20, 1))
    values[:, 1] = np.arange(20)
    drawn = Replicates(np.ones((1, 20), np.float32), np.ones((1, 20), np.float32), seed=0)
    errors, p = drawn.errors_and_p_values(values)
    assert errors[0] == 0
    assert p[0] == 1
    assert np.isnan([errors[2], p[2]]).all()
