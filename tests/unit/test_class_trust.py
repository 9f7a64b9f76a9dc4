"""Reliability, halves, exact tests, confusions and superclasses: known cases and invariances."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import betabinom, fisher_exact

from models.gap.classes import class_counts, class_gaps, common_gap, fit_class_model
from models.gap.confusions import confusions
from models.gap.difference import newcombe
from models.gap.excess import benjamini_hochberg, equality_p_values, prediction_p_values
from models.gap.hierarchy import superclass_gaps
from models.gap.reliability import halves, reliability
from tests.world import SHARED

V2 = SHARED / "imagenet_v2"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder is absent")


def eva():
    table = pd.read_csv(SHARED / "eva02_lightgbm" / "per_class.csv")
    return tuple(table[c].to_numpy() for c in ("correct_val", "n_val", "correct_v2", "n_v2"))


def imagenet():
    """Labels of both sets and what the 47 models say."""
    labels = [
        pd.read_parquet(V2 / f"{name}_images.parquet", columns=["label"]).label.to_numpy()
        for name in ("val", "v2_matched_frequency")
    ]
    said = [
        pd.read_parquet(V2 / f"{name}_top1.parquet") for name in ("val", "v2_matched_frequency")
    ]
    return labels, said


def counts_of(labels, said, model):
    return tuple(
        column
        for truth, answers in zip(labels, said, strict=True)
        for column in class_counts(truth, answers[model].to_numpy() == truth, np.arange(1000))
    )


@needs_shared
def test_the_real_case_of_eva():
    """science.md: Fisher p < .05 in 194 classes, BH 52 and 83; sd 20.7, sampling 15.4, .447."""
    counts = eva()
    p = equality_p_values(*counts)
    q = benjamini_hochberg(p)
    assert ((p < 0.05).sum(), (q <= 0.05).sum(), (q <= 0.10).sum()) == (194, 52, 83)
    found = reliability(*counts, seed=0)
    assert (round(found.raw_sd * 100, 1), round(found.sampling_sd * 100, 1)) == (20.7, 15.4)
    assert 0.447 <= found.share.estimate <= 0.448
    assert found.share.low < 0.447 < found.share.high
    assert found.n_better == 245
    model = fit_class_model(*counts)
    p = prediction_p_values(counts[2], counts[3], expected=model.mean(*counts[:2]), s=model.s)
    assert (benjamini_hochberg(p) <= 0.10).sum() == 0  # flat: no class stands out from its like


@needs_shared
def test_the_real_case_of_pnasnet():
    """science.md: reliability .40, BH 22 and 38, the worst tenth 51 % here and 23 % there."""
    counts = counts_of(*imagenet(), "pnasnet5large")
    q = benjamini_hochberg(equality_p_values(*counts))
    assert ((q <= 0.05).sum(), (q <= 0.10).sum()) == (22, 38)
    found = reliability(*counts, seed=0)
    assert found.raw_sd == pytest.approx(0.180, abs=1e-3)
    assert found.sampling_sd == pytest.approx(0.140, abs=1e-3)
    assert round(found.share.estimate, 2) == 0.40
    split = halves(*counts, seed=0)
    assert split.n_worst == 100
    assert split.chosen.estimate == pytest.approx(0.51, abs=0.01)
    assert split.other.estimate == pytest.approx(0.23, abs=0.01)


@pytest.mark.slow
@needs_shared
def test_all_47_models():
    """In each, half and more of the spread is chance, and the worst classes are half luck."""
    labels, said = imagenet()
    for model in said[0].columns:
        counts = counts_of(labels, said, model)
        p = equality_p_values(*counts)
        one_by_one = [
            fisher_exact([[a, b - a], [c, d - c]])[1] for a, b, c, d in zip(*counts, strict=True)
        ]
        np.testing.assert_allclose(p, one_by_one, atol=1e-6)
        found = reliability(*counts, seed=0)
        assert 0.2 < found.share.low < found.share.estimate < found.share.high < 0.55, model
        split = halves(*counts, seed=0)
        assert split.chosen.estimate > 1.6 * split.other.estimate > 0.16, model
        raw = counts[0] / counts[1] - counts[2] / counts[3]
        assert common_gap(*counts) == pytest.approx(raw.mean())
        found = confusions(
            labels[0], said[0][model].to_numpy(), labels[1], said[1][model].to_numpy()
        )
        assert found.n_q05 <= found.n_q10 <= found.n_pairs, model
        assert found.n_pairs > 5000, model


def test_fishers_test_agrees_with_scipy():
    rng = np.random.default_rng(0)
    n1, n2 = rng.integers(1, 90, 300), rng.integers(1, 40, 300)
    k1, k2 = rng.binomial(n1, rng.random(300)), rng.binomial(n2, rng.random(300))
    wanted = [
        fisher_exact([[a, b - a], [c, d - c]])[1] for a, b, c, d in zip(k1, n1, k2, n2, strict=True)
    ]
    np.testing.assert_allclose(equality_p_values(k1, n1, k2, n2), wanted, atol=1e-6)
    big = [np.array([v]) for v in (40_000, 50_000, 7_800, 10_000)]
    assert equality_p_values(*big)[0] == pytest.approx(
        fisher_exact([[40_000, 10_000], [7_800, 2_200]])[1], rel=1e-6
    )
    assert len(equality_p_values(*[np.empty(0, int)] * 4)) == 0


def test_the_prediction_agrees_with_scipy():
    rng = np.random.default_rng(0)
    n2, m, s = rng.integers(1, 30, 100), rng.random(100) * 0.98 + 0.01, 7.5
    k2 = rng.binomial(n2, m)
    wanted = []
    for k, n, mean in zip(k2, n2, m, strict=True):
        pmf = betabinom.pmf(np.arange(n + 1), n, mean * s, (1 - mean) * s)
        wanted.append(pmf[pmf <= pmf[k] * (1 + 1e-7)].sum())
    np.testing.assert_allclose(prediction_p_values(k2, n2, expected=m, s=s), wanted, atol=1e-6)


def test_a_class_that_falls_out_of_line_is_found_against_the_prediction():
    rng = np.random.default_rng(0)
    n1, n2 = np.full(100, 200), np.full(100, 60)
    p1 = rng.uniform(0.6, 0.9, 100)
    k1, k2 = rng.binomial(n1, p1), rng.binomial(n2, p1 - 0.1)
    k2[7] = 5
    model = fit_class_model(k1, n1, k2, n2)
    p = prediction_p_values(k2, n2, expected=model.mean(k1, n1), s=model.s)
    assert np.flatnonzero(benjamini_hochberg(p) <= 0.05).tolist() == [7]


@pytest.mark.parametrize(("k", "n1", "n2"), [(5, 500, 100), (100, 50, 10), (200, 200, 40)])
def test_no_class_stands_out_of_a_world_of_classes_alike(k, n1, n2):
    rng = np.random.default_rng(0)
    ones, named = np.ones(k, int), 0
    for _ in range(40):
        p1 = rng.beta(8, 2, k)
        k1, k2 = rng.binomial(n1, p1), rng.binomial(n2, 0.9 * p1)
        model = fit_class_model(k1, ones * n1, k2, ones * n2)
        m = model.mean(k1, ones * n1)
        q = benjamini_hochberg(prediction_p_values(k2, ones * n2, expected=m, s=model.s))
        named += (q <= 0.05).any()
    assert named <= 6  # .05 of 40 is 2; the chance of more than 6 is below .004


def test_two_perfect_sets_have_no_gap():
    """The half image of the reference alone would make it −4.5 points."""
    ten = np.full(3, 10)
    for k in (ten, ten * 0):
        gaps, _ = class_gaps(np.arange(3), k, ten, k, ten, seed=0)
        for gap in gaps:
            assert gap.shrunken.estimate == gap.raw == 0.0
            assert gap.shrunken.low <= 0 <= gap.shrunken.high
    gaps, _ = class_gaps(np.arange(3), ten, ten, ten - 2, ten, seed=0)
    assert all(gap.shrunken.estimate == pytest.approx(0.2, abs=0.02) for gap in gaps)


@pytest.mark.parametrize("seed", range(3))
def test_reliability_is_that_of_the_true_gaps(seed):
    rng = np.random.default_rng(seed)
    n1, n2 = np.full(1000, 50), np.full(1000, 10)
    p1 = rng.uniform(0.6, 0.9, 1000)
    p2 = np.clip(p1 - rng.normal(0.1, 0.12, 1000), 0, 1)
    k1, k2 = rng.binomial(n1, p1), rng.binomial(n2, p2)
    true = (p1 - p2).var() / (k1 / n1 - k2 / n2).var()
    found = reliability(k1, n1, k2, n2, seed=0)
    assert found.share.low < true < found.share.high
    alike = reliability(rng.binomial(n1, p1), n1, rng.binomial(n2, p1 - 0.1), n2, seed=0)
    assert alike.share.low < 0 < alike.share.high


def test_where_all_lose_the_same_the_other_half_gives_the_worst_no_more_than_their_share():
    """The reference's noise is in both halves, so it is made small here."""
    rng = np.random.default_rng(0)
    n1, n2 = np.full(1000, 5000), np.full(1000, 10)
    p1 = rng.uniform(0.5, 0.9, 1000)
    split = halves(rng.binomial(n1, p1), n1, rng.binomial(n2, p1 - 0.1), n2, seed=0)
    assert split.chosen.estimate > 0.4
    assert split.other.estimate == pytest.approx(0.1, abs=0.05)


def test_what_cannot_be_known_has_a_reason():
    ten = np.full(4, 10)
    k = np.array([9, 8, 7, 6])
    assert "not above 0" in halves(k, ten, k, ten, seed=0).chosen.reason
    assert "fewer than 3" in halves(k[:2], ten[:2], k[:2] - 5, ten[:2], seed=0).other.reason
    assert "same raw gap" in reliability(k, ten, k - 2, ten, seed=0).share.reason
    assert "fewer than 3" in reliability(k[:2], ten[:2], k[:2], ten[:2], seed=0).share.reason
    found = reliability(k, ten, k, np.array([10, 10, 1, 10]), seed=0)
    assert found.n_classes == 3


def world(seed=0, n=4000, classes=40):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    wrong = (labels + rng.choice([1, 2, 5], n)) % classes
    return labels, np.where(rng.random(n) < 0.75, labels, wrong)


def test_numbering_classes_and_ordering_rows_otherwise_changes_nothing():
    (labels1, said1), (labels2, said2) = world(0), world(1, n=900)
    said2[labels2 == 4] = 9
    rng = np.random.default_rng(2)
    new, rows = rng.permutation(40) * 3 + 1, rng.permutation(len(labels2))

    def all_of(labels1, said1, labels2, said2):
        ids = np.unique(labels1)
        counts = (
            *class_counts(labels1, labels1 == said1, ids),
            *class_counts(labels2, labels2 == said2, ids),
        )
        gaps, model = class_gaps(ids, *counts, seed=0)
        return (
            gaps,
            model,
            reliability(*counts, seed=0),
            halves(*counts, seed=0),
            confusions(labels1, said1, labels2, said2),
        )

    first = all_of(labels1, said1, labels2, said2)
    second = all_of(new[labels1], new[said1], new[labels2][rows], new[said2][rows])
    assert first[1:4] == second[1:4]
    mine = {int(new[gap.class_id]): gap for gap in first[0]}
    for gap in second[0]:
        other = mine[gap.class_id]
        assert (gap.shrunken, gap.p_exceeds) == (other.shrunken, other.p_exceeds)
        assert gap.q_value == pytest.approx(other.q_value)
    assert first[4].n_pairs == second[4].n_pairs
    assert first[4].n_q05 == second[4].n_q05 > 0
    clear = [
        {(int(label(one.label)), int(label(one.predicted))): one.difference
         for one in found.listed if one.q_value <= 0.05}
        for found, label in ((first[4], lambda c: new[c]), (second[4], lambda c: c))
    ]  # fmt: skip
    assert clear[0] == clear[1]


def test_a_set_with_itself_differs_in_nothing():
    labels, said = world()
    found = confusions(labels, said, labels, said)
    assert found.n_q10 == 0
    assert all(one.difference.estimate == 0 and one.p_value == 1 for one in found.listed)
    k, n = class_counts(labels, labels == said, np.arange(40))
    gaps, _ = class_gaps(np.arange(40), k, n, k, n, seed=0)
    assert all(gap.raw == 0 and gap.q_value == 1 for gap in gaps)
    np.testing.assert_allclose(equality_p_values(k, n, k, n), 1)
    pairs = superclass_gaps(["a", "b"] * 20, k, n, k, n)
    assert all(one.gap.estimate == 0 and one.q_value == 1 for one in pairs)


def test_confusions_by_hand():
    """Class 0: as 1 in 1 of 10, then in 8 of 10; class 7 is in the target alone."""
    labels1, said1 = np.array([0] * 10 + [1] * 5), np.array([1] + [0] * 9 + [0] + [1] * 4)
    labels2, said2 = np.array([0] * 10 + [1] * 5 + [7]), np.array([1] * 8 + [0] * 2 + [1] * 5 + [0])
    found = confusions(labels1, said1, labels2, said2)
    assert found.n_pairs == 2
    first, second = found.listed
    assert (first.label, first.predicted, first.k_reference, first.k_target) == (0, 1, 1, 8)
    mirrored = newcombe(8, 10, 1, 10)
    assert (first.difference.estimate, first.difference.low) == (mirrored.estimate, mirrored.low)
    assert first.difference.n == {"reference": 10, "target": 10}
    assert first.p_value == pytest.approx(fisher_exact([[1, 9], [8, 2]])[1])
    assert first.q_value == pytest.approx(2 * first.p_value)
    assert (second.label, second.predicted, second.k_target) == (1, 0, 0)
    assert confusions(labels1, labels1, labels2, labels2).listed == []
    # 0 of 7 against k of 7 at the median: 5 give p = .021, 4 give .070; wanted .05 / 2 pairs
    assert found.smallest_clear == 5 / 7


def test_superclasses_sum_their_classes_and_are_tested_against_the_common_gap():
    n = np.full(6, 100)
    k1, k2 = np.full(6, 90), np.array([80, 80, 80, 80, 30, 35])
    found = superclass_gaps(["calm", "calm", "calm", None, "hit", "hit"], k1, n, k2, n)
    assert [(one.name, one.n_classes) for one in found] == [("hit", 2), ("calm", 3)]
    assert found[0].gap == newcombe(180, 200, 65, 200)
    assert found[0].q_value < 1e-6
    assert found[0].excess == pytest.approx(0.575 - common_gap(k1, n, k2, n))
    one_sided = superclass_gaps(["a", "b"], k1[:2], n[:2], np.array([80, 0]), np.array([100, 0]))
    assert [one.q_value for one in one_sided] == [1.0, None]
    assert superclass_gaps([None] * 6, k1, n, k2, n) == []
