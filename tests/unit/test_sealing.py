"""Predictions with intervals for what a finite target will show: small cases by hand."""

import numpy as np
import pytest
from scipy.stats import t as student

from models.estimate import Estimate, Z
from models.gap.line import fit
from models.gap.resampling import replicates
from models.gap.sealing import Voice, alone, by_confidence, by_line, combine
from models.gap.without_labels import DOC, Foreteller, Foretold

MANY = 10**9


def voice(value, spread=0.0, scatter=0.0, name=DOC, m=4):
    """A method whose replicates have this standard deviation."""
    around = np.tile([-1.0, 1.0], m // 2) * spread * np.sqrt((m - 1) / m)
    values = np.concatenate([[value], value + around])
    n = {"reference": 100, "target": 100}
    return Voice(
        Foretold(name, values, Estimate(value, 0.0, 1.0, "", n, "fraction"), "", ""), scatter
    )


def half(predicted):
    assert predicted.high - predicted.estimate == pytest.approx(
        predicted.estimate - predicted.low, abs=1e-12
    )
    return predicted.high - predicted.estimate


def test_one_method_has_the_chance_of_its_bootstrap_its_scatter_and_the_images():
    assert half(alone(voice(0.5), 100)) == pytest.approx(Z * 0.05)
    assert half(alone(voice(0.5, 0.03), MANY)) == pytest.approx(Z * 0.03, rel=1e-4)
    assert half(alone(voice(0.5, 0.03, 0.04**2), 100)) == pytest.approx(
        Z * np.sqrt(0.03**2 + 0.04**2 + 0.05**2)
    )


def test_methods_that_differ_widen_by_student_and_one_more_draw():
    found = combine([voice(0.8), voice(0.82), voice(0.84)], 0.82, MANY)
    assert found.predicted.estimate == pytest.approx(0.82)
    wide = student.isf(0.025, 2) * 0.02 * np.sqrt(4 / 3)
    assert half(found.predicted) == pytest.approx(wide, rel=1e-3)
    assert (found.n_methods, found.spread_sd) == (3, pytest.approx(0.02))


def test_methods_that_agree_leave_the_images_and_a_quarter_of_the_change():
    same = [voice(0.5), voice(0.5)]
    assert half(combine(same, 0.5, 100).predicted) == pytest.approx(Z * 0.05)
    found = combine(same, 0.9, 100)
    assert found.least_sd == pytest.approx(0.1)
    assert half(found.predicted) == pytest.approx(Z * np.hypot(0.05, 0.1))
    # to half of itself, that is, at the level of the interval
    assert half(combine(same, 0.9, MANY).predicted) == pytest.approx(0.49 * 0.4, rel=1e-3)


def test_the_bootstrap_of_the_mean_keeps_what_methods_share():
    both = [voice(0.5, 0.03), voice(0.5, 0.03)]
    assert combine(both, 0.5, MANY).chance_sd == pytest.approx(0.03)
    against = voice(0.5, -0.03)
    assert combine([both[0], against], 0.5, MANY).chance_sd == pytest.approx(0, abs=1e-9)
    scattered = [voice(0.5), voice(0.5, scatter=0.04**2)]
    assert combine(scattered, 0.5, MANY).chance_sd == pytest.approx(0.02)


def test_degrees_of_freedom_lie_between_those_of_the_methods_and_the_many():
    found = combine([voice(0.49), voice(0.51)], 0.5, 100)
    spread = 1.5 * 2 * 0.01**2
    freedom = (1 + 0.05**2 / spread) ** 2
    assert half(found.predicted) == pytest.approx(
        student.isf(0.025, freedom) * np.sqrt(0.05**2 + spread)
    )


def test_intervals_stay_shares_and_sure_methods_are_not_certain():
    found = combine([voice(1.0), voice(1.0)], 1.0, 50).predicted
    assert (found.estimate, found.high) == (1, 1)
    assert found.low < 1


def test_one_method_is_too_few():
    null = Voice(Foretold(DOC, None, Estimate.unknown("why", n={}, unit="fraction"), "", ""))
    found = combine([voice(0.5), null], 0.5, 100)
    assert found.predicted.estimate is None
    assert "fewer than 2 methods" in found.predicted.reason
    assert alone(null, 100).reason == "why"
    assert combine([voice(0.5), null, voice(0.5)], 0.5, 100).n_methods == 2


def world(n, seed):
    rng = np.random.default_rng(seed)
    confidence = rng.beta(4, 1.5, n)
    return np.arange(n) % 5, confidence, rng.random(n) < confidence


def test_a_set_foretells_itself_and_order_does_not_matter():
    labels, confidence, correct = world(500, 0)
    teller = Foreteller(labels, correct, 500, seed=0)
    voices = by_confidence(teller, (confidence, confidence), (1 - confidence, 1 - confidence))
    found = combine(voices, correct.mean(), 500)
    assert found.predicted.estimate == pytest.approx(correct.mean(), abs=1e-12)
    assert (found.n_methods, found.spread_sd) == (4, pytest.approx(0, abs=1e-12))
    back = combine(voices[::-1], correct.mean(), 500).predicted
    assert (back.low, back.high) == pytest.approx((found.predicted.low, found.predicted.high))


def test_the_line_moves_with_the_reference_and_has_its_models_scatter():
    first = np.array([0.5, 0.6, 0.7, 0.8])
    line = fit(first, first - 0.1 + np.array([0.01, -0.01, -0.01, 0.01]), axis="linear")
    labels, _, correct = world(400, 1)
    drawn = replicates(labels, np.zeros(100, int), seed=0)
    one = by_line(line, correct, drawn, "models")
    a1 = correct.mean()
    assert one.foretold.values[0] == pytest.approx(line.slope * a1 + line.intercept)
    plain = line.predicted(a1)
    assert np.sqrt(one.scatter) == pytest.approx((plain.high - plain.low) / 2 / Z)
    # as accuracy does, times the slope: the same draws
    spread = line.slope * np.std(drawn.reference[correct, 1:].sum(axis=0) / 400, ddof=1)
    assert np.std(one.foretold.values[1:], ddof=1) == pytest.approx(spread, rel=1e-3)


def test_intervals_of_no_shift_cover():
    """What is promised of the easiest case: other images of the same kind."""
    covered = 0
    for seed in range(30):
        labels, confidence, correct = world(2000, seed)
        _, there, right = world(300, 1000 + seed)
        teller = Foreteller(labels, correct, 300, seed=seed)
        voices = by_confidence(teller, (confidence, there), (1 - confidence, 1 - there))
        predicted = combine(voices, correct.mean(), 300).predicted
        covered += predicted.low <= right.mean() <= predicted.high
    assert covered >= 26
