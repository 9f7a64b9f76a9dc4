from functools import cache

import numpy as np
import pytest

from models.errors import InvalidParams
from models.gap.masking import COSTS, NARROWS, NO_CHANGE, mask_effect, matched_sets
from models.gap.resampling import replicates
from models.heads import TrainRows, predict, train
from models.heads.training import refit
from tests.simulator import NUISANCE, World


def test_random_sets_have_the_size_and_the_importance():
    rng = np.random.default_rng(0)
    importance = rng.gamma(1.0, size=200)
    chosen = np.argsort(-importance)[5:15]
    sets = matched_sets(importance, chosen, seed=0)
    assert len(sets) == 20
    for one in sets:
        assert len(set(one.tolist())) == 10
        assert not set(one.tolist()) & set(chosen.tolist())
        assert importance[one].sum() == pytest.approx(importance[chosen].sum(), rel=0.25)
    assert [s.tolist() for s in sets] == [
        s.tolist() for s in matched_sets(importance, chosen, seed=0)
    ]


def test_the_same_head_changes_nothing():
    right = np.arange(90) % 4 != 0
    y = np.arange(90) % 3
    found = mask_effect((right, right), (right, right), replicates(y, y, seed=0))
    assert (found.gap.estimate, found.verdict) == (0.0, NO_CHANGE)


def test_a_refit_is_what_training_fits():
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    x = (rng.normal(size=(300, 6)) + 2 * np.eye(3, 6)[y]).astype(np.float32)
    rows = TrainRows(x, y, roles=["train"])
    for head, params in (("lda", {"shrinkage": 0.1}), ("logistic", {"C": 0.1})):
        trained = train(rows, head, params, seed=0).head
        again = refit(rows, head, params, seed=0)
        np.testing.assert_array_equal(
            predict(trained, x, y).predicted, predict(again, x, y).predicted
        )
    some = np.array([0, 2, 5])
    direct = refit(TrainRows(x[:, some], y, roles=["train"]), "lda", {"shrinkage": 0.1}, seed=0)
    without = refit(rows.only(some), "lda", {"shrinkage": 0.1}, seed=0)
    np.testing.assert_allclose(direct.weight, without.weight, atol=1e-5)
    with pytest.raises(InvalidParams):
        refit(rows, "lda", {}, seed=0)


@cache
def world_and_sets(seed):
    world = World(seed)
    return world.train(), world.reference(200), world.target(40)


def effect_without(seed, features):
    rows, one, other = world_and_sets(seed)
    train_rows = TrainRows(rows.features, rows.labels, roles=["train"])
    kept = np.setdiff1d(np.arange(64), features)
    old = refit(train_rows, "logistic", {"C": 0.03}, seed=0)
    new = refit(train_rows.only(kept), "logistic", {"C": 0.03}, seed=0)
    right = [
        tuple(predict(head, x.features[:, columns], x.labels).correct for x in (one, other))
        for head, columns in ((old, np.arange(64)), (new, kept))
    ]
    return mask_effect(*right, replicates(one.labels, other.labels, seed=seed))


def test_masking_the_nuisance_is_accepted_and_the_evidence_is_not():
    found = effect_without(0, NUISANCE)
    assert found.verdict == NARROWS
    assert not effect_without(0, World(0).attenuated).is_accepted


@pytest.mark.slow
def test_masking_in_twenty_worlds():
    nuisance = [effect_without(seed, NUISANCE) for seed in range(20)]
    evidence = [effect_without(seed, World(seed).attenuated) for seed in range(20)]
    assert np.mean([100 * e.gap.estimate for e in nuisance]) == pytest.approx(-2.35, abs=0.8)
    assert sum(e.is_accepted for e in nuisance) >= 15
    assert not any(e.is_accepted for e in evidence)
    assert sum(e.verdict == COSTS for e in evidence) >= 5
