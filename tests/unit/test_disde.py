"""DISDE: the published worked example, sums, invariances, and refusal without overlap."""

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from models.gap.covariates import principal_components
from models.gap.disde import HARDER, TERMS, Disde, common_weights, three_terms
from models.gap.domain import effective_share
from models.gap.ledger import Group
from models.gap.resampling import Replicates
from tests.world import SHARED

# T. T. Cai, H. Namkoong, S. Yadlowsky (2023): P = N(0, 1), Q = N(1, 1)
PUBLISHED = (0.06176, 0.06093, 0.08599)


def right_on_reference(x):
    return ndtr(1 - 0.5 * x)


def right_on_target(x):
    return ndtr(0.8 - 0.5 * x)


def of_size(n):
    return Replicates(np.ones((n[0], 1)), np.ones((n[1], 1)), seed=0)


@pytest.mark.parametrize("n_target", [100_000, 25_000])
def test_the_published_example_with_the_true_odds(n_target):
    n = 100_000, n_target
    x1, x2 = (
        ndtri((np.arange(size) + 0.5) / size) + mean for size, mean in zip(n, (0, 1), strict=True)
    )
    # the odds that an image is of Q hold the share of Q among all, which the weights take out
    odds = (np.concatenate([x1, x2]) - 0.5 + np.log(n[1] / n[0]))[:, None]
    found = three_terms(right_on_reference(x1), right_on_target(x2), odds, of_size(n))[:, 0]
    assert found == pytest.approx(PUBLISHED, abs=0.002)
    gap = right_on_reference(x1).mean() - right_on_target(x2).mean()
    assert found.sum() == pytest.approx(gap, abs=1e-9)


def drawn_example(seed, n=4000):
    rng = np.random.default_rng(seed)
    x1, x2 = rng.normal(size=n), rng.normal(1, 1, size=n)
    c1 = rng.random(n) < right_on_reference(x1)
    c2 = rng.random(n) < right_on_target(x2)
    return x1, x2, c1, c2


def test_the_published_example_with_fitted_odds():
    x1, x2, c1, c2 = drawn_example(1)
    labels = np.zeros(len(x1), int)
    disde = Disde(labels, c1, labels, c2, seed=0)
    found = disde.decompose("x", [Group("x", np.concatenate([x1, x2])[:, None], "")])
    for term, truth in zip(TERMS, PUBLISHED, strict=True):
        assert found.terms[term].low < truth < found.terms[term].high, term
    total = sum(found.terms[term].estimate for term in TERMS)
    assert total == pytest.approx(c1.mean() - c2.mean(), abs=1e-9)
    assert found.auc == pytest.approx(ndtr(np.sqrt(0.5)), abs=0.015)
    assert found.refusal is None
    assert not found.warnings


def test_weights_are_the_published_formula():
    rng = np.random.default_rng(0)
    pi = rng.uniform(0.05, 0.95, 30)
    is_target = np.arange(30) >= 20
    alpha = 1 / 3
    d = alpha * (1 - pi) + (1 - alpha) * pi
    wanted = np.where(is_target, alpha * (1 - pi) / d, (1 - alpha) * pi / d)
    found = common_weights(np.log(pi / (1 - pi))[:, None], is_target, of_size((20, 10)))
    assert found[:, 0] == pytest.approx(wanted, abs=1e-12)
    assert effective_share(found[:20, 0]) <= 1


def test_rows_in_another_order_and_classes_renamed_change_nothing_but_folds():
    x1, x2, c1, c2 = drawn_example(2, 300)
    odds = (np.concatenate([x1, x2]) - 0.5)[:, None]
    one = three_terms(c1.astype(float), c2.astype(float), odds, of_size((300, 300)))
    order = np.random.default_rng(0).permutation(300)
    both = np.concatenate([order, 300 + order])
    other = three_terms(
        c1[order].astype(float), c2[order].astype(float), odds[both], of_size((300, 300))
    )
    assert other == pytest.approx(one, abs=1e-12)
    y = np.arange(300) % 3
    group = [Group("x", np.concatenate([x1, x2])[:, None], "")]
    renamed = [Disde(k, c1, k, c2, seed=0).decompose("x", group).terms for k in (y, 7 - y[::-1])]
    wide = renamed[0][HARDER].high - renamed[0][HARDER].low
    assert abs(renamed[0][HARDER].estimate - renamed[1][HARDER].estimate) < wide / 4


def test_a_set_with_itself_has_no_terms_beyond_chance():
    x1, _, c1, _ = drawn_example(3, 500)
    y = np.zeros(500, int)
    found = Disde(y, c1, y, c1, seed=0).decompose("x", [Group("x", np.r_[x1, x1][:, None], "")])
    assert sum(found.terms[term].estimate for term in TERMS) == pytest.approx(0, abs=1e-9)
    for term in TERMS:
        assert abs(found.terms[term].estimate) < 0.01
        assert found.terms[term].low <= 0 <= found.terms[term].high


def test_little_overlap_is_warned_of_and_less_is_refused():
    rng = np.random.default_rng(0)
    n, y = 1000, np.zeros(1000, int)
    c = rng.random(n) < 0.7
    disde = Disde(y, c, y, c, seed=0)

    def at(shift):
        x = np.concatenate([rng.normal(size=n), rng.normal(shift, 1, size=n)])
        return disde.decompose("x", [Group("x", x[:, None], "")])

    warned, refused = at(2.05), at(3)
    assert "0.9" in warned.warnings[0]
    assert warned.terms[HARDER].estimate is not None
    assert "AUC" in refused.refusal
    assert refused.terms[HARDER].estimate is None
    assert refused.terms[HARDER].reason == refused.refusal
    assert refused.verdicts[HARDER] == "refused (no overlap)"


def test_photos_and_paintings_have_no_overlap():
    folder = SHARED / "pacs_lite0"
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}")
    pd = pytest.importorskip("pandas")
    sets = [
        pd.read_parquet(folder / f"{name}.parquet")
        for name in ("train_photo", "test1_photo", "test2_art_painting")
    ]
    (_, x, _), (y1, x1, c1), (y2, x2, c2) = (_classified(one, sets[0]) for one in sets)
    parts = principal_components(x1, x2, scale=x.std(axis=0), n_components=20)
    found = Disde(y1, c1, y2, c2, seed=0).decompose(
        "features", [Group("features", np.concatenate(parts).astype(float), "", n_knots=4)]
    )
    assert found.auc > 0.95
    assert "AUC" in found.refusal


def _classified(table, train):
    """Labels, features, and whether the nearest class mean of the train rows is right."""
    names = [name for name in table.columns if name.startswith("f")]
    x, y = table[names].to_numpy(np.float32), table["label"].to_numpy(np.int64)
    means = train.groupby("label")[names].mean().to_numpy(np.float32)
    distance = np.square(means).sum(axis=1) - 2 * x @ means.T
    return y, x, distance.argmin(axis=1) == y
