"""Accuracy without labels: exact on one's own source, right where the belief holds, and honest."""

import numpy as np
import pytest

from models.gap.without_labels import (
    ATC_CONFIDENCE,
    RIGHT,
    TOO_HIGH,
    Foreteller,
    judge,
)
from service.gap.inputs import Inputs
from service.gap.without_labels import compute


def world(n, seed, sharper=0.0):
    """Labels, confidence and whether right; `sharper` makes confidence lie."""
    rng = np.random.default_rng(seed)
    true = rng.beta(4, 1.5, n)
    labels = np.arange(n) % 5
    return labels, np.minimum(true + sharper, 0.999), rng.random(n) < true


def teller(labels, correct, n_target):
    return Foreteller(labels, correct, n_target, seed=0)


@pytest.mark.parametrize("n", [7, 1000])
@pytest.mark.parametrize("ties", [False, True])
def test_a_set_foretells_itself_exactly(n, ties):
    labels, confidence, correct = world(n, 1)
    if ties:
        confidence = confidence.round(1)
    one = teller(labels, correct, n)
    found = (
        one.atc(ATC_CONFIDENCE, confidence, confidence),
        one.doc(confidence, confidence),
        one.cbpe(confidence, confidence),
    )
    for method in found:
        assert method.predicted.estimate == pytest.approx(correct.mean(), abs=1e-12), method.name
    if not ties:  # the threshold is the score of the last image that counts
        k = int(correct.sum())
        t = np.sort(confidence)[::-1][k - 1] if k else np.inf
        assert (confidence >= t).mean() == correct.mean()


def test_atc_is_the_share_above_the_threshold():
    labels, confidence, correct = world(2000, 2)
    _, there, _ = world(500, 3)
    t = np.sort(confidence)[::-1][int(correct.sum()) - 1]
    found = teller(labels, correct, 500).atc(ATC_CONFIDENCE, confidence, there)
    # no score of the target is exactly t, so that nothing is split
    assert found.predicted.estimate == pytest.approx((there >= t).mean(), abs=1e-12)


@pytest.mark.parametrize("correct", [np.zeros(20, bool), np.ones(20, bool)])
def test_all_wrong_and_all_right(correct):
    confidence = np.linspace(0.3, 0.9, 20)
    one = teller(np.zeros(20, int), correct, 20)
    for found in (
        one.atc(ATC_CONFIDENCE, confidence, confidence),
        one.cbpe(confidence, confidence),
    ):
        assert found.predicted.estimate == correct.mean()


def test_methods_are_right_where_confidence_means_the_same_on_both():
    """Accuracy falls because the target has more images of which the model is unsure."""
    labels, confidence, correct = world(8000, 4)
    rng = np.random.default_rng(5)
    kept = rng.choice(8000, 3000, p=(1 - confidence) / (1 - confidence).sum())
    there, truth = confidence[kept], rng.random(3000) < confidence[kept]
    one = teller(labels, correct, 3000)
    assert correct.mean() - truth.mean() > 0.08
    for method in (one.cbpe(confidence, there), one.doc(confidence, there)):
        judged = judge(method, truth, one.drawn)
        assert judged.verdict == RIGHT, method.name
        assert abs(judged.error.estimate) < 0.02


def test_a_lie_of_confidence_is_seen_as_too_high():
    labels, confidence, correct = world(4000, 6)
    _, there, truth = world(2000, 7, sharper=0.15)
    one = teller(labels, correct, 2000)
    judged = judge(one.cbpe(confidence, there), truth, one.drawn)
    assert judged.verdict == TOO_HIGH
    assert judged.covered is False


def test_the_interval_of_the_error_covers_zero_as_often_as_it_says():
    inside = 0
    for i in range(120):
        labels, confidence, correct = world(600, 2 * i)
        _, there, truth = world(300, 2 * i + 1)
        one = teller(labels, correct, 300)
        error = judge(one.doc(confidence, there), truth, one.drawn).error
        inside += error.low <= 0 <= error.high
    assert inside >= 0.88 * 120


def test_rows_in_another_order_and_classes_renamed_change_nothing():
    labels, confidence, correct = world(500, 8)
    _, there, _ = world(200, 9)
    order, other = (
        np.random.default_rng(0).permutation(500),
        np.random.default_rng(1).permutation(200),
    )
    one = teller(labels, correct, 200)
    two = teller(9 - labels[order], correct[order], 200)
    for name in ("doc", "cbpe"):
        first = getattr(one, name)(confidence, there).predicted.estimate
        second = getattr(two, name)(confidence[order], there[other]).predicted.estimate
        assert first == pytest.approx(second, abs=1e-12)


def models_in(n, seed, noise, n_models):
    """Labels and answers of models of rising strength; more noise, more error and disagreement."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 50, n)
    hard = rng.normal(size=n)
    answers = np.column_stack([labels] * n_models)
    for j in range(n_models):
        wrong = hard * 0.7 + rng.normal(size=n) * 0.7 + noise - 0.15 * j > 0
        answers[wrong, j] = rng.integers(0, 50, wrong.sum())
    return labels, answers


def test_agreement_with_many_models_goes_along_their_line():
    y1, here = models_in(20_000, 1, -1.0, 8)
    y2, there = models_in(10_000, 2, -0.5, 8)
    one = teller(y1, here[:, 0] == y1, len(y2))
    found = one.agreement(here, there)
    assert "on the line" in found.method
    assert found.predicted.estimate == pytest.approx((there[:, 0] == y2).mean(), abs=0.03)
    same = teller(y1, here[:, 0] == y1, len(y1)).agreement(here, here)
    assert same.predicted.estimate == pytest.approx((here[:, 0] == y1).mean(), abs=1e-6)


def test_agreement_with_two_models_is_the_fall_of_mean_agreement():
    y1, here = models_in(400, 3, -1.0, 3)
    y2, there = models_in(300, 4, -0.5, 3)
    found = teller(y1, here[:, 0] == y1, len(y2)).agreement(here, there)
    mean = [np.mean([(a[:, 0] == a[:, j]).mean() for j in (1, 2)]) for a in (here, there)]
    wanted = (here[:, 0] == y1).mean() - (mean[0] - mean[1])
    assert found.predicted.estimate == pytest.approx(wanted, abs=1e-6)


def test_no_label_of_the_target_takes_part(client, monkeypatch):
    """With the target's labels and truth scrambled the predictions stay, and only errors move."""
    analysis = client.app.state.analysis
    card = analysis.results.card("logistic")

    def answer():
        inputs = Inputs(analysis.database, analysis.results, card, "val", "v2")
        return inputs, compute(inputs, lambda _share, _message: None)

    inputs, honest = answer()
    n = len(inputs.correct.target)
    scrambled = type(inputs.correct)(inputs.correct.reference, np.zeros(n, bool))
    monkeypatch.setattr(Inputs, "correct", scrambled)
    labels = type(inputs.labels)(inputs.labels.reference, np.full(n, 77))
    monkeypatch.setattr(Inputs, "labels", labels)
    _, blind = answer()
    assert [m.predicted for m in honest.methods] == [m.predicted for m in blind.methods]
    assert blind.target_accuracy.estimate == 0
