"""Maps of images and distributions of one feature, held against other ways to the same numbers."""

import importlib.util

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from etl.moments import QUANTILES
from models.gap.distribution import (
    density_of_quantiles,
    density_of_values,
    share_below,
    shared_bins,
)
from models.gap.embedding import principal_axes, umap_of
from models.gap.slices import clusters_of


def rows(n, d, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


@pytest.mark.parametrize(("n", "d"), [(200, 6), (20, 50)])
def test_axes_are_those_of_scikit_learn_on_standardised_rows(n, d):
    train, others = rows(n, d), rows(30, d, seed=1)
    found = principal_axes(train, 3)
    scaler = StandardScaler().fit(train)
    known = PCA(3, svd_solver="full").fit(scaler.transform(train))
    assert found.shares == pytest.approx(known.explained_variance_ratio_)
    # their standard deviation divides by n, ours by n − 1
    expected = known.transform(scaler.transform(others)) * np.sqrt((n - 1) / n)
    sign = np.sign((found.directions * known.components_).sum(axis=1))
    assert found.of(others) == pytest.approx(expected * sign)


def test_an_axis_points_to_where_its_heaviest_feature_is_larger():
    found = principal_axes(rows(100, 5))
    heaviest = np.abs(found.directions).argmax(axis=1)
    assert (found.directions[[0, 1], heaviest] > 0).all()


def test_constant_features_take_no_part_and_one_alone_makes_no_map():
    train = rows(50, 3)
    with_constant = np.column_stack([train, np.full(50, 7.0)])
    assert principal_axes(with_constant).of(with_constant) == pytest.approx(
        principal_axes(train).of(train)
    )
    assert principal_axes(with_constant[:, 2:]) is None
    assert principal_axes(train[:1]) is None


def test_clusters_are_the_same_each_time_and_as_many_as_asked_for():
    train = rows(400, 4)
    settings = {"train_mean": train.mean(axis=0), "train_sd": train.std(axis=0), "seed": 3}
    one, other = (clusters_of(train, **settings, n_clusters=5) for _ in range(2))
    assert (one.centres == other.centres).all()
    assert len(np.unique(one.of(train))) == 5


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("umap") is None, reason="umap-learn is not installed")
def test_umap_keeps_groups_apart_and_gives_the_same_picture_again():
    rng = np.random.default_rng(0)
    middle = np.repeat([[0.0] * 8, [9.0] * 8], 150, axis=0)
    train, tests = (middle + rng.normal(size=middle.shape) for _ in range(2))
    found = umap_of(train, tests, seed=0)
    assert found.shape == (600, 2)
    groups = [np.concatenate([found[at : at + 150], found[300 + at : 450 + at]]) for at in (0, 150)]
    apart = np.linalg.norm(groups[0].mean(axis=0) - groups[1].mean(axis=0))
    assert apart > 2 * max(group.std(axis=0).max() for group in groups)
    assert (umap_of(train, tests, seed=0) == found).all()


def test_shares_of_quantiles_jump_where_many_images_have_one_value():
    p, v = np.array([0, 0.25, 0.5, 0.75, 1]), np.array([0.0, 0.0, 0.0, 2.0, 4.0])
    at = np.array([-1e-9, 0.0, 1.0, 2.0, 3.0, 4.0, 9.0])
    assert share_below(at, p, v).tolist() == [0, 0.5, 0.625, 0.75, 0.875, 1, 1]


@pytest.mark.parametrize("kind", ["normal", "half zeros", "constant", "outlier"])
def test_densities_with_both_tails_sum_to_one(kind):
    rng = np.random.default_rng(0)
    values = {
        "normal": rng.normal(size=500),
        "half zeros": np.maximum(rng.normal(size=500), 0.0),
        "constant": np.full(500, 7.0),
        "outlier": np.append(rng.normal(size=499), 1e6),
    }[kind]
    p = np.array([0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1])
    quantiles = np.quantile(values, p)
    edges = shared_bins([(p, quantiles)])
    assert (np.diff(edges) > 0).all()
    for density, below, above in (
        density_of_quantiles(edges, p, quantiles),
        density_of_values(edges, values),
    ):
        assert (density >= 0).all()
        assert (density * np.diff(edges)).sum() + below + above == pytest.approx(1)
        assert below + above <= 0.03
    if kind == "outlier":
        assert edges[-1] < 10


def test_a_density_of_quantiles_is_near_that_of_the_values():
    values = np.random.default_rng(0).normal(size=100_000)
    p = np.array([0.0, *QUANTILES, 1.0])
    quantiles = np.quantile(values, p)
    edges = shared_bins([(p, quantiles)])
    near, exact = density_of_quantiles(edges, p, quantiles), density_of_values(edges, values)
    assert np.abs(near[0] - exact[0]).max() < 0.05
