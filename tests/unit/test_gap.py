import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import betabinom, ks_2samp, wasserstein_distance
from sklearn.metrics import log_loss
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from models.estimate import Estimate, share, wilson
from models.gap import TestSet, report
from models.gap.classes import class_counts, class_gaps, fit_class_model
from models.gap.difference import bootstrap_within_classes, label_shift, newcombe
from models.gap.excess import benjamini_hochberg, excess_p_values
from models.gap.features import (
    _WithinClasses,
    distances,
    feature_shifts,
    permutation_p_values,
)
from models.gap.scores import calibration_error, equal_mass_bins, scores
from models.heads import Predictions
from tests.world import SHARED

COUNTS = [
    (50, 100, 30, 100),
    (0, 20, 5, 9),
    (20, 20, 9, 9),
    (1, 1, 0, 1),
    (45028, 50000, 8271, 10000),
]


@pytest.mark.parametrize(("k1", "n1", "k2", "n2"), COUNTS)
def test_newcombe_and_wilson_agree_with_statsmodels(k1, n1, k2, n2):
    gap = newcombe(k1, n1, k2, n2)
    low, high = confint_proportions_2indep(k1, n1, k2, n2, method="newcomb", compare="diff")
    assert (gap.estimate, gap.low, gap.high) == pytest.approx(
        (k1 / n1 - k2 / n2, low, high), abs=1e-6
    )
    assert wilson(k1, n1) == pytest.approx(proportion_confint(k1, n1, method="wilson"), abs=1e-9)


def test_the_model_case_has_the_published_gap():
    """science.md: EVA-02-L 7.346 [6.57, 8.14], EfficientFormerV2-S0 11.36 [10.36, 12.37]."""
    eva = newcombe(45028, 50000, 8271, 10000)
    assert [round(100 * v, 2) for v in (eva.estimate, eva.low, eva.high)] == [7.35, 6.57, 8.14]
    s0 = newcombe(38051, 50000, 6474, 10000)
    assert [round(100 * v, 2) for v in (s0.estimate, s0.low, s0.high)] == [11.36, 10.36, 12.37]


def test_a_set_against_itself_has_no_gap_and_swapping_turns_the_sign():
    assert newcombe(70, 100, 70, 100).estimate == 0
    one, other = newcombe(70, 100, 55, 90), newcombe(55, 90, 70, 100)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


def test_a_set_without_images_gives_null_with_a_reason():
    assert newcombe(0, 0, 1, 2).reason == "a test set without images"
    assert share(0, 0).estimate is None
    nothing = np.zeros(2, int)
    assert bootstrap_within_classes(nothing, nothing, nothing, nothing, seed=0).estimate is None


def test_the_bootstrap_within_small_classes_covers():
    """Resampling five images understates their spread by √(4/5) unless it is stretched."""
    rng = np.random.default_rng(0)
    n = np.full(60, 5)
    covered = []
    for seed in range(200):
        p1, p2 = rng.beta(4, 2, 60), rng.beta(4, 3, 60)
        gap = bootstrap_within_classes(rng.binomial(n, p1), n, rng.binomial(n, p2), n, seed=seed)
        covered.append(gap.low <= p1.mean() - p2.mean() <= gap.high)
    assert np.mean(covered) >= 0.92


def test_a_bootstrap_that_sees_no_spread_says_so():
    two, one = np.full(3, 2), np.ones(3, int)
    assert "one image" in bootstrap_within_classes(one, one, one, two, seed=0).reason
    assert "right and wrong" in bootstrap_within_classes(two, two, two, two, seed=0).reason


def test_the_bootstrap_within_classes_has_the_stratified_spread():
    k1, n1 = np.array([90, 50, 10]), np.full(3, 100)
    k2, n2 = np.array([8, 5, 1]), np.full(3, 10)
    gap = bootstrap_within_classes(k1, n1, k2, n2, seed=0)
    variances = [(k * (n - k) / (n - 1)).sum() / n.sum() ** 2 for k, n in ((k1, n1), (k2, n2))]
    se = np.sqrt(sum(variances))
    assert (gap.high - gap.low) / (2 * 1.96 * se) == pytest.approx(1, abs=0.06)
    assert gap == bootstrap_within_classes(k1, n1, k2, n2, seed=0)


def test_an_estimate_is_immutable():
    with pytest.raises(AttributeError):
        share(1, 2).estimate = 3
    assert Estimate.unknown("why", n={}, unit="fraction").method == "none"


# ------------------------------------------------------------------------------ classes (G4)


def test_class_counts_do_not_shift_names_where_a_class_is_absent():
    k, n = class_counts(np.array([0, 2, 2]), np.array([True, False, True]), np.array([0, 1, 2]))
    assert (k.tolist(), n.tolist()) == ([1, 0, 1], [1, 0, 2])


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder is absent")
def test_the_real_classes_of_the_real_case():
    """science.md: a −.353, b .639, s 9.40, 2·LR 288.6; worst class raw .80, shrunken .487."""
    table = pd.read_csv(SHARED / "eva02_lightgbm" / "per_class.csv")
    k1, n1, k2, n2 = (table[c].to_numpy() for c in ("correct_val", "n_val", "correct_v2", "n_v2"))
    gaps, model = class_gaps(table["label"].to_numpy(), k1, n1, k2, n2, seed=0)
    assert (round(model.a, 3), round(model.b, 3)) == (-0.353, 0.639)
    assert (round(model.s, 2), round(model.lr, 1)) == (9.40, 288.6)
    worst = max(gaps, key=lambda gap: gap.raw)
    assert (round(worst.raw, 2), round(worst.shrunken.estimate, 3)) == (0.80, 0.487)
    whole = newcombe(int(k1.sum()), int(n1.sum()), int(k2.sum()), int(n2.sum()))
    assert [round(v, 4) for v in (whole.estimate, whole.low, whole.high)] == [
        0.1336,
        0.1231,
        0.1441,
    ]
    assert sum(gap.raw < 0 for gap in gaps) == 245


def test_the_fit_is_the_maximum_of_scipys_likelihood():
    rng = np.random.default_rng(0)
    n1, n2 = np.full(200, 50), np.full(200, 10)
    m = expit(rng.normal(1, 1, size=200))
    k1, k2 = rng.binomial(n1, m), betabinom.rvs(n2, m * 8, (1 - m) * 8, random_state=1)
    model = fit_class_model(k1, n1, k2, n2)

    def log_likelihood(a, b, s):
        mean = expit(a + b * logit((k1 + 0.5) / (n1 + 1)))
        return betabinom.logpmf(k2, n2, mean * s, (1 - mean) * s).sum()

    best = log_likelihood(model.a, model.b, model.s)
    for da, db, ds in [
        (0.05, 0, 1),
        (-0.05, 0, 1),
        (0, 0.05, 1),
        (0, -0.05, 1),
        (0, 0, 1.2),
        (0, 0, 0.8),
    ]:
        assert log_likelihood(model.a + da, model.b + db, model.s * ds) < best


def test_classes_with_the_same_true_gap_are_shrunken_together():
    """The trap of science.md: the same drop of ten points in every class, ten images a class."""
    rng = np.random.default_rng(0)
    n1, n2 = np.full(1000, 50), np.full(1000, 10)
    p = np.clip(rng.normal(0.75, 0.1, 1000), 0.2, 0.98)
    k1, k2 = rng.binomial(n1, p), rng.binomial(n2, p - 0.1)
    gaps, _ = class_gaps(np.arange(1000), k1, n1, k2, n2, seed=0)
    raw = np.array([gap.raw for gap in gaps])
    shrunken = np.array([gap.shrunken.estimate for gap in gaps])
    assert raw.max() > 0.5
    assert shrunken.max() < 0.3
    assert np.abs(shrunken - 0.1).mean() < np.abs(raw - 0.1).mean() / 2


def test_the_interval_of_a_class_covers_its_true_gap():
    rng = np.random.default_rng(1)
    covered = []
    n1, n2 = np.full(300, 50), np.full(300, 10)
    for seed in range(5):
        p1 = rng.beta(8, 2, 300)
        p2 = rng.beta(7 * p1 + 1e-3, 7 * (1 - p1) + 1e-3) * 0.9
        k1, k2 = rng.binomial(n1, p1), rng.binomial(n2, p2)
        gaps, _ = class_gaps(np.arange(300), k1, n1, k2, n2, seed=seed)
        covered += [g.shrunken.low <= (p1 - p2)[g.class_id] <= g.shrunken.high for g in gaps]
    assert np.mean(covered) > 0.90


def test_a_class_in_one_set_alone_is_null_with_a_reason():
    gaps, model = class_gaps(
        np.array([4, 7, 9]), np.array([1, 5, 0]), np.array([2, 9, 0]),
        np.array([0, 0, 0]), np.array([0, 8, 0]), seed=0,
    )  # fmt: skip
    assert model is not None
    assert gaps[0].class_id == 7
    assert {g.class_id: g.shrunken.reason for g in gaps[1:]} == {
        4: "no images of this class in the target",
        9: "no images of this class in either set",
    }
    gaps, model = class_gaps(
        np.array([0, 1]),
        np.array([0, 3]),
        np.array([0, 5]),
        np.array([2, 0]),
        np.array([3, 0]),
        seed=0,
    )
    assert model is None
    assert [g.accuracy_target for g in gaps] == [2 / 3, None]


@pytest.mark.parametrize(("k", "n1", "n2"), [(10, 500, 100), (10, 1000, 10), (2, 500, 50)])
def test_intervals_of_classes_that_are_all_alike_cover(k, n1, n2):
    """Few or like classes: the spread between them cannot be taken as known."""
    rng = np.random.default_rng(0)
    covered = []
    for seed in range(120 // k):
        k1, k2 = rng.binomial(n1, 0.8, k), rng.binomial(n2, 0.7, k)
        gaps, _ = class_gaps(np.arange(k), k1, np.full(k, n1), k2, np.full(k, n2), seed=seed)
        covered += [g.shrunken.low <= 0.1 <= g.shrunken.high for g in gaps]
    assert np.mean(covered) >= 0.9


@pytest.mark.parametrize(("k", "n1", "n2"), [(10, 500, 100), (100, 50, 10), (10, 48, 60)])
def test_no_class_is_named_where_all_lose_the_same(k, n1, n2):
    """The posterior probabilities name some class in most such worlds; the test does not."""
    rng = np.random.default_rng(0)
    worlds = 60
    named = 0
    for _ in range(worlds):
        k1, k2 = rng.binomial(n1, 0.8, k), rng.binomial(n2, 0.7, k)
        ones = np.ones(k, int)
        common = (k1 / n1 - k2 / n2).mean()
        p = excess_p_values(k1, ones * n1, k2, ones * n2, gap=common)
        named += (benjamini_hochberg(p) <= 0.05).any()
    assert named <= 8  # .05 of 60 is 3; the chance of more than 8 is below .004


def test_a_class_that_loses_more_is_named():
    rng = np.random.default_rng(0)
    n1, n2 = np.full(20, 200), np.full(20, 100)
    k1, k2 = rng.binomial(n1, 0.9), rng.binomial(n2, 0.85)
    k2[3], k2[11] = 40, 100
    gaps, _ = class_gaps(np.arange(20), k1, n1, k2, n2, seed=0)
    named = {g.class_id for g in gaps if g.q_value <= 0.05}
    assert 3 in named
    assert named <= {3, 11}
    assert gaps[0].class_id == 3
    assert gaps[0].p_exceeds > 0.99


def test_the_adjustment_agrees_with_statsmodels():
    p = np.random.default_rng(0).random(50) ** 2
    np.testing.assert_allclose(benjamini_hochberg(p), multipletests(p, method="fdr_bh")[1])


@pytest.mark.parametrize(("k1", "k2"), [(10, 0), (0, 10), (10, 10), (0, 0)])
def test_all_right_and_all_wrong_have_finite_answers(k1, k2):
    ten = np.full(3, 10)
    gaps, _ = class_gaps(np.arange(3), np.full(3, k1), ten, np.full(3, k2), ten, seed=0)
    for gap in gaps:
        assert np.isfinite([gap.shrunken.low, gap.shrunken.high, gap.p_exceeds]).all()
        assert gap.q_value > 0.05


def test_a_common_gap_is_free_of_the_class_mix():
    """No class loses anything; the target merely has more of the easy ones."""
    n1, k1 = np.full(4, 100), np.array([50, 50, 90, 90])
    n2, k2 = np.array([50, 50, 200, 200]), np.array([25, 25, 180, 180])
    gaps, _ = class_gaps(np.arange(4), k1, n1, k2, n2, seed=0)
    assert all(gap.q_value > 0.5 for gap in gaps)
    whole = newcombe(int(k1.sum()), 400, int(k2.sum()), 500)
    assert whole.high < 0
    assert label_shift(k1, n1, n2) == pytest.approx(whole.estimate)
    assert label_shift(np.array([1, 0]), np.array([2, 0]), np.array([1, 1])) is None


# ------------------------------------------------------------------------------ features (G9)


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


# ------------------------------------------------------------------------------ one test set


def predictions(confidence, correct, nll=None):
    n = len(correct)
    return Predictions(
        predicted=np.zeros(n, np.int64),
        confidence=np.asarray(confidence, float),
        correct=np.asarray(correct, bool),
        in_top5=np.ones(n, bool),
        nll=-np.log(np.asarray(confidence, float)) if nll is None else np.asarray(nll, float),
    )


def test_scores_of_one_set():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 0.99, 500)
    correct = rng.random(500) < confidence
    nll = np.where(correct, -np.log(confidence), -np.log(1 - confidence))
    found = scores(predictions(confidence, correct, nll), n_classes=10, seed=0)
    assert found.n == 500
    assert found.top1.estimate == correct.mean()
    assert found.nll.estimate == pytest.approx(log_loss(correct, confidence))
    assert found.nll.low < found.nll.estimate < found.nll.high
    assert 0 <= found.ece.low <= found.ece.estimate <= found.ece.high
    assert found.top5.estimate == 1
    assert scores(predictions([0.5], [True]), n_classes=5, seed=0).top5.estimate is None


@pytest.mark.parametrize("error", [0.0, 0.06])
def test_the_interval_of_the_calibration_error_covers_in_spite_of_its_bias(error):
    rng = np.random.default_rng(0)
    covered = []
    for seed in range(25):
        confidence = rng.uniform(0.5, 0.95, 400)
        correct = rng.random(400) < confidence - error
        ece = scores(predictions(confidence, correct), n_classes=9, seed=seed).ece
        covered.append(ece.low <= error <= ece.high)
    assert np.mean(covered) >= 0.88


def test_scores_that_cannot_be_known_say_why():
    unknown = scores(predictions([0.5, 0.5], [True, False], [0.1, np.nan]), n_classes=9, seed=0)
    assert unknown.nll.estimate is None
    assert "1 images have a label" in unknown.nll.reason
    assert scores(predictions([], []), n_classes=9, seed=0).ece.reason == "no images"


def test_bins_hold_equal_masses_and_keep_ties_together():
    assert (
        np.bincount(equal_mass_bins(np.random.default_rng(0).random(150), 15)).tolist() == [10] * 15
    )
    assert len(set(equal_mass_bins(np.full(100, 0.5), 15).tolist())) == 1
    assert calibration_error(np.full(100, 0.7), np.arange(100) < 70) == pytest.approx(0, abs=1e-12)


# ------------------------------------------------------------------------------ all of it


def test_relabelling_and_reordering_change_nothing():
    rng = np.random.default_rng(0)

    def make(n, shift):
        labels = np.arange(n) % 4
        features = (rng.normal(size=(n, 5)) + shift).astype(np.float32)
        return labels, rng.random(n) < 0.8 - shift / 2, features

    def explain(sets, ids, orders):
        sets = [TestSet(ids[y][o], c[o], f[o]) for (y, c, f), o in zip(sets, orders, strict=True)]
        return report(
            *sets, train_sd=np.ones(5), head_weights=np.ones(5), seed=0,
        )  # fmt: skip

    sets = [make(200, 0.0), make(150, 0.4)]
    straight = [np.arange(200), np.arange(150)]
    first = explain(sets, np.arange(4), straight)
    other = explain(sets, np.array([30, 20, 10, 0]), [rng.permutation(200), rng.permutation(150)])
    assert first.gap == other.gap
    assert first.gap.estimate > 0
    shrunken = [sorted(c.shrunken.estimate for c in r.classes) for r in (first, other)]
    np.testing.assert_allclose(*shrunken)
    for a, b in zip(
        *(sorted(r.features, key=lambda f: f.feature_id) for r in (first, other)), strict=True
    ):
        assert a.ks == pytest.approx(b.ks)
        assert a.mean_difference.estimate == pytest.approx(b.mean_difference.estimate, abs=1e-6)
