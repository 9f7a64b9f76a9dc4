"""What an honest service must show on worlds whose answer is known: `make test-science`."""

import numpy as np
import pytest

from tests.science.coverage import SIZES, WORLDS, is_below, many, n_covering

pytestmark = pytest.mark.science
N_GAPS, N_LEDGERS = 50, 20
POINT = 0.01


@pytest.fixture(scope="module")
def seen():
    """The same worlds for every question, each kind looked at once."""
    kept = {}

    def of(name):
        if name not in kept:
            kept[name] = many(WORLDS[name], SIZES[0], N_LEDGERS)
        return kept[name]

    return of


def terms(seen, name):
    return [s.terms[name] for s in seen]


def mean(ends):
    return float(np.mean([e[0] for e in ends]))


@pytest.mark.parametrize("name", ["no cause", "all causes"])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("interval", ["newcombe", "bootstrap"])
def test_intervals_of_the_gap_cover(name, sizes, interval):
    found = many(WORLDS[name], sizes, N_GAPS, terms=False)
    covering = n_covering([getattr(s, interval) for s in found], [s.truth for s in found])
    assert not is_below(covering, N_GAPS), f"{covering} of {N_GAPS}"


@pytest.mark.parametrize("term", ["label shift", "easiness", "difficulty", "features", "rest"])
def test_without_a_cause_every_term_covers_0(seen, term):
    covering = n_covering(terms(seen("no cause"), term), [0.0] * N_LEDGERS)
    assert not is_below(covering, N_LEDGERS), f"{covering} of {N_LEDGERS}"


def test_selection_goes_to_its_annotation_and_leaves_no_rest(seen):
    """What both say alike, Shapley's value splits: the model sees most of the easiness.

    So the annotation `alone`, and its term with that of difficulty, come to the truth; its term by
    itself has more than half of it.
    """
    found = seen("selection")
    truth = [s.truth for s in found]
    by_itself = mean(terms(found, "easiness"))
    assert by_itself > np.mean(truth) / 2
    assert by_itself + mean(terms(found, "difficulty")) == pytest.approx(np.mean(truth), abs=POINT)
    alone = [s.alone["easiness"] for s in found]
    assert mean(alone) == pytest.approx(np.mean(truth), abs=POINT)
    assert not is_below(n_covering(alone, truth), N_LEDGERS)
    assert mean(terms(found, "rest")) == pytest.approx(0, abs=POINT)
    assert not is_below(n_covering(terms(found, "rest"), [0.0] * N_LEDGERS), N_LEDGERS)


@pytest.mark.parametrize("name", ["noise", "concept"])
def test_noise_and_concept_go_to_the_rest(seen, name):
    found = seen(name)
    truth = np.mean([s.truth for s in found])
    assert mean(terms(found, "rest")) == pytest.approx(truth, abs=POINT)


def test_nuisance_is_refused(seen):
    assert all(s.terms["features"] is None for s in seen("nuisance"))


def test_concept_classes_come_first_and_plain_noise_names_none(seen):
    """At least two of the five classes that changed their meaning are among the first five."""
    concept = many(("concept",), SIZES[0], N_LEDGERS, terms=False, concept=0.5)
    assert np.mean([s.top_concept for s in concept]) >= 2
    noise = seen("noise")
    assert np.mean([s.top_concept for s in noise]) < 1.5
    assert np.mean([s.n_told > 0 for s in noise]) <= 0.25
