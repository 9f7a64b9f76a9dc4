"""Explainers on random halves of real images raise few findings, and on a real shift some."""

import pytest

from tests.science.placebo import CIFAR, N_RUNS, is_above, load, look, placebos

pytestmark = [
    pytest.mark.science,
    pytest.mark.skipif(not CIFAR.is_dir(), reason="the shared data folder is absent"),
]


@pytest.fixture(scope="module")
def world():
    return load()


def test_random_halves_raise_findings_in_a_twentieth_at_most(world):
    """At most 15 of 200: more would show a rate above .05, one-sided at .05."""
    found = placebos(world, N_RUNS)
    assert {name: n for name, n in found.items() if is_above(n, N_RUNS)} == {}


def test_what_is_silent_on_placebos_speaks_where_the_sets_differ(world):
    """Test 2 was drawn by human agreement and differs in nothing else."""
    found = look(world, world.reference, world.target, 0)
    for name in (
        "gap, Newcombe", "gap, bootstrap within classes", "ledger, human agreement",
        "ledger, difficulty", "overlap by human agreement, new to the target",
        "standardised by human agreement, explained", "standardised by confidence, explained",
        "calibration, overconfidence", "feature shift", "margins, D", "labels, gap gone",
    ):  # fmt: skip
        assert found[name], name
    assert not found["ledger, rest"]
