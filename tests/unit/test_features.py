import numpy as np
import pytest
from scipy.stats import ks_2samp, wasserstein_distance

from models.gap.features import (
    _WithinClasses,
    distances,
    distances_within_classes,
    feature_shifts,
    permutation_p_values,
)


@pytest.mark.parametrize("decimals", [0, 6])
def test_distances_agree_with_scipy(decimals):
    rng = np.random.default_rng(0)
    a = rng.normal(size=(90, 130)).round(decimals).astype(np.float32)
    b = rng.normal(0.3, 1.5, size=(61, 130)).round(decimals).astype(np.float32)
    a[0] *= -0.0
    ks, w1 = distances(a, b)
    for j in range(130):
        assert ks[j] == pytest.approx(ks_2samp(a[:, j], b[:, j]).statistic, abs=1e-12)
        assert w1[j] == pytest.approx(wasserstein_distance(a[:, j], b[:, j]), abs=1e-6)


def test_permutation_finds_the_shifted_feature_and_no_other():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(400, 50)), rng.normal(size=(300, 50))
    b[:, 7] += 0.5
    p = permutation_p_values(a, np.arange(400) % 5, b, np.arange(300) % 5, seed=0)
    assert p[7] == pytest.approx(1 / 200)
    assert (np.delete(p, 7) > 0.05).all()


def test_permutation_is_valid_where_the_class_mix_differs():
    """Features that tell classes apart do not shift because one set has more of a class."""
    rng = np.random.default_rng(0)
    found = 0
    for seed in range(40):
        la, lb = np.repeat([0, 1], [150, 50]), np.repeat([0, 1], [50, 150])
        a = rng.normal(size=(200, 20)) + 3 * la[:, None]
        b = rng.normal(size=(200, 20)) + 3 * lb[:, None]
        found += (permutation_p_values(a, la, b, lb, seed=seed) <= 0.05).any()
    assert found <= 6  # 95 % band of a binomial with 40 trials at .05


def test_another_spread_is_not_taken_for_another_mean():
    """Unequal sizes and spreads: an unstudentised permutation test rejects in most such worlds."""
    rng = np.random.default_rng(0)
    found = 0
    la, lb = np.repeat(np.arange(5), 50), np.repeat(np.arange(5), 10)
    for seed in range(40):
        a, b = rng.normal(size=(250, 30)), rng.normal(scale=2.0, size=(50, 30))
        found += (permutation_p_values(a, la, b, lb, seed=seed) <= 0.05).any()
    assert found <= 7


def test_another_mix_of_classes_moves_no_feature_within_classes():
    rng = np.random.default_rng(0)
    la, lb = np.repeat([0, 1], [300, 100]), np.repeat([0, 1], [100, 300])
    a, b = (rng.normal(size=(400, 40)) + 2 * y[:, None] for y in (la, lb))
    found = feature_shifts(
        a.astype(np.float32), la, b.astype(np.float32), lb,
        train_sd=np.ones(40), head_weights=np.ones(40), seed=0,
    )  # fmt: skip
    assert all(f.mean_difference.low > 0 for f in found)
    outside = [
        not f.mean_difference_within_classes.low < 0 < f.mean_difference_within_classes.high
        for f in found
    ]
    assert sum(outside) <= 6  # .05 of 40 is 2


def test_the_shift_within_classes_is_the_weighted_difference_of_class_means():
    rng = np.random.default_rng(0)
    la, lb = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 3])
    a, b = rng.normal(size=(6, 2)), rng.normal(size=(5, 2))
    weights = {0: 3 * 1 / 4, 1: 2 * 3 / 5}
    expected = sum(
        w * (b[lb == c].mean(axis=0) - a[la == c].mean(axis=0)) for c, w in weights.items()
    ) / sum(weights.values())
    np.testing.assert_allclose(_WithinClasses(a, la, b, lb).shift, expected, rtol=1e-5)


def test_shifts_are_null_where_nothing_can_be_known():
    zeros = np.zeros((3, 2), np.float32)
    found = feature_shifts(
        zeros, np.array([0, 0, 1]), zeros, np.array([2, 2, 2]),
        train_sd=np.zeros(2), head_weights=np.array([1.0, 2.0]), seed=0,
    )  # fmt: skip
    assert [f.feature_id for f in found] == [0, 1]
    assert found[0].wasserstein is None
    assert found[0].p_value is None
    assert found[0].mean_difference.estimate is None
    assert found[0].mean_difference_within_classes.reason is not None


def test_a_feature_that_is_nearly_constant_in_train_does_not_top_the_list():
    rng = np.random.default_rng(0)
    y = np.arange(200) % 4
    a, b = (rng.normal(size=(200, 4)).astype(np.float32) for _ in range(2))
    b[:, 2] += 1
    a[:, 0] *= 1e-4
    b[:, 0] = b[:, 0] * 1e-4 + 1  # ten thousand of its standard deviations
    found = feature_shifts(
        a, y, b, y,
        train_sd=np.array([1e-4, 1.0, 1.0, 0.0]), head_weights=np.ones(4), seed=0,
    )  # fmt: skip
    assert [f.feature_id for f in found] == [2, 1, 0, 3]
    assert [f.is_nearly_constant for f in found] == [False, False, True, True]
    assert found[2].relevance == 0
    assert found[2].p_value < 0.05  # it did shift; only the quotient means nothing


def test_distances_within_classes_agree_with_scipy_on_centred_rows():
    rng = np.random.default_rng(0)
    la, lb = np.arange(90) % 3, np.arange(61) % 4  # class 3 is in one set alone
    a = (rng.normal(size=(90, 5)) + 5 * la[:, None]).round(1).astype(np.float32)
    b = (rng.normal(0.4, 1, size=(61, 5)) + 5 * lb[:, None]).round(1).astype(np.float32)
    ca, cb = a.astype(float), b[lb < 3].astype(float)
    for c in range(3):
        mean = np.concatenate([a[la == c], b[lb == c]]).mean(axis=0, dtype=float)
        ca[la == c] -= mean
        cb[lb[lb < 3] == c] -= mean
    ca, cb = ca.astype(np.float32), cb.astype(np.float32)
    ks, w1 = distances_within_classes(a, la, b, lb)
    for j in range(5):
        assert ks[j] == pytest.approx(ks_2samp(ca[:, j], cb[:, j]).statistic, abs=1e-6)
        assert w1[j] == pytest.approx(wasserstein_distance(ca[:, j], cb[:, j]), abs=1e-6)
    plain, _ = distances(a, b[lb < 3])
    assert ks.mean() > plain.mean()  # the classes' means hide the shift
    assert np.isnan(distances_within_classes(a, la, b, lb + 9)[0]).all()
