import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from statsmodels.formula.api import ols

from models.gap.resampling import replicates
from models.gap.separation import losses, right_without, separation


def by_hand(x, y):
    """eta² and omega² from the table of statsmodels' analysis of variance."""
    table = sm.stats.anova_lm(ols("x ~ C(y)", pd.DataFrame({"x": x, "y": y})).fit())
    (between, within), df = table["sum_sq"], table["df"]
    mean_square = within / df.iloc[1]
    total = between + within
    return between / total, (between - df.iloc[0] * mean_square) / (total + mean_square)


def make(rng, n, k, effect, d=3):
    y = np.arange(n) % k
    means = np.random.default_rng(9).normal(size=(k, d)) * effect
    return (means[y] + rng.normal(size=(n, d))).astype(np.float32), y


def test_shares_of_variance_agree_with_statsmodels():
    rng = np.random.default_rng(0)
    (x1, y1), (x2, y2) = make(rng, 103, 4, 1.0), make(rng, 37, 4, 0.3)
    found = separation(x1, y1, x2, y2, replicates(y1, y2, seed=0))
    for i, (x, y) in enumerate(((x1, y1), (x2, y2))):
        for j in range(3):
            expected = by_hand(x[:, j].astype(float), y)
            assert (found.eta2[i, j], found.omega2[i, j]) == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(found.values[0], found.omega2[0] - found.omega2[1])


def test_ten_images_a_class_do_not_look_better_separated():
    """eta² of pure noise is .1 with ten images a class, omega² is 0."""
    rng = np.random.default_rng(0)
    (x1, y1), (x2, y2) = make(rng, 5000, 100, 0.0, 40), make(rng, 1000, 100, 0.0, 40)
    found = separation(x1, y1, x2, y2, replicates(y1, y2, seed=0))
    assert found.eta2[1].mean() == pytest.approx(0.1, abs=0.01)
    assert abs(found.omega2.mean(axis=1)).max() < 0.004


def test_errors_are_the_spread_over_draws_and_the_maximum_is_controlled():
    rng = np.random.default_rng(0)
    values, errors, wrong = [], [], 0
    for seed in range(60):
        (x1, y1), (x2, y2) = make(rng, 500, 20, 0.7, 5), make(rng, 200, 20, 0.7, 5)
        found = separation(x1, y1, x2, y2, replicates(y1, y2, seed=seed))
        values.append(found.values[0])
        errors.append(found.errors)
        wrong += bool((found.p_values < 0.05).any())
    ratio = np.mean(errors) / np.std(values, axis=0).mean()
    assert 0.85 < ratio < 1.2
    assert wrong <= 7  # 95 % band of a binomial with 60 trials at .05


def test_a_weaker_feature_is_found_and_constants_are_unknown():
    rng = np.random.default_rng(1)
    (x1, y1), (x2, y2) = make(rng, 2000, 20, 1.0), make(rng, 1000, 20, 1.0)
    x2[:, 1] = rng.normal(size=1000)
    x1[:, 2] = 7
    found = separation(x1, y1, x2, y2, replicates(y1, y2, seed=0))
    assert found.p_values[1] == pytest.approx(1 / 201)
    assert found.p_values[0] > 0.05
    assert np.isnan(found.values[0, 2])
    assert np.isnan(found.p_values[2])


def test_without_two_images_a_class_nothing_is_known():
    x, y = np.zeros((3, 2), np.float32), np.arange(3)
    found = separation(x, y, x, y, replicates(y, y, seed=0))
    assert found.n_classes == 0
    assert np.isnan(found.values).all()


def test_masking_by_rank_one_updates_is_masking():
    rng = np.random.default_rng(0)
    z, w = rng.normal(size=(400, 12)), rng.normal(size=(5, 12)) * 0.4
    y = (z @ w.T + rng.normal(size=(400, 5)) * 2).argmax(axis=1)
    columns = np.where(rng.random(400) < 0.1, -1, y)
    scores = (z @ w.T).astype(np.float32)
    found = right_without(scores, columns, z, w)
    for j in range(12):
        masked = z.copy()
        masked[:, j] = 0
        expected = ((masked @ w.T).argmax(axis=1) == columns) & (columns >= 0)
        np.testing.assert_array_equal(found[:, j], expected)


def test_losses_are_differences_of_accuracies():
    rng = np.random.default_rng(0)
    right, without = rng.random(60) < 0.8, rng.random((60, 2)) < 0.6
    y = np.arange(60) % 3
    drawn = replicates(y, y, seed=0)
    found = losses(right, without, right, without, drawn)
    np.testing.assert_allclose(found.reference[0], right.mean() - without.mean(axis=0))
    assert (found.difference[0] == 0).all()
    assert (found.p_values == 1).all()
