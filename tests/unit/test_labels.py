"""Second opinions on labels: small cases by hand, and ReaL's published shares."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from models.gap.labels import Judged, by_agreement, by_sets, by_votes, in_sets, label_quality
from models.gap.resampling import replicates
from tests.world import SHARED

VAL = SHARED / "imagenet_v2" / "val_images.parquet"


def yes(*values):
    return np.array(values, bool)


def unknown(n):
    return Judged(np.zeros(n, bool), np.zeros(n, bool), np.zeros(n, bool))


def test_a_set_judged_by_hand():
    """Ten images, six right; by the sets two errors are right, one right answer wrong, one gone."""
    answers = np.zeros(10, int)
    labels = np.array([0] * 6 + [1] * 4)
    correct = answers == labels
    sets = [{0}, {0, 1}, {1}, set()]
    which = np.array([0, 0, 0, 0, 2, 3, 1, 1, 2, 2])
    judged = by_sets(sets, which, np.ones(10, bool), answers, correct)
    drawn = replicates(labels, labels, seed=0)
    found = label_quality(correct, judged, correct, judged, drawn)
    mine = found.reference
    assert (mine.n, mine.n_known, mine.n_dropped) == (10, 10, 1)
    assert mine.accuracy.estimate == pytest.approx(0.6)
    assert mine.accuracy_judged.estimate == pytest.approx(6 / 9)
    assert mine.error_gone.estimate == pytest.approx(6 / 9 - 0.6)
    assert mine.share_of_error_gone.estimate == pytest.approx((6 / 9 - 0.6) / 0.4)
    assert mine.errors_called_right.estimate == pytest.approx(2 / 4)
    assert mine.right_called_wrong.estimate == pytest.approx(1 / 5)
    assert mine.errors_dropped.estimate == 0
    assert mine.errors_dropped.high > 0  # none of four is not never
    assert mine.accuracy_judged.n == {"reference": 9}
    # a set with itself has no gap, and none that could go
    assert found.gap.estimate == found.gap_judged.estimate == found.gap_gone.estimate == 0
    assert found.share_of_gap_gone.estimate is None
    assert "not told from 0" in found.share_of_gap_gone.reason


def test_one_set_only_says_nothing_of_the_gap():
    correct = yes(1, 1, 0, 1, 0, 1)
    judged = by_agreement(np.array([1, 1, 0.1, 1, 0.9, 1]), correct)
    found = label_quality(
        correct, judged, correct, unknown(6), replicates(*[np.zeros(6, int)] * 2, seed=0)
    )
    assert found.target is None
    for value in (found.gap_judged, found.gap_gone, found.share_of_gap_gone):
        assert value.estimate is None
        assert value.reason.startswith("one set only")
    assert found.reference.accuracy_judged.estimate == pytest.approx(4 / 5)
    assert found.reference.errors_called_right.estimate is None
    assert found.reference.errors_dropped.estimate == pytest.approx(1 / 2)


def test_votes_by_hand():
    """Given, guessed, both, neither, no majority, not reviewed; the model says 1 everywhere."""
    votes = {
        "given": np.array([5, 1, 0, 0, 2, -1.0]),
        "guessed": np.array([0, 4, 1, 1, 2, -1.0]),
        "both": np.array([0, 0, 4, 0, 1, -1.0]),
        "neither": np.array([0, 0, 0, 4, 0, -1.0]),
    }
    labels, answers = np.array([1, 0, 0, 1, 1, 1]), np.ones(6, int)
    found = by_votes(votes, labels, answers, np.array([2, 1, 1, 2, 2, np.nan]))
    assert found.known.tolist() == [True] * 5 + [False]
    assert found.dropped.tolist() == [False, False, False, True, True, False]
    assert found.right[[0, 1, 2, 5]].all()
    assert found.corrects
    blind = by_votes(votes, labels, answers)
    assert blind.dropped.tolist() == [False, True, False, True, True, False]
    assert not blind.corrects


def test_nothing_known_changes_nothing_and_order_and_names_do_not_matter():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 40)
    answers = np.where(rng.random(200) < 0.7, labels, rng.integers(5, size=200))
    sets = [{c} for c in range(5)] + [{c, (c + 1) % 5} for c in range(5)]
    which = labels + 5 * (rng.random(200) < 0.5)
    known = rng.random(200) < 0.8
    harder = np.where(rng.random(200) < 0.3, (labels + 1) % 5, answers)

    def found(order, rename):
        sides = []
        for said in (answers, harder):
            judged = by_sets(
                [{int(rename[c]) for c in one} for one in sets],
                which[order],
                known[order],
                rename[said[order]],
                (said == labels)[order],
            )
            sides += [(said == labels)[order], judged]
        drawn = replicates(rename[labels[order]], rename[labels[order]], seed=0, m=50)
        return label_quality(*sides, drawn)

    plain = found(np.arange(200), np.arange(5))
    other = found(rng.permutation(200), np.array([7, 3, 9, 0, 1]))
    for name in ("gap", "gap_judged", "gap_gone", "share_of_gap_gone"):
        mine, theirs = getattr(plain, name), getattr(other, name)
        assert mine.estimate == pytest.approx(theirs.estimate, abs=1e-12)
    same = Judged(known, np.zeros(200, bool), answers == labels)
    drawn = replicates(labels, labels, seed=0, m=50)
    quality = label_quality(answers == labels, same, answers == labels, same, drawn)
    assert quality.reference.error_gone.estimate == 0
    assert quality.reference.errors_called_right.estimate == 0


def test_intervals_are_the_binomial_ones_where_classes_are_alike():
    """Right or wrong at random: within-class bootstrap and √(p(1−p)/n) agree."""
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(10), 100)
    correct = rng.random(1000) < 0.6
    judged = Judged(np.ones(1000, bool), np.zeros(1000, bool), correct | (rng.random(1000) < 0.3))
    found = label_quality(
        correct, judged, correct, judged, replicates(labels, labels, seed=0, m=2000)
    )
    called = found.reference.errors_called_right
    p, n = called.estimate, called.n["reference"]
    half = norm.isf(0.025) * np.sqrt(p * (1 - p) / n)
    assert (called.high - called.low) / 2 == pytest.approx(half, rel=0.08)


@pytest.mark.skipif(not VAL.is_file(), reason="the shared data folder is absent")
def test_reals_published_shares():
    """Beyer et al. (2020): 6.3 % of val without a label, 14.9 % several, 9.4 % label outside."""
    images = pd.read_parquet(VAL)
    texts = images["real_labels"].fillna("")
    known, which = np.unique(texts.to_numpy(object).astype(str), return_inverse=True)
    sets = [{int(c) for c in text.split()} for text in known]
    labels = images["label"].to_numpy().astype(np.int64)
    judged = by_sets(sets, which, np.ones(len(images), bool), labels, np.ones(len(images), bool))
    assert judged.dropped.mean() == pytest.approx(0.063, abs=5e-4)
    assert np.array([len(one) > 1 for one in sets])[which].mean() == pytest.approx(0.149, abs=5e-4)
    outside = ~judged.right & ~judged.dropped
    assert outside.mean() == pytest.approx(0.094, abs=7e-4)
    assert (in_sets(sets, which, labels) == (images["label_in_real"] == 1)).all()


@pytest.mark.skipif(not VAL.is_file(), reason="the shared data folder is absent")
def test_the_published_counts_of_reviewed_images():
    """Northcutt et al. (2021): 5,440 reviewed; 598 without agreement, 293 neither: 891."""
    images = pd.read_parquet(VAL)
    votes = {
        name: images[f"le_{name}"].to_numpy(float)
        for name in ("given", "guessed", "both", "neither")
    }
    labels = images["label"].to_numpy().astype(np.int64)
    guess = images["le_guessed_label"].to_numpy(float)
    found = by_votes(votes, labels, labels, guess)
    assert (found.known.sum(), found.dropped.sum()) == (5440, 891)
    # 1,428 labels that reviewers would correct
    assert (found.known & ~found.dropped & ~found.right).sum() == 1428
