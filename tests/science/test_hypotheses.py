"""A refinement that mends a cause is accepted, one that only throws information away is not."""

import pytest

from models.gap.hypotheses import HELPS_BOTH, HURTS, NARROWS
from tests.science.hypotheses import N_RANDOM, verdicts

pytestmark = pytest.mark.science


@pytest.fixture(scope="module")
def world():
    return verdicts(0)


def test_masking_the_nuisance_narrows_the_gap(world):
    comparison, verdict = world["mask J"]
    assert NARROWS in verdict.words
    assert comparison.target.difference.estimate > 0


def test_masking_what_was_attenuated_is_rejected_because_the_target_falls(world):
    comparison, verdict = world["mask A"]
    assert verdict.words == (HURTS,)
    assert comparison.gap_change.estimate < 0


def test_a_stronger_penalty_helps_both_and_narrows(world):
    assert world["C .03 → .001"][1].words == (HELPS_BOTH, NARROWS)


def test_of_twenty_random_masks_one_at_most_narrows(world):
    assert sum(NARROWS in world[f"random mask {i}"][1].words for i in range(N_RANDOM)) <= 1
