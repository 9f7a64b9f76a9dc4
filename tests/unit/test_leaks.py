"""Copies of test rows among train rows: found, and nothing else found."""

import numpy as np
import pytest

from models import leaks
from models.leaks import (
    Neighbours,
    calibrate,
    first_of_each,
    near_duplicates,
    nearest,
    row_hashes,
)


def found_in(train, test, *, seed=0):
    train, test = train.astype(np.float32), test.astype(np.float32)
    return near_duplicates(
        train,
        test,
        mean=train.mean(axis=0, dtype=float),
        sd=train.std(axis=0, dtype=float),
        counts=first_of_each(row_hashes(train)),
        seed=seed,
    )


def mixture(seed, n, d=48, dim=10, k=20):
    """Clusters of different places, shapes and widths, of `dim` dimensions each."""
    world = np.random.default_rng(seed)
    centres, shapes = world.normal(size=(k, d)), world.normal(size=(k, dim, d)) / np.sqrt(dim)
    widths = np.exp(0.5 * world.normal(size=k))
    of = world.integers(k, size=n)
    rows = np.einsum("ni,nid->nd", world.normal(size=(n, dim)), shapes[of])
    return centres[of] + widths[of, None] * rows


def noisy(rows, size, seed=9):
    return rows * (1 + size * np.random.default_rng(seed).normal(size=rows.shape))


def test_hashes_are_those_of_the_bytes_and_the_same_for_ever():
    rows = np.array([[1, 2, 3], [1, 2, 3], [1, 2, 4], [3, 2, 1]], np.float32)
    hashes = row_hashes(rows)
    assert hashes[0] == hashes[1]
    assert len(set(hashes.tolist())) == 3
    # stored with models: another hash would make every stored model unproved
    assert hashes.tolist()[0] == 8826627701880862982
    many = np.random.default_rng(0).normal(size=(20_000, 3)).astype(np.float32)
    assert len(np.unique(row_hashes(many))) == 20_000
    assert (row_hashes(many)[9000:9010] == row_hashes(many[9000:9010])).all()
    bits = np.zeros((32, 2), np.float32)
    bits.view(np.uint32)[:, 1] = 1 << np.arange(32, dtype=np.uint32)
    assert len(np.unique(row_hashes(bits))) == 32


def test_the_nearest_rows_are_those_of_brute_force(monkeypatch):
    monkeypatch.setattr(leaks, "_BLOCK_ROWS", 7)
    monkeypatch.setattr(leaks, "_QUERY_ROWS", 4)
    rng = np.random.default_rng(0)
    train, test = rng.normal(3, 2, (60, 5)), rng.normal(3, 2, (11, 5))
    train[:, 2] = 1e6  # says nothing, and must not drown the others
    test[:, 2] = 1e6
    counts = rng.random(60) < 0.8
    mean, sd = train.mean(axis=0), train.std(axis=0)
    found = nearest(
        test.astype(np.float32),
        train.astype(np.float32),
        mean=mean,
        sd=sd,
        own=np.arange(11),
        counts=counts,
        k=3,
    )
    a, b = ((x - mean)[:, [0, 1, 3, 4]] / sd[[0, 1, 3, 4]] for x in (test, train))
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    distance = 1 - a @ b.T
    distance[:, ~counts] = np.inf
    distance[np.arange(11), np.arange(11)] = np.inf
    np.testing.assert_array_equal(found.place, np.argsort(distance, axis=1)[:, :3])
    np.testing.assert_allclose(found.distance, np.sort(distance, axis=1)[:, :3], atol=1e-5)


def test_fewer_train_rows_than_neighbours_tell_nothing():
    found = found_in(np.eye(4), np.eye(4))
    assert not found.threshold.can_tell
    assert len(found.query) == 0
    assert np.isinf(found.nearest.distance[:, -1]).all()
    assert (found.nearest.place[:, -1] == -1).all()


@pytest.mark.parametrize("size", [0.0, 1e-3, 1e-2])
def test_copies_are_found_and_nothing_else(size):
    rows = mixture(1, 5000)
    train, test = rows[:3000], rows[3000:]
    found = found_in(np.concatenate([train, noisy(test[:10], size)]), test)
    assert sorted(found.query) == list(range(10))
    assert sorted(found.place) == list(range(3000, 3010))
    assert found.threshold.can_tell


def test_honest_rows_raise_no_alarm():
    """.01 are expected in each of 20 worlds: one alarm has a probability of .2 at most."""
    alarms = 0
    for seed in range(20):
        rows = mixture(seed, 2500)
        alarms += len(np.unique(found_in(rows[:1500], rows[1500:], seed=seed).query))
    assert alarms <= 1


def test_scale_and_offset_of_a_feature_change_nothing():
    rows = mixture(2, 3000)
    rows = np.concatenate([rows[:2000], noisy(rows[2000:2010], 1e-3), rows[2000:]])
    plain = found_in(rows[:2010], rows[2010:])
    rows = rows * 10.0 ** np.random.default_rng(0).integers(-4, 5, rows.shape[1])
    rows = np.column_stack([rows, np.full(len(rows), 5.0)])
    scaled = found_in(rows[:2010], rows[2010:])
    assert sorted(plain.query) == sorted(scaled.query) == list(range(10))


@pytest.mark.parametrize("share", [0.02, 0.1, 0.25])
def test_copies_among_the_train_rows_fool_nobody(share):
    """Equal rows many times over, altered ones, and the leaked rows themselves twice."""
    rows = mixture(3, 4000)
    train, test = rows[:3000], rows[3000:]
    twice = train[: int(3000 * share)]
    leaked = noisy(test[:10], 1e-3)
    train = np.concatenate([train, noisy(twice, 3e-3), np.repeat(twice, 12, axis=0), leaked])
    found = found_in(np.concatenate([train, leaked + 1e-5]), test)
    assert sorted(set(found.query)) == list(range(10))
    assert len(found.query) == 20
    assert found.threshold.n_twins > 0.5 * share * found.threshold.n


def test_in_few_dimensions_it_says_that_it_cannot_tell():
    rng = np.random.default_rng(0)
    found = found_in(rng.normal(size=(2000, 2)), rng.normal(size=(500, 2)))
    assert not found.threshold.can_tell
    assert len(found.query) == 0


def test_more_test_rows_make_a_smaller_threshold():
    distance = np.sort(np.random.default_rng(0).random((500, 10)) ** 0.2, axis=1)
    sample = Neighbours(distance, np.zeros((500, 10), np.int64))
    few, many = (calibrate(sample, n_queries=n) for n in (10, 10_000))
    assert 0 < many.distance < few.distance
    assert 0 < many.ratio < few.ratio


def test_the_threshold_is_the_quantile_of_a_known_law():
    """1 − exp(−(x/s)^5) at .01 / 1,000: exceeded by chance as often as it says, or less."""
    law = np.random.default_rng(0).weibull(5, size=(2000, 1))
    sample = Neighbours(
        np.concatenate([law, np.full((2000, 9), 9.0)], axis=1), np.zeros((2000, 10), int)
    )
    told = calibrate(sample, n_queries=1000).distance
    assert 0.4 * 1e-5**0.2 < told <= 1e-5**0.2


def test_a_crowd_is_counted_and_not_called_a_copy():
    rows = mixture(4, 5000)
    crowd = rows[:1] + 1e-4 * np.random.default_rng(0).normal(size=(70, rows.shape[1]))
    found = found_in(
        np.concatenate([rows[:4500], crowd[:60]]), np.concatenate([rows[4500:], crowd[60:]])
    )
    assert len(found.query) == 0
    assert found.n_crowded == 10


@pytest.mark.parametrize("views", [2, 5])
def test_where_every_train_row_has_copies_the_outer_neighbours_tell(views):
    """Augmented train sets: an honest one raises no alarm, one with the test rows shows all."""
    rows = mixture(5, 1600)
    clean, test = rows[:1200], rows[1200:]

    def seen(x):
        return np.concatenate([noisy(x, 0.02, seed=i) for i in range(views)])

    assert len(found_in(seen(clean), test).query) == 0
    found = found_in(np.concatenate([seen(clean), seen(test)]), test)
    assert len(set(found.query)) == 400
    assert found.threshold.n_twins == found.threshold.n


@pytest.mark.parametrize("copies", [9, 12, 20, 40])
def test_many_copies_of_some_test_rows(copies):
    rows = mixture(6, 2400)
    train, test = rows[:2000], rows[2000:]
    leaked = np.concatenate([noisy(test[:150], 0.01, seed=i) for i in range(copies)])
    found = found_in(np.concatenate([train, leaked]), test)
    assert set(found.query) == set(range(150))


def test_rows_of_nothing_but_zeros_are_no_copies():
    rows = np.maximum(mixture(7, 2000), 0)
    rows[::100] = 0
    found = found_in(rows[:1500], rows[1500:])
    assert not set(found.query) & set(np.flatnonzero(~rows[1500:].any(axis=1)))
