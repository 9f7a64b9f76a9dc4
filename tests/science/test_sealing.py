"""Sealed intervals hold what comes, where nothing happens that no score shows."""

import pytest

from tests.science.coverage import is_below
from tests.science.sealing import (
    COMBINED,
    SEEN_BY_SCORES,
    UNSEEN,
    WITH_LINE,
    covering,
    many,
    of_world,
)

N_WORLDS = 25


@pytest.fixture(scope="module")
def seals():
    return many([*SEEN_BY_SCORES, *UNSEEN], N_WORLDS)


@pytest.mark.science
@pytest.mark.parametrize("what", [COMBINED, WITH_LINE])
@pytest.mark.parametrize("name", SEEN_BY_SCORES)
def test_intervals_cover_without_label_noise_and_concept_change(seals, name, what):
    k = covering(seals[name], what)
    assert not is_below(k, N_WORLDS), f"{k} of {N_WORLDS}"


@pytest.mark.science
@pytest.mark.parametrize("name", ["noise", "concept"])
def test_what_no_score_shows_is_not_predicted(seals, name):
    """The methods say the same as without it: too much, by what it costs."""
    errors = [s.predicted[COMBINED][0] - s.truth for s in seals[name]]
    falls = [s.reference - s.truth for s in seals[name]]
    assert sum(errors) / N_WORLDS == pytest.approx(sum(falls) / N_WORLDS, abs=0.005)


@pytest.mark.filterwarnings("ignore")  # a hundred steps are enough here, converged or not
def test_three_worlds():
    seals = [of_world(seed, ["these three"])["these three"] for seed in range(3)]
    assert covering(seals) == covering(seals, WITH_LINE) == 3
    assert all(s.predicted[COMBINED][2] - s.predicted[COMBINED][1] < 0.2 for s in seals)
