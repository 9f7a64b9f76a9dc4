import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import betabinom
from statsmodels.stats.multitest import multipletests

from models.gap import classes
from models.gap.classes import class_counts, class_gaps, fit_class_model
from models.gap.difference import label_shift, newcombe
from models.gap.excess import benjamini_hochberg, excess_p_values
from tests.world import SHARED


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


@pytest.mark.filterwarnings("error")
def test_a_curvature_with_unequal_halves_is_still_a_spread(monkeypatch):
    found_by = classes.minimize

    def lopsided(*arguments, **options):
        found = found_by(*arguments, **options)
        if options.get("method") == "BFGS":
            found.hess_inv = found.hess_inv + np.array([[0, 1e-4], [-1e-4, 0]])
        return found

    ten = np.full(4, 10)
    args = (np.arange(4), np.array([9, 7, 8, 5]), ten, np.array([8, 7, 5, 5]), ten)
    wanted, _ = class_gaps(*args, seed=0)
    monkeypatch.setattr(classes, "minimize", lopsided)
    gaps, _ = class_gaps(*args, seed=0)
    for one, other in zip(gaps, wanted, strict=True):
        assert one.shrunken.low == pytest.approx(other.shrunken.low, abs=1e-6)
