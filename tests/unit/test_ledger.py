"""The ledger: its terms sum to the gap, and a world of known causes is read right."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from models.gap.covariates import covariates_of, principal_components
from models.gap.domain import Separator, design, effective_share
from models.gap.ledger import Group, class_mix_weights, ledger
from models.gap.resampling import replicates, weighted_accuracy
from tests.simulator import NUISANCE, World


def drawn(n1=600, n2=300, *, shift=1.0, k=4, seed=0):
    """Two sets; the hard images, of which the target has more, are less often right."""
    rng = np.random.default_rng(seed)
    hard = np.concatenate([rng.normal(size=n1), rng.normal(shift, size=n2)])
    labels = rng.integers(k, size=n1 + n2)
    correct = rng.random(n1 + n2) < 1 / (1 + np.exp(hard - 1.5))
    other = rng.normal(size=(n1 + n2, 2))
    return labels[:n1], correct[:n1], labels[n1:], correct[n1:], hard, other


def term(found, name):
    return next(t for t in found.terms if t.name == name)


def total(found):
    return sum(t.estimate.estimate or 0.0 for t in found.terms)


def test_terms_sum_to_the_gap_and_the_cause_is_found():
    y1, c1, y2, c2, hard, other = drawn()
    groups = [Group("hard", hard[:, None], "alike"), Group("other", other, "alike")]
    found = ledger(y1, c1, y2, c2, groups, seed=0)
    assert [t.name for t in found.terms] == ["label shift", "hard", "other", "rest"]
    assert total(found) == pytest.approx(c1.mean() - c2.mean(), abs=1e-12)
    assert term(found, "hard").verdict == "supported"
    assert term(found, "other").verdict != "supported"
    assert term(found, "rest").verdict != "supported"
    assert abs(term(found, "hard").alone.estimate - found.gap.estimate) < 0.06


def test_a_set_against_itself_has_no_gap():
    y1, c1, _, _, hard, _ = drawn()
    group = Group("hard", np.concatenate([hard[:600]] * 2)[:, None], "alike")
    found = ledger(y1, c1, y1, c1, [group], seed=0)
    assert found.gap.estimate == 0
    assert total(found) == pytest.approx(0, abs=1e-12)
    assert abs(term(found, "hard").estimate.estimate) < 0.01
    assert term(found, "label shift").estimate.estimate == 0


def test_the_order_of_rows_and_the_names_of_classes_change_nothing():
    y1, c1, y2, c2, hard, other = drawn(n1=300, n2=200)
    rng = np.random.default_rng(1)
    values = np.column_stack([hard, other])
    before = ledger(y1, c1, y2, c2, [Group("all", values, "alike")], seed=0)
    first, second = rng.permutation(300), rng.permutation(200)
    names = np.array([7, 3, 11, 5])
    moved = np.concatenate([values[:300][first], values[300:][second]])
    after = ledger(
        names[y1[first]], c1[first], names[y2[second]], c2[second],
        [Group("all", moved, "alike")], seed=0,
    )  # fmt: skip
    for a, b in zip(before.terms, after.terms, strict=True):
        assert (a.estimate.estimate, a.estimate.low) == pytest.approx(
            (b.estimate.estimate, b.estimate.low), abs=1e-6
        )


def test_without_overlap_a_term_is_refused_and_counts_nothing():
    y1, c1, y2, c2, hard, other = drawn()
    apart = other[:, :1] + 8 * (np.arange(len(other)) >= len(y1))[:, None]
    groups = [Group("hard", hard[:, None], "alike"), Group("apart", apart, "alike")]
    found = ledger(y1, c1, y2, c2, groups, seed=0)
    refused = term(found, "apart")
    assert (refused.estimate.estimate, refused.verdict) == (None, "refused (no overlap)")
    assert "AUC" in refused.estimate.reason
    assert refused.auc > 0.99
    assert total(found) == pytest.approx(found.gap.estimate, abs=1e-12)
    alone = ledger(y1, c1, y2, c2, groups[:1], seed=0)
    assert term(found, "hard").estimate.estimate == pytest.approx(
        term(alone, "hard").estimate.estimate, abs=0.01
    )


def test_groups_that_tell_the_sets_apart_only_together():
    rng = np.random.default_rng(0)
    y = np.zeros(800, int)
    right = rng.random(800) < 0.8
    is_target = np.arange(800) >= 400
    common = rng.normal(size=800) * 3
    one = common + 1.5 * is_target
    two = common - 1.5 * is_target + rng.normal(size=800) * 0.1
    groups = [Group("one", one[:, None], "a"), Group("two", two[:, None], "b")]
    found = ledger(y[:400], right[:400], y[400:], right[400:], groups, seed=0)
    states = [term(found, name).verdict == "refused (no overlap)" for name in ("one", "two")]
    assert sum(states) == 1
    assert "together" in next(t.estimate.reason for t in found.terms if t.estimate.reason)


def test_without_groups_all_is_rest():
    y1, c1, y2, c2, *_ = drawn()
    found = ledger(y1, c1, y2, c2, [], seed=0)
    assert [t.name for t in found.terms] == ["label shift", "rest"]
    assert total(found) == pytest.approx(found.gap.estimate, abs=1e-12)
    assert found.overlap.auc is None


def test_a_class_that_the_reference_lacks_refuses_label_shift():
    y1, c1, y2, c2, *_ = drawn(k=3)
    y2 = y2.copy()
    y2[:5] = 9
    found = ledger(y1, c1, y2, c2, [], seed=0)
    assert term(found, "label shift").verdict == "refused (no overlap)"
    assert total(found) == pytest.approx(found.gap.estimate, abs=1e-12)


def test_many_groups_are_sampled_and_still_sum():
    y1, c1, y2, c2, hard, _ = drawn(n1=300, n2=200)
    rng = np.random.default_rng(0)
    groups = [Group("hard", hard[:, None], "a")]
    groups += [Group(f"noise {i}", rng.integers(2, size=(500, 1)) * 1.0, "a") for i in range(6)]
    found = ledger(y1, c1, y2, c2, groups, seed=0)
    assert total(found) == pytest.approx(found.gap.estimate, abs=1e-12)
    largest = max(found.terms, key=lambda t: abs(t.estimate.estimate))
    assert largest.name in ("hard", "rest")


def test_label_shift_by_hand():
    """The reference has .9 and .5 right; the target half as many of the easy class."""
    y1, y2 = np.repeat([0, 1], 50), np.repeat([0, 1], [25, 75])
    c1 = np.concatenate([np.arange(50) < 45, np.arange(50) < 25])
    c2 = np.concatenate([np.arange(25) < 20, np.arange(75) < 36])
    found = ledger(y1, c1, y2, c2, [], seed=0)
    assert term(found, "label shift").estimate.estimate == pytest.approx(0.7 - 0.6)
    assert class_mix_weights(y1, y2)[[0, 99]].tolist() == [0.5, 1.5]


def test_replicates_step_where_a_plain_refit_goes():
    """v of replicates by two steps with the sample's Hessian, against refits from the start."""
    y1, c1, y2, _, hard, other = drawn(n1=800, n2=400, shift=0.7)
    labels = np.concatenate([y1, y2])
    x = design(np.column_stack([hard, other]), np.arange(1200) >= 800)
    weights = replicates(y1, y2, seed=0, m=40)
    separator = Separator(weights, labels, seed=0)
    stepped = weighted_accuracy(c1, separator.reference_weights(separator.fit(x)))
    plain = []
    for j in range(1, 41):
        own = type(weights)(weights.reference[:, [j]], weights.target[:, [j]], 0)
        refit = Separator(own, labels, seed=0)
        plain.append(weighted_accuracy(c1, refit.reference_weights(refit.fit(x)))[0])
    assert np.sqrt(np.mean((stepped[1:] - plain) ** 2)) < 0.1 * np.std(plain)
    assert np.std(stepped[1:]) == pytest.approx(np.std(plain), rel=0.05)


def test_the_domain_classifier_is_scikit_learns():
    rng = np.random.default_rng(0)
    n = 1000  # enough rows that the least penalty is taken
    x = rng.normal(size=(2 * n, 3)).astype(np.float32)
    x[n:] += 0.5
    labels = np.zeros(n, int)
    separator = Separator(replicates(labels, labels, seed=0, m=0), np.zeros(2 * n, int), seed=0)
    found = separator.fit(x)
    held = separator._held[0]
    kept = np.setdiff1d(np.arange(2 * n), held)
    theirs = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(x[kept], kept >= n)
    assert np.abs(found.log_odds[held, 0] - theirs.decision_function(x[held])).max() < 1e-3


def test_effective_share_of_equal_weights_is_one():
    assert effective_share(np.full(7, 3.0)) == pytest.approx(1.0)


def test_weights_of_small_classes_keep_their_variance():
    """The variance of a class's weighted mean is s² / n, not s² (n − 1) / n²."""
    labels = np.repeat([0, 1], [10, 10])
    x = np.tile(np.arange(10.0), 2)
    weights = replicates(labels, labels, seed=0, m=20_000).reference[:, 1:]
    means = (weights[:10] * x[:10, None]).sum(axis=0) / 10
    assert np.var(means) == pytest.approx(np.var(x[:10], ddof=1) / 10, rel=0.03)


@pytest.fixture(scope="module")
def world():
    world = World(1)
    train = world.train(6000)
    head = LogisticRegression(C=0.03, max_iter=60).fit(train.features, train.labels)
    return world, head, train.features


def ledger_of(world, causes, *, per_class=(60, 20)):
    made, head, train = world
    reference, target = made.reference(per_class[0]), made.target(per_class[1], causes)
    scores = [head.decision_function(s.features).astype(np.float32) for s in (reference, target)]
    sd, mean = train.std(axis=0), train.mean(axis=0)
    hard = [
        covariates_of(z, s.features, train_mean=mean, train_sd=sd).columns()
        for z, s in zip(scores, (reference, target), strict=True)
    ]
    parts = principal_components(reference.features, target.features, scale=sd, n_components=20)
    groups = [
        Group("easiness", np.concatenate([reference.easiness, target.easiness])[:, None], "a"),
        Group("difficulty", np.concatenate(hard), "a"),
        Group("features", np.concatenate(parts).astype(float), "a", n_knots=4),
    ]
    right = [z.argmax(axis=1) == s.labels for z, s in zip(scores, (reference, target), strict=True)]
    return ledger(reference.labels, right[0], target.labels, right[1], groups, seed=0)


def test_a_world_without_causes_supports_no_term(world):
    found = ledger_of(world, ())
    assert all(t.estimate.low <= 0 <= t.estimate.high for t in found.terms)


def test_a_world_of_selection_is_read_as_its_annotation(world):
    found = ledger_of(world, ("selection",))
    largest = max(found.terms[:-1], key=lambda t: t.estimate.estimate)
    assert largest.name == "easiness"
    assert largest.verdict == "supported"
    assert term(found, "rest").verdict != "supported"


def test_a_world_of_nuisance_refuses_the_features(world):
    found = ledger_of(world, ("nuisance",))
    assert term(found, "features").verdict == "refused (no overlap)"
    assert len(NUISANCE) == 8


def test_images_that_are_all_right_leave_a_rest_with_an_interval():
    labels, right = np.repeat([0, 1], 20), np.ones(40, bool)
    rest = ledger(labels, right, labels, right, [], seed=0).terms[-1].estimate
    assert rest.estimate == 0
    assert rest.low < -0.05 < 0.05 < rest.high
