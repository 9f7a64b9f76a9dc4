"""What all heads share: parts, memory and disk, checkpoints, options, the ladder."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models import heads
from models.errors import DamagedHead, InvalidParams, NoRoom
from models.heads import Resources, TrainRows, train
from models.heads.ensemble import best_shares
from models.heads.logistic import Options, fit
from models.heads.matrix import TrainMatrix
from models.heads.neighbours import nearest
from models.heads.softmax import Targets, to_residual
from models.heads.validation import Board, held_in, parts_of, rounds_of
from tests.unit.test_heads import blobs

LADDER = ["nearest_mean", "lda", "logistic", "logistic with noise", "knn"]


def rows_of(n=300, seed=0, **kind):
    X, y = blobs(n=n, seed=seed, **kind)
    return TrainRows(X, y, roles=["train"])


class Kept(dict):
    """A checkpoint in memory."""

    def put(self, key, arrays):
        self[key] = {name: array.copy() for name, array in arrays.items()}


class Stop(Exception):
    pass


def test_rows_on_disk_give_the_same_head_as_rows_in_memory(tmp_path):
    small = Resources(memory_limit=100, spool=tmp_path)
    for head in ("logistic", "knn", "mlp"):
        params = {"mlp": {"epochs": 2, "hidden": 8}}.get(head)
        here = train(rows_of(), head, params, seed=1)
        there = train(rows_of(), head, params, seed=1, resources=small)
        X = blobs(n=50, seed=5)[0]
        np.testing.assert_array_equal(heads.scores(here.head, X), heads.scores(there.head, X))
        assert here.candidates == there.candidates
    assert not list(tmp_path.iterdir())  # the file of the rows has no name


def test_no_room_is_said_before_anything_is_trained(tmp_path):
    with pytest.raises(NoRoom, match="GAP_MEMORY"):
        train(rows_of(), "lda", seed=0, resources=Resources(memory_limit=1, spool=tmp_path / "no"))


def test_the_order_of_the_rows_leads_to_no_other_accuracy():
    rows = rows_of(n=400)
    order = np.argsort(rows.labels, kind="stable")
    by_class = TrainRows(rows.features[order], rows.labels[order], roles=["train"])
    for head in ("lda", "logistic"):
        one, other = train(rows, head, seed=0), train(by_class, head, seed=0)
        assert abs(one.top1.estimate - other.top1.estimate) < 0.02


def test_standardised_rows_are_exact_far_from_zero():
    X, y = blobs(n=500)
    far = np.column_stack([X, X[:, 0].astype(np.float64) * 1e4 + 1e6]).astype(np.float32)
    matrix = TrainMatrix(TrainRows(far, y, roles=["train"]), np.zeros(len(y), int), seed=0)
    exact = (far.astype(float) - far.mean(axis=0, dtype=float)) / far.std(axis=0, dtype=float)
    np.testing.assert_allclose(matrix.read(0, 500).numpy(), exact[matrix.order], atol=2e-5)


def test_moments_of_parts_add_up():
    matrix = TrainMatrix(rows_of(n=203), parts_of(blobs(n=203)[1], seed=0), seed=0)
    whole = matrix.part_of(range(5)).moments
    X, y = matrix.read(0, 203).double(), matrix.y
    torch.testing.assert_close(whole.cross, X.T @ X, rtol=1e-5, atol=1e-3)
    for c in range(4):
        torch.testing.assert_close(whole.sums[c], X[y == c].sum(dim=0), rtol=1e-4, atol=1e-3)


def test_a_row_that_is_held_out_is_not_learnt_from():
    y = np.arange(300) % 4
    part = parts_of(y, seed=0)
    matrix = TrainMatrix(rows_of(), part, seed=0)
    for i, one in enumerate(rounds_of(matrix)):
        places = [np.arange(start, stop) for start, stop in one.fit.ranges]
        learnt = matrix.order[np.concatenate(places)]
        assert set(learnt) == set(np.flatnonzero(part != i))
        assert one.fit.n + one.held.n == 300
    assert (held_in(part) == part).all()


def test_large_train_sets_have_halves_to_judge_by_and_rows_to_stop_by():
    y = np.arange(60_000) % 7
    part = parts_of(y, seed=0)
    assert np.bincount(part).tolist() == [1500, 1500, 3000, 54_000]
    held = held_in(part)
    assert (held[part == 3] == 255).all()
    assert set(held[part < 3]) == {0, 1, 2}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Targets(torch.tensor([1])), [0, 1, 0]),
        (Targets(torch.tensor([1]), smoothing=0.3), [0.1, 0.8, 0.1]),
        (Targets(torch.tensor([1]), torch.tensor([2]), torch.tensor([0.75])), [0, 0.75, 0.25]),
    ],
)
def test_the_residual_is_probability_minus_target(wanted, expected):
    scores = torch.tensor([[[0.3, -1.0, 2.0]]])
    p, target = torch.softmax(scores[0, 0], dim=0), torch.tensor(expected)
    loss = to_residual(scores, wanted)
    torch.testing.assert_close(scores[0, 0], p - target)
    torch.testing.assert_close(loss[0].float(), -(target * p.log()).sum())


def test_the_gradient_at_zero_is_known_without_a_pass():
    from models.heads.logistic import _Objective

    part = TrainMatrix(rows_of(), np.zeros(300, int), seed=0).part_of([0])
    for options in (Options(), Options(label_smoothing=0.2), Options(balanced=True)):
        objective = _Objective(part, [0.1, 1.0], options, seed=0, low_precision=False)
        value, gradient = objective.at_start()
        passed, slope = objective.evaluate(torch.arange(2), objective.start())
        torch.testing.assert_close(value, passed, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "params",
    [
        {"label_smoothing": 0.2}, {"loss": "balanced"}, {"loss": "logit_adjusted", "tau": 0.5},
        {"noise": 0.5}, {"dropout": 0.3}, {"mixup": 0.4}, {"averaging": "ema"},
        {"averaging": "swa", "noise": 0.2}, {"early_stopping": False},
    ],
)  # fmt: skip
def test_every_option_learns_and_is_repeatable(params):
    first, again = (train(rows_of(), "logistic", {"C": [1.0, 0.1], **params}, seed=2)
                    for _ in range(2))  # fmt: skip
    assert first.top1.estimate > 0.8
    np.testing.assert_array_equal(first.head.weight, again.head.weight)
    if "averaging" not in params and params.get("loss") != "logit_adjusted":
        plain = train(rows_of(), "logistic", {"C": [1.0, 0.1]}, seed=2)
        same = np.allclose(first.head.weight, plain.head.weight, atol=1e-5)
        # few rows are fitted to the minimum, and classes of one size need no weights
        assert same == (params.get("loss") is not None or "early_stopping" in params)


def test_a_rare_class_is_found_more_often_with_a_balanced_or_adjusted_loss():
    X, y = blobs(n=2000, k=2, d=2)
    keep = (y == 0) | (np.arange(len(y)) % 40 == 1)
    rows = TrainRows(X[keep], y[keep], roles=["train"])
    recall = {}
    for loss in ("plain", "balanced", "logit_adjusted"):
        head = train(rows, "logistic", {"C": 0.1, "loss": loss}, seed=0).head
        recall[loss] = heads.predict(head, X[y == 1], y[y == 1]).correct.mean()
    assert recall["balanced"] > recall["plain"]
    assert recall["logit_adjusted"] > recall["plain"]


def test_monitored_rows_stop_a_fit_and_its_steps_are_taken_again():
    matrix = TrainMatrix(rows_of(n=240, d=60), np.arange(240) % 2, seed=0)
    learn, monitor = matrix.part_of([0]), matrix.part_of([1])
    found = next(fit(learn, [100.0], Options(), seed=0, monitor=monitor))
    assert not found.is_converged
    assert found.iterations < len(found.curve)
    again = next(fit(learn, [100.0], Options(), seed=0, iterations=[found.iterations]))
    torch.testing.assert_close(again.weight, found.weight)


def test_bfloat16_steps_end_in_the_minimum_of_float32():
    part = TrainMatrix(rows_of(), np.zeros(300, int), seed=0).part_of([0])
    plain = Options(early_stopping=False)
    exact, low = (next(fit(part, [0.1], plain, seed=0, low_precision=low)) for low in (False, True))
    torch.testing.assert_close(low.weight, exact.weight, atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("head", "low_precision"),
    [("logistic", False), ("logistic", True), ("mlp", False), ("auto", False)],
)
def test_a_killed_training_goes_on_and_ends_in_the_same_head(head, low_precision, monkeypatch):
    monkeypatch.setattr("models.heads.session.has_fast_bfloat16", lambda _device: low_precision)
    monkeypatch.setattr("models.heads.logistic._KEEP_EVERY_S", 0)
    monkeypatch.setattr("models.heads.network._KEEP_EVERY_S", 0)
    params = {"auto": {"heads": LADDER}, "mlp": {"epochs": 6, "hidden": 8, "weight_decay": 0.1},
              "cosine": {"epochs": 5}}.get(head)  # fmt: skip
    whole = train(rows_of(), head, params, seed=4)
    kept = Kept()
    for stop_at in (0.3, 0.6, 0.9):

        def progress(share, _message, stop_at=stop_at):
            if share > stop_at:
                raise Stop

        with pytest.raises(Stop):
            train(rows_of(), head, params, seed=4, progress=progress, checkpoint=kept)
    assert kept
    resumed = train(rows_of(), head, params, seed=4, checkpoint=kept)
    X = blobs(n=80, seed=7)[0]
    np.testing.assert_array_equal(heads.scores(whole.head, X), heads.scores(resumed.head, X))
    assert resumed.candidates == whole.candidates


@pytest.mark.parametrize("head", ["logistic", "knn", "cosine", "mlp", "ensemble"])
def test_a_stored_head_says_the_same(head):
    params = {"ensemble": {"heads": ["lda", "knn"]}, "mlp": {"epochs": 2, "hidden": 4}}.get(head)
    trained = train(rows_of(), head, params, seed=0).head
    arrays, what = heads.pack(trained)
    again = heads.unpack(arrays, what)
    X = blobs(n=60, seed=3)[0]
    np.testing.assert_array_equal(heads.scores(trained, X), heads.scores(again, X))
    np.testing.assert_array_equal(trained.feature_weights(), again.feature_weights())
    name = next(name for name, array in arrays.items() if array.dtype.kind == "f")
    broken = {**arrays, name: np.full_like(arrays[name], np.nan)}
    with pytest.raises(DamagedHead):
        heads.unpack(broken, what)
    with pytest.raises(DamagedHead):
        heads.unpack({n: a for n, a in arrays.items() if n != name}, what)


def test_auto_keeps_the_best_and_shows_the_whole_ladder():
    found = train(rows_of(n=400), "auto", {"heads": LADDER}, seed=0)
    shown = {c.head for c in found.candidates}
    assert shown == {"nearest_mean", "lda", "logistic", "knn", "ensemble"}
    best = max(c.top1 for c in found.candidates)
    assert found.top1.estimate >= best - 0.02
    assert (found.right == 1).mean() == found.top1.estimate


def test_auto_stops_at_its_budget_and_says_what_it_left_out():
    now = iter(range(0, 10_000, 50))
    found = train(
        rows_of(), "auto", {"heads": LADDER, "budget_s": 1}, seed=0, clock=lambda: next(now)
    )
    assert {c.head for c in found.candidates} == {"nearest_mean"}
    assert len(found.notes) == len(LADDER) - 1
    assert "left out" in found.notes[0]


def test_an_ensemble_weighs_what_is_good():
    y = torch.arange(600) % 3
    good = torch.nn.functional.one_hot(y, 3).float() * 2
    noise = torch.randn(600, 3, generator=torch.Generator().manual_seed(0))
    shares = best_shares([good + 0.5 * noise, noise], y)
    assert shares[0] > 0.9
    assert shares[1] < 0.1


def test_what_is_reported_took_no_part_in_the_choice():
    """Candidates that know nothing: the best of forty looks good, what is reported does not."""
    generator = torch.Generator().manual_seed(0)
    best, reported = [], []
    for _ in range(20):
        y = torch.randint(2, (300,), generator=generator)
        board = Board(y, np.arange(300) % 5)
        for i in range(10):
            board.judge("x", {"i": i}, torch.randn(300, 2, generator=generator), n_fit=1)
        best.append(max(c.top1 for c in board.candidates))
        reported.append(board.right().mean())
    assert np.mean(best) > 0.53
    assert abs(np.mean(reported) - 0.5) < 0.02


def test_neighbours_are_the_nearest():
    generator = torch.Generator().manual_seed(1)
    bank = torch.randn(20_000, 8, generator=generator)
    queries = torch.randn(30, 8, generator=generator)
    similar, where = nearest(queries, bank, 7)
    expected = (queries @ bank.T).topk(7, dim=1)
    torch.testing.assert_close(similar, expected.values)
    assert (where == expected.indices).all()


@pytest.mark.parametrize(
    ("head", "params"),
    [
        ("auto", {"budget_s": 0}), ("auto", {"heads": []}), ("auto", {"heads": ["x"]}),
        ("auto", {"heads": ["lda", "lda"]}), ("auto", {"seconds": 3}),
        ("ensemble", {"heads": ["lda"]}), ("knn", {"k": 0}), ("knn", {"k": 1.5}),
        ("mlp", {"dropout": 1.0}), ("logistic", {"averaging": "mean"}),
        ("logistic", {"early_stopping": 1}), ("sklearn:Nothing", {}), ("cosine", {"scale": 0}),
    ],
)  # fmt: skip
def test_wrong_parameters_are_refused(head, params):
    with pytest.raises(InvalidParams):
        heads.check_params(head, params)


def test_a_head_of_scikit_learn_goes_through_the_same_validation():
    found = train(rows_of(), "sklearn:GaussianNB", {}, seed=0)
    assert found.top1.estimate > 0.8
    assert "5-fold" in found.method
    scores = heads.scores(found.head, blobs(n=20)[0])
    arrays, what = heads.pack(found.head)
    np.testing.assert_array_equal(heads.scores(heads.unpack(arrays, what), blobs(n=20)[0]), scores)
    assert replace(found.head).feature_weights().shape == (6,)
