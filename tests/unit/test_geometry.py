"""Where images lie among the train rows: against scikit-learn, and in a world with a hub."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestNeighbors

from models.gap.geometry import hubness, top_similarity


def test_the_top_similarity_is_scikit_learns():
    rng = np.random.default_rng(0)
    rows, means = rng.normal(size=(5000, 12)), rng.normal(size=(7, 12))
    middle, sd = rng.normal(size=12), rng.uniform(0.5, 2, 12)
    found = top_similarity(rows, means, train_mean=middle, train_sd=sd)
    wanted = cosine_similarity((rows - middle) / sd, (means - middle) / sd).max(axis=1)
    assert found == pytest.approx(wanted, abs=1e-6)


def test_constant_features_and_middles_tell_nothing():
    rows, means = np.array([[1.0, 5.0], [0.0, 9.0]]), np.array([[2.0, 1.0], [0.0, 3.0]])
    found = top_similarity(rows, means, train_mean=np.zeros(2), train_sd=np.array([1.0, 0.0]))
    assert found[0] == pytest.approx(1.0)
    assert np.isnan(found[1])
    nothing = top_similarity(rows, means * 0, train_mean=np.zeros(2), train_sd=np.ones(2))
    assert np.isnan(nothing).all()


def test_k_occurrences_are_those_of_a_search():
    rng = np.random.default_rng(1)
    train, asked, k = rng.normal(size=(300, 40)), rng.normal(size=(50, 40)), 10
    search = NearestNeighbors(n_neighbors=k).fit(train)
    sample, near = search.kneighbors(return_distance=False), search.kneighbors(asked)[1]
    occurrences = np.array([(sample == row).sum() for row in range(300)])
    assert occurrences.mean() == k
    found = hubness(sample, near, n_train=300)
    assert found == pytest.approx(occurrences[near].mean(axis=1) / k)
    # of images among many dimensions, most are near to hubs
    assert found.mean() > 1.5


def test_the_order_of_train_rows_changes_nothing():
    rng = np.random.default_rng(2)
    sample, near = rng.integers(0, 40, (40, 5)), rng.integers(0, 40, (9, 5))
    order = rng.permutation(40)
    found = hubness(sample, near, n_train=40)
    assert hubness(order[sample], order[near], n_train=40) == pytest.approx(found)


def test_images_without_neighbours_are_unknown():
    found = hubness(np.array([[1], [0]]), np.array([[-1], [0]]), n_train=2)
    assert np.isnan(found[0])
    assert found[1] == 1.0
    assert np.isfinite(hubness(np.full((2, 1), -1), np.array([[0]]), n_train=2)).all()
