import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from models.estimate import Estimate, share, wilson
from models.gap import TestSet, report
from models.gap.difference import bootstrap_within_classes, newcombe, paired

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


def _heads(both, b, c, neither):
    first = np.repeat([True, True, False, False], [both, b, c, neither])
    second = np.repeat([True, False, True, False], [both, b, c, neither])
    return first, second


@pytest.mark.parametrize(
    "counts", [(50, 7, 3, 40), (0, 1, 0, 4), (9, 0, 6, 1), (900, 40, 40, 20), (5, 12, 30, 0)]
)
def test_paired_heads_agree_with_statsmodels(counts):
    first, second = _heads(*counts)
    both, b, c, neither = counts
    found = paired(first, second)
    assert (found.b, found.c) == (b, c)
    theirs = mcnemar([[both, b], [c, neither]], exact=True)
    assert found.p_value == pytest.approx(theirs.pvalue, abs=1e-12)
    n = sum(counts)
    # the same interval from the differences, image by image
    differences = first.astype(float) - second
    half = 1.959964 * differences.std() / np.sqrt(n)
    gap = found.difference
    assert gap.estimate == pytest.approx((b - c) / n)
    assert (gap.low, gap.high) == pytest.approx(
        (differences.mean() - half, differences.mean() + half), abs=1e-6
    )
    turned = paired(second, first)
    assert turned.difference.low == pytest.approx(-gap.high)
    assert turned.p_value == found.p_value


@pytest.mark.parametrize(("counts", "gap"), [((5, 0, 0, 3), 0.0), ((0, 4, 0, 0), 1.0)])
def test_paired_heads_without_spread_have_no_interval(counts, gap):
    found = paired(*_heads(*counts))
    assert found.difference.estimate == gap
    assert found.difference.low is None
    assert "no spread" in found.difference.reason
    assert paired(*_heads(0, 0, 0, 0)).difference.reason == "no images"


def test_the_paired_interval_covers():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(1000):
        kinds = rng.choice(4, size=400, p=[0.6, 0.08, 0.05, 0.27])
        found = paired(np.isin(kinds, [0, 1]), np.isin(kinds, [0, 2])).difference
        covered.append(found.low <= 0.03 <= found.high)
    assert np.mean(covered) >= 0.93
