"""Placebos and plantings: what is planted is what is said, and nothing else changes."""

import numpy as np
import pytest
from scipy.stats import binomtest

from models.gap.selftest import (
    Duplicates,
    FeatureShift,
    LabelNoise,
    Relabelling,
    Selection,
    Unreachable,
    exact_interval,
    plant,
    two_sets,
)

N, K = 900, 6


@pytest.fixture
def images():
    """Labels, predictions (right in .8), a covariate that goes with being right."""
    rng = np.random.default_rng(3)
    labels = np.arange(N) % K
    right = rng.random(N) < 0.8
    predicted = np.where(right, labels, (labels + 1) % K)
    return labels, predicted, right + rng.normal(size=N)


def test_the_exact_interval_is_that_of_scipy():
    for k, n in ((0, 5), (3, 20), (20, 20), (7, 200)):
        known = binomtest(k, n).proportion_ci(method="exact")
        assert exact_interval(k, n) == pytest.approx((known.low, known.high), abs=1e-9)


def test_two_sets_share_no_image_and_have_the_mix_of_classes():
    labels = np.repeat([0, 1, 2], [101, 57, 3])
    first, second = two_sets(labels, (0.5, 0.5), largest=(60, 60), rng=np.random.default_rng(0))
    assert len(np.intersect1d(first, second)) == 0
    for some in (first, second):
        assert abs(len(some) - 60) <= 1
        counts = np.bincount(labels[some], minlength=3)
        assert np.abs(counts - np.array([101, 57, 3]) * 60 / 161).max() <= 1


@pytest.mark.parametrize("wanted", [0.02, 0.05, 0.10])
def test_what_is_planted_is_what_is_said(images, wanted):
    labels, predicted, values = images
    rows, rng = np.arange(N), np.random.default_rng(1)
    correct = labels == predicted
    for planting in (
        LabelNoise(rows, labels, predicted, rng=rng),
        Relabelling(rows, labels, predicted, rng=rng),
        Duplicates(rows, labels, correct, rng=rng),
    ):
        found = plant(planting, wanted)
        assert found.points == pytest.approx(wanted, abs=0.003)
        assert correct.mean() - found.correct.mean() == pytest.approx(found.points)
        changed = labels[found.rows] if found.labels is None else found.labels
        assert (changed == predicted[found.rows]).tolist() == found.correct.tolist()
    planting = Selection(rows, N // 4, labels, correct, values, rng=rng)
    found = plant(planting, wanted)
    assert found.points == pytest.approx(wanted, abs=0.005)
    assert len(np.unique(found.rows)) == len(found.rows)  # no image twice
    assert np.ptp(np.bincount(labels[found.rows])) <= 1
    assert values[found.rows].mean() < values.mean()


def test_a_selection_draws_evenly_at_strength_0(images):
    labels, predicted, values = images
    planting = Selection(
        np.arange(N), N // 4, labels, labels == predicted, values, rng=np.random.default_rng(2)
    )
    assert abs(planting.drop(0.0)) < 0.01
    assert planting.drop(64.0) > 0.1


def test_only_chosen_classes_are_relabelled(images):
    labels, predicted, _ = images
    planting = Relabelling(np.arange(N), labels, predicted, rng=np.random.default_rng(0))
    old, new = planting.classes
    after = planting.at(1.0).labels
    assert set(after[labels == old]) == {new}
    assert (after[labels != old] == labels[labels != old]).all()


def test_copies_are_of_wrong_images_of_the_same_class(images):
    labels, predicted, _ = images
    correct = labels == predicted
    found = Duplicates(np.arange(N), labels, correct, rng=np.random.default_rng(0)).at(0.5)
    assert (labels[found.rows] == labels).all()
    assert not correct[found.rows[found.rows != np.arange(N)]].any()


def test_features_move_by_train_standard_deviations_and_back_no_other():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3)).astype(np.float32)
    labels = (x[:, 0] > 0).astype(np.int64)
    planting = FeatureShift(
        np.arange(400), labels, x, np.array([0]), np.array([2.0, 1.0, 1.0]),
        lambda rows: (rows[:, 0] > 0).astype(np.int64), rng=rng,
    )  # fmt: skip
    found = plant(planting, 0.10)
    moved = found.features - x
    assert np.abs(moved[:, 0]) == pytest.approx(2 * found.strength, abs=1e-5)
    assert not moved[:, 1:].any()
    assert found.points == pytest.approx(0.10, abs=0.005)


def test_what_no_strength_reaches_is_refused_not_made_smaller(images):
    labels, predicted, values = images
    few = LabelNoise(np.arange(4), labels[:4], labels[:4], rng=np.random.default_rng(0))
    with pytest.raises(Unreachable, match="few images"):
        plant(few, 0.10)
    blind = Selection(
        np.arange(N), N // 4, labels, labels == predicted, np.full(N, np.nan),
        rng=np.random.default_rng(0),
    )  # fmt: skip
    with pytest.raises(Unreachable, match="at its strongest"):
        plant(blind, 0.10)
    assert len(values) == N


@pytest.mark.parametrize("counts", [[5] * 20, [1, 2, 3, 4, 5, 6, 7], [3] * 9])
def test_halves_of_odd_classes_have_the_same_mix_of_classes(counts):
    """Else a placebo has a label shift, which is no chance but how the halves were made."""
    labels = np.repeat(np.arange(len(counts)), counts)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        halves = two_sets(labels, (0.5, 0.5), largest=(1500, 1500), rng=rng)
        first, second = (np.bincount(labels[half], minlength=len(counts)) for half in halves)
        assert first.tolist() == second.tolist()
        assert (np.array(counts) - 2 * first <= 2).all()
