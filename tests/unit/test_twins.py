"""Nearest images of two sets, against brute force."""

import numpy as np
import pytest

from models.gap import twins
from models.gap.twins import directions, nearest_of_both, right_twins


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    mean, sd = rng.normal(size=6), rng.uniform(0.5, 2, 6)
    sd[2] = 0.0
    a, b = (directions(rng.normal(size=(n, 6)), mean=mean, sd=sd) for n in (37, 23))
    return a, b


def test_both_directions_are_brute_force(rows, monkeypatch):
    monkeypatch.setattr(twins, "_ROWS", 5)
    a, b = rows
    assert (a[:, 2] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(a, axis=1), 1, atol=1e-6)
    cosine = a @ b.T
    forth, back = nearest_of_both(a, b)
    np.testing.assert_array_equal(forth.place, cosine.argmax(axis=1))
    np.testing.assert_array_equal(back.place, cosine.argmax(axis=0))
    np.testing.assert_allclose(forth.similarity, cosine.max(axis=1), atol=1e-6)
    np.testing.assert_allclose(back.similarity, cosine.max(axis=0), atol=1e-6)


def test_right_twins_are_of_the_same_class(rows):
    a, b = rows
    rng = np.random.default_rng(1)
    of_a, of_b = rng.integers(4, size=37), rng.integers(5, size=23)  # class 4 has no twin
    found = right_twins(b, of_b, a, of_a)
    cosine = np.where(of_b[:, None] == of_a[None], b @ a.T, -np.inf)
    has = of_b < 4
    assert (found.place[~has] == -1).all()
    assert np.isnan(found.similarity[~has]).all()
    np.testing.assert_array_equal(found.place[has], cosine.argmax(axis=1)[has])
    np.testing.assert_allclose(found.similarity[has], cosine.max(axis=1)[has], atol=1e-6)
    # other names for the classes, other order of rows: the same pairs
    order, rename = rng.permutation(23), np.array([9, 2, 7, 0, 5])
    again = right_twins(b[order], rename[of_b[order]], a, rename[of_a])
    np.testing.assert_array_equal(again.place, found.place[order])


def test_an_empty_set_has_no_nearest(rows):
    a, _ = rows
    forth, back = nearest_of_both(a, a[:0])
    assert (forth.place == -1).all()
    assert np.isnan(forth.similarity).all()
    assert len(back.place) == 0
