import numpy as np
import pytest

from models.gap.features import distances_within_classes, permutation_p_values
from models.gap.margins import StandardHead, margin_ledger, strongest_others
from models.gap.resampling import replicates
from models.heads import LinearHead, TrainRows, scores, train
from tests.simulator import NUISANCE, World


def small(seed=0, n1=200, n2=150, k=6, d=9):
    rng = np.random.default_rng(seed)
    head = LinearHead(
        rng.normal(size=d), rng.uniform(0.5, 2, d), rng.normal(size=(d, k)).astype(np.float32),
        rng.normal(size=k).astype(np.float32), np.arange(k) * 3,
    )  # fmt: skip
    sets = [
        (rng.normal(1, 2, (n, d)).astype(np.float32), 3 * rng.integers(0, k, n)) for n in (n1, n2)
    ]
    return head, sets, rng.normal(size=d), rng.uniform(0.5, 2, d)


def ledgers(head, sets, mean, sd, seed=0):
    standard = StandardHead.of(head, mean, sd)
    (x1, y1), (x2, y2) = sets
    c1, c2 = standard.column_of(y1), standard.column_of(y2)
    drawn = replicates(y1, y2, seed=seed)
    others = tuple(strongest_others(scores(head, x), c) for x, c in ((x1, c1), (x2, c2)))
    plain = margin_ledger(standard, x1, c1, x2, c2, drawn)
    return plain, margin_ledger(standard, x1, c1, x2, c2, drawn, competitors=others)


def margins(head, x, y):
    """Of each image against the mean and the largest of the others, by hand in float64."""
    f = ((x - head.mean) / head.scale) @ head.weight.astype(float) + head.bias
    own = np.searchsorted(head.class_ids, y)
    mine = f[np.arange(len(y)), own]
    f[np.arange(len(y)), own] = np.nan
    return mine - np.nanmean(f, axis=1), mine - np.nanmax(f, axis=1)


def test_terms_and_bias_sum_to_the_difference_of_margins():
    head, sets, mean, sd = small()
    of_sets = [margins(head, *one) for one in sets]
    for i, found in enumerate(ledgers(head, sets, mean, sd)):
        expected = of_sets[0][i].mean() - of_sets[1][i].mean()
        assert abs(found.residual) < 1e-8
        assert found.values[0].sum() + found.bias == pytest.approx(expected, abs=1e-8)
        assert found.difference[0] == pytest.approx(expected, abs=1e-8)


def test_a_set_against_itself_has_no_terms():
    head, sets, mean, sd = small()
    for found in ledgers(head, [sets[0], sets[0]], mean, sd):
        np.testing.assert_allclose(found.values[0], 0, atol=1e-12)
        assert (found.p_values == 1).all()


def test_order_of_rows_and_names_of_classes_change_nothing():
    head, sets, mean, sd = small()
    rng = np.random.default_rng(1)
    orders = [rng.permutation(len(y)) for _, y in sets]
    moved = [(x[order], y[order]) for (x, y), order in zip(sets, orders, strict=True)]
    turn = rng.permutation(6)
    named = LinearHead(
        head.mean, head.scale, head.weight[:, turn], head.bias[turn], head.class_ids
    )  # fmt: skip
    back = np.argsort(turn)
    renamed = [(x, 3 * back[y // 3]) for x, y in sets]
    plain = ledgers(head, sets, mean, sd)
    for other in (ledgers(head, moved, mean, sd), ledgers(named, renamed, mean, sd)):
        for a, b in zip(plain, other, strict=True):
            np.testing.assert_allclose(a.values[0], b.values[0], atol=1e-9)


def test_errors_are_those_of_the_means():
    """Standard error of a term: from the spread within classes, as for any stratified mean."""
    head, sets, mean, sd = small(n1=3000, n2=2000)
    found, _ = ledgers(head, sets, mean, sd)
    standard = StandardHead.of(head, mean, sd)
    variance = 0.0
    for x, y in sets:
        own = standard.column_of(y)
        apart = standard.weight[own] - standard.weight.mean(axis=0)
        terms = apart * (x - mean) / sd * 6 / 5
        variance = variance + sum(
            terms[own == c].var(axis=0, ddof=1) * (own == c).sum() / len(own) ** 2 for c in range(6)
        )
    np.testing.assert_allclose(found.errors, np.sqrt(variance), rtol=0.2)


def findings(seed, cause):
    """Features that KS, C and D find in a world with one cause."""
    world = World(seed)
    rows = world.train(4000)
    head = train(
        TrainRows(rows.features, rows.labels, roles=["train"]), "lda", {"shrinkage": 0.1}, seed=0
    ).head
    one, other = world.reference(40), world.target(40, [cause])
    x1, x2 = one.features, other.features
    mean, sd = rows.features.mean(axis=0, dtype=float), rows.features.std(axis=0, dtype=float)
    plain, hard = ledgers(head, [(x1, one.labels), (x2, other.labels)], mean, sd)
    ks, _ = distances_within_classes(x1, one.labels, x2, other.labels)
    p = permutation_p_values(x1, one.labels, x2, other.labels, seed=0)
    by_ks = np.flatnonzero((ks > 0.3) | (p < 0.05))
    clear = [set(np.flatnonzero(found.p_values < 0.05).tolist()) for found in (plain, hard)]
    largest = set(np.argsort(-np.abs(plain.values[0] / plain.errors))[:6].tolist())
    return world, set(by_ks.tolist()), *clear, largest


@pytest.mark.parametrize("seed", [0, 1])
def test_ks_finds_the_nuisance_and_c_the_attenuation(seed):
    neither_confuses(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 22))
def test_neither_confuses_them_in_twenty_worlds(seed):
    neither_confuses(seed)


def neither_confuses(seed):
    nuisance = set(NUISANCE.tolist())
    _, by_ks, by_c, by_d, _ = findings(seed, "nuisance")
    assert nuisance <= by_ks
    assert not by_c & nuisance  # C cancels what is common to all classes
    assert by_d & nuisance  # D sees it where the competitors are lopsided
    assert len(by_d - nuisance) <= 1
    world, by_ks, by_c, _, largest = findings(seed, "attenuation")
    attenuated = set(world.attenuated.tolist())
    assert attenuated <= by_c
    assert largest == attenuated
    # halving a feature also moves its mean where that is not 0: one of six at most here
    assert len(by_ks & attenuated) <= 1
    assert not by_ks & nuisance
