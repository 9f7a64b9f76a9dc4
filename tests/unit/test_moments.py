import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.moments import QUANTILES, ClassMoments, RowSample, quantiles


def _by_class(moments):
    order = np.argsort(moments.class_ids)
    return {
        name: getattr(moments, name)[order]
        for name in ("class_ids", "n", "mean", "m2", "low", "high")
    }


@given(
    seed=st.integers(0, 1000),
    n=st.integers(1, 60),
    cuts=st.lists(st.integers(0, 60), max_size=5),
)
def test_moments_of_parts_add_up_to_numpy(seed, n, cuts):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, n) * 1000
    features = (rng.normal(size=(n, 3)) * 10 + 100).astype(np.float32)
    bounds = sorted({0, n, *(c for c in cuts if c < n)})
    moments = ClassMoments(3)
    for start, stop in itertools.pairwise(bounds):
        moments.merge(ClassMoments.of(labels[start:stop], features[start:stop]))
    found = _by_class(moments)
    assert found["class_ids"].tolist() == np.unique(labels).tolist()
    for i, label in enumerate(found["class_ids"]):
        rows = features[labels == label].astype(float)
        assert found["n"][i] == len(rows)
        np.testing.assert_allclose(found["mean"][i], rows.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(
            found["m2"][i], ((rows - rows.mean(axis=0)) ** 2).sum(axis=0), rtol=1e-9, atol=1e-9
        )
        np.testing.assert_array_equal(found["low"][i], rows.min(axis=0))
        np.testing.assert_array_equal(found["high"][i], rows.max(axis=0))


def test_a_large_mean_does_not_drown_the_variance():
    features = np.float32(1e6) + np.tile(np.array([[-1.0], [1.0]], np.float32), (500, 1))
    moments = ClassMoments.of(np.zeros(1000, np.int64), features)
    np.testing.assert_allclose(moments.m2[0] / 1000, 1.0)


def test_few_rows_are_all_kept_and_their_quantiles_exact():
    rows = np.random.default_rng(0).normal(size=(100, 70)).astype(np.float32)
    sample = RowSample(70, seed=0)
    sample.add(rows[:60])
    sample.add(rows[60:])
    np.testing.assert_allclose(
        quantiles(sample.rows(), 2), np.quantile(rows.astype(float), QUANTILES, axis=0), rtol=1e-12
    )


@pytest.mark.parametrize("n_blocks", [10, 100])
def test_a_sample_is_uniform_over_the_whole_stream(n_blocks):
    n, capacity = 20_000, 2_000
    rows = np.arange(n, dtype=np.float32)[:, None]
    sample = RowSample(1, capacity=capacity, seed=1)
    for block in np.array_split(rows, n_blocks):
        sample.add(block)
    kept = sample.rows()[:, 0]
    assert len(kept) == len(set(kept.tolist())) == capacity
    # the mean rank has standard error n / sqrt(12 capacity) = 129
    assert abs(kept.mean() - n / 2) < 4 * 129
    assert sample.n_seen == n
