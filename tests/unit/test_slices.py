"""Slices that are there are found, and where nothing is, nothing is found."""

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep

from models.gap.halves import explore_half
from models.gap.slices import clusters_of, find_slices, slice_gaps

NAMES = ["x", "y", "kind"]
KINDS = [None, None, ["a", "b"]]


def sides(seed, n, drop):
    """Two sets; on the second, accuracy falls by `drop` where kind is b and x is above 0."""
    rng = np.random.default_rng(seed)
    found = []
    for loss in (0.0, drop):
        values = np.column_stack([rng.normal(size=(n, 2)), rng.integers(0, 2, n)])
        slice_ = (values[:, 2] == 1) & (values[:, 0] > 0)
        easy = 0.6 + 0.3 * (values[:, 1] > 0)  # harder images are no slice
        found.append((values, rng.random(n) < easy - loss * slice_))
    return found


def search(first, second, seed=0):
    keys = np.random.default_rng(5).permutation(len(first[1]) + len(second[1])).astype(np.uint64)
    n1 = len(first[1])
    halves = tuple(
        explore_half(np.zeros(len(k), int), k, seed=seed) for k in (keys[:n1], keys[n1:])
    )
    return find_slices(*first, *second, halves, keys=keys, names=NAMES, categories=KINDS, seed=seed)


def test_a_slice_that_is_there_is_found_in_words():
    found = search(*sides(0, 3000, 0.4))
    clear = [
        (rule, one.excess) for rule, one in zip(found.rules, found.gaps, strict=True)
        if one.q_value <= 0.05 and one.excess > 0
    ]  # fmt: skip
    assert clear
    worst = max(clear, key=lambda pair: pair[1])
    assert "kind is b" in worst[0]
    assert "x above" in worst[0]
    assert worst[1] > 0.2
    assert found.reference.max() == len(found.rules) - 1


def test_the_order_of_images_changes_nothing():
    first, second = sides(1, 800, 0.4)
    keys = np.arange(1600, dtype=np.uint64)
    order = np.random.default_rng(0).permutation(800)

    def go(one, k):
        halves = tuple(
            explore_half(np.zeros(800, int), part, seed=0) for part in (k[:800], k[800:])
        )
        return find_slices(*one, *second, halves, keys=k, names=NAMES, categories=KINDS, seed=0)

    plain = go(first, keys)
    moved = go((first[0][order], first[1][order]), np.concatenate([keys[:800][order], keys[800:]]))
    assert moved.rules == plain.rules
    assert [one.gap for one in moved.gaps] == [one.gap for one in plain.gaps]
    assert moved.reference.tolist() == plain.reference[order].tolist()


def placebo_runs(runs, n=1500):
    """Share of runs with a finding where both sets are random halves of one."""
    found = []
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        values, correct = sides(seed, n, 0.0)[0]
        half = rng.random(n) < 0.5
        got = search((values[half], correct[half]), (values[~half], correct[~half]), seed)
        by_tree = got is not None and any((one.q_value or 1) <= 0.05 for one in got.gaps)
        group = (np.abs(values[:, 0]) * 7).astype(int).clip(max=19)
        gaps = slice_gaps(group[half], correct[half], group[~half], correct[~half], n_slices=20)
        found.append((by_tree, any((one.q_value or 1) <= 0.05 for one in gaps)))
    return np.mean(found, axis=0)


def test_random_halves_of_one_set_show_nothing():
    assert placebo_runs(20).max() <= 0.2


@pytest.mark.slow
def test_random_halves_of_one_set_rarely_show_anything():
    assert placebo_runs(200).max() <= 0.08  # .05, and what 200 runs allow above it at p = .03


def test_gaps_of_groups_are_statsmodels():
    rng = np.random.default_rng(0)
    s1, s2 = rng.integers(0, 4, 900), rng.integers(0, 4, 400)
    c1, c2 = rng.random(900) < 0.8, rng.random(400) < 0.6
    found = slice_gaps(s1, c1, s2, c2, n_slices=5)
    for s, one in enumerate(found[:4]):
        low, high = confint_proportions_2indep(
            c1[s1 == s].sum(), (s1 == s).sum(), c2[s2 == s].sum(), (s2 == s).sum(),
            method="newcomb", compare="diff",
        )  # fmt: skip
        assert (one.gap.low, one.gap.high) == pytest.approx((low, high), abs=1e-6)
    p = [one.p_value for one in found[:4]]
    assert [one.q_value for one in found[:4]] == pytest.approx(
        multipletests(p, method="fdr_bh")[1].tolist()
    )
    assert (found[4].gap.estimate, found[4].q_value) == (None, None)


def test_clusters_are_of_train_rows_alone():
    rng = np.random.default_rng(0)
    middle = 10 * np.eye(4)
    train = np.repeat(middle, 100, axis=0) + rng.normal(size=(400, 4))
    train = np.column_stack([train, np.full(400, 7.0)]).astype(np.float32)
    found = clusters_of(train, train_mean=train.mean(0), train_sd=train.std(0), seed=0)
    assert len(found.centres) == 20
    assert found.kept.tolist() == [0, 1, 2, 3]
    at = found.of(train).reshape(4, 100)
    assert not any(set(a) & set(b) for i, a in enumerate(at) for b in at[:i])
    few = train[:39]
    assert clusters_of(few, train_mean=few.mean(0), train_sd=few.std(0), seed=0) is None
    same = np.ones((50, 2), np.float32)
    assert clusters_of(same, train_mean=np.zeros(2), train_sd=np.ones(2), seed=0) is not None
    assert clusters_of(same, train_mean=np.zeros(2), train_sd=np.zeros(2), seed=0) is None


def test_too_few_images_are_not_searched():
    assert search(*sides(0, 30, 0.4)) is None


def test_halves_hold_half_of_each_class():
    labels = np.repeat(np.arange(7), 11)
    keys = np.random.default_rng(0).permutation(77).astype(np.uint64)
    half = explore_half(labels, keys, seed=3)
    assert set(np.bincount(labels[half])) <= {5, 6}
    order = np.random.default_rng(1).permutation(77)
    assert (explore_half(labels[order], keys[order], seed=3) == half[order]).all()
    assert (explore_half(labels, keys, seed=4) != half).any()
