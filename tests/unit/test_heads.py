from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from models import heads
from models.errors import (
    InvalidParams,
    NotFiniteInput,
    NoTrainRows,
    TestRowInTraining,
    WrongShape,
)
from models.heads import LinearHead, TrainRows, check_params, train
from models.heads.closed_form import lda, ridge
from models.heads.logistic import Options
from models.heads.logistic import fit as fit_logistic
from models.heads.matrix import TrainMatrix
from models.heads.moments import Moments
from models.heads.training import refit
from models.heads.validation import HOLDOUT_FROM_ROWS, choose, parts_of

PLAIN = Options(early_stopping=False)
QUICK = ["logistic", "lda", "ridge", "nearest_mean", "knn", "cosine", "mlp"]


def part_of(X, y):
    """All rows as one part, standardised."""
    rows = TrainRows(X, y, roles=["train"])
    return TrainMatrix(rows, np.zeros(len(y), int), seed=0).part_of([0])


def moments_of(X, y, k=4):
    blocks = [(torch.from_numpy(X), torch.from_numpy(y))]
    return Moments.of(blocks, k, X.shape[1], torch.device("cpu"))


def blobs(n=300, d=6, k=4, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % k
    centres = rng.normal(size=(k, d)) * 1.5
    X = centres[y] + rng.normal(size=(n, d))
    return X.astype(np.float32), y.astype(np.int64)


def standardised(X):
    return StandardScaler().fit_transform(X.astype(float)).astype(np.float32)


@pytest.mark.parametrize("roles", [["test"], ["train", "test"], ["train", "val"]])
def test_no_row_of_another_role_can_be_handed_to_training(roles):
    X, y = blobs()
    with pytest.raises(TestRowInTraining):
        TrainRows(X, y, roles=roles)


def test_training_takes_nothing_but_train_rows():
    X, y = blobs()
    with pytest.raises(Exception, match="rows"):  # beartype in the tests, attribute error outside
        train((X, y), "lda", seed=0)


def test_rows_and_labels_must_be_there_and_agree():
    X, y = blobs()
    with pytest.raises(NoTrainRows):
        TrainRows(X[:0], y[:0], roles=["train"])
    with pytest.raises((WrongShape, Exception)):
        TrainRows(X, y[:-1], roles=["train"])
    with pytest.raises(NoTrainRows, match="two classes"):
        train(TrainRows(X, np.zeros_like(y), roles=["train"]), "lda", seed=0)


@pytest.mark.parametrize("C", [1e-3, 0.1, 10.0])
def test_logistic_reaches_scikit_learns_minimum(C):
    X, y = blobs()
    X = standardised(X)
    found = next(fit_logistic(part_of(X, y), (C,), PLAIN, seed=0))
    weight, bias = found.weight, found.bias
    assert found.is_converged
    theirs = LogisticRegression(C=C, tol=1e-8, max_iter=5000).fit(X.astype(float), y)

    def objective(W, b):
        scores = torch.from_numpy(X).double() @ W + b
        loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(y), reduction="sum")
        return float(loss + W.square().sum() / (2 * C))

    ours = objective(weight.double(), bias.double())
    best = objective(*(torch.from_numpy(a).double() for a in (theirs.coef_.T, theirs.intercept_)))
    assert ours <= best * (1 + 1e-5)
    # the bias is free: it does not pay the penalty that would pull it to 0
    np.testing.assert_allclose((bias - bias.mean()).numpy(), theirs.intercept_, atol=0.02)


def test_penalties_solved_together_are_those_solved_alone():
    X, y = blobs()
    part = part_of(X, y)
    values = (3.0, 0.01, 0.3)
    together = list(fit_logistic(part, values, PLAIN, seed=0))
    for value, found in zip(values, together, strict=True):
        alone = next(fit_logistic(part, (value,), PLAIN, seed=0))
        np.testing.assert_allclose(found.weight, alone.weight, atol=3e-3)


@pytest.mark.parametrize("s", [0.05, 0.5, 1.0])
def test_lda_agrees_with_scikit_learn(s):
    X, y = blobs()
    X = standardised(X)
    weight, bias = next(lda(moments_of(X, y), (s,)))
    theirs = LinearDiscriminantAnalysis(
        solver="lsqr", covariance_estimator=_PooledShrunk(s, y)
    ).fit(X, y)
    ours = X @ weight.numpy() + bias.numpy()
    expected = theirs.decision_function(X)
    np.testing.assert_allclose(
        ours - ours.mean(axis=1, keepdims=True),
        expected - expected.mean(axis=1, keepdims=True),
        atol=2e-3,
    )


class _PooledShrunk:
    """Covariance estimator for scikit-learn that hands back ours, computed by NumPy."""

    def __init__(self, s, y):
        self.s, self.y = s, y

    def fit(self, X):
        # scikit-learn averages over classes by prior: shrinking is linear, so it adds up
        centred = X - X.mean(axis=0)
        S = centred.T @ centred / len(X)
        self.covariance_ = (1 - self.s) * S + self.s * np.trace(S) / len(S) * np.eye(len(S))
        return self


@pytest.mark.parametrize("alpha", [0.1, 30.0])
def test_ridge_agrees_with_scikit_learn(alpha):
    X, y = blobs(n=203)
    X = standardised(X)
    weight, bias = next(ridge(moments_of(X, y), (alpha,)))
    theirs = Ridge(alpha=alpha).fit(X, np.eye(4)[y])
    np.testing.assert_allclose(weight, theirs.coef_.T, atol=1e-4)
    np.testing.assert_allclose(bias, theirs.intercept_, atol=1e-4)


@pytest.mark.parametrize("head", QUICK)
def test_every_head_learns_and_its_model_is_repeatable(head):
    X, y = blobs(n=400)
    rows = TrainRows(X, y * 10, roles=["train"])
    first, again = (train(rows, head, seed=3) for _ in range(2))
    assert first.top1.estimate > 0.8
    assert first.head.class_ids.tolist() == [0, 10, 20, 30]
    np.testing.assert_array_equal(heads.scores(first.head, X), heads.scores(again.head, X))
    assert first.candidates == again.candidates
    X2, y2 = blobs(n=4000, seed=0)
    assert heads.predict(first.head, X2, y2 * 10).correct.mean() > 0.8


@pytest.mark.parametrize("head", QUICK)
def test_awkward_rows_do_no_harm(head):
    """Class-sorted, one column far from 0, a constant, a duplicate, a class of three rows."""
    X, y = blobs(n=400)
    X = np.column_stack([X, X[:, 0] * 1e4 + 1e6, np.full(len(X), 7.0), X[:, 1]]).astype(np.float32)
    keep = np.sort(np.concatenate([np.flatnonzero(y < 3), np.flatnonzero(y == 3)[:3]]))
    order = np.argsort(y[keep], kind="stable")
    trained = train(TrainRows(X[keep][order], y[keep][order], roles=["train"]), head, seed=0)
    assert trained.top1.estimate > 0.75
    assert np.isfinite(heads.scores(trained.head, X)).all()
    assert (trained.head.feature_weights() >= 0).all()


@pytest.mark.parametrize("head", QUICK)
def test_a_class_without_rows_in_a_fold_does_not_win_what_was_held_out(head):
    """Five classes of one image each: no internal validation can know any of them."""
    X, y = blobs(n=5, k=5)
    trained = train(TrainRows(X, y, roles=["train"]), head, seed=0)
    assert trained.top1.estimate == 0
    assert 0.1 < trained.candidates[0].temperature < 1100
    assert heads.predict(trained.head, X, y).correct.all()


def test_perfect_validation_does_not_ask_for_certainty():
    X, y = blobs(n=200)
    separable = TrainRows(X + np.eye(4, 6, dtype=np.float32)[y] * 15, y, roles=["train"])
    for head in QUICK:
        trained = train(separable, head, seed=0)
        assert trained.top1.estimate == 1
        # 200 right ones say that about one in 200 may be wrong, not that none ever is
        assert 1e-3 < trained.candidates[0].nll < 0.05


def test_a_full_tie_goes_to_the_stronger_regularisation():
    assert choose([1.0] * 3, [0.01 + value / 1e6 for value in (3.0, 1.0, 0.3)], 100) == 2


def test_temperature_makes_probabilities_mean_something():
    X, y = blobs(n=2000)
    for head in QUICK:
        trained = train(TrainRows(X, y, roles=["train"]), head, seed=0)
        predictions = heads.predict(trained.head, *blobs(n=4000, seed=0))
        assert abs(predictions.confidence.mean() - predictions.correct.mean()) < 0.05, head


def test_progress_rises_to_one_and_can_stop_the_training():
    X, y = blobs()
    seen = []
    train(
        TrainRows(X, y, roles=["train"]), "logistic", seed=0, progress=lambda s, _m: seen.append(s)
    )
    assert seen == sorted(seen)
    assert seen[-1] == 1.0

    class Stop(Exception):
        pass

    def stop(share, _message):
        if share > 0.5:
            raise Stop

    with pytest.raises(Stop):
        train(TrainRows(X, y, roles=["train"]), "logistic", seed=0, progress=stop)


@pytest.mark.parametrize(
    ("head", "params"),
    [
        ("forest", {}),
        ("logistic", {"c": 1}),
        ("logistic", {"C": 0}),
        ("logistic", {"C": -1}),
        ("logistic", {"C": "1"}),
        ("logistic", {"C": True}),
        ("logistic", {"C": []}),
        ("logistic", {"C": float("nan")}),
        ("logistic", {"C": float("inf")}),
        ("lda", {"shrinkage": 1.1}),
        ("nearest_mean", {"k": 3}),
    ],
)
def test_a_wrong_hyper_parameter_is_refused(head, params):
    with pytest.raises(InvalidParams):
        check_params(head, params)


def test_hyper_parameters_as_asked_for():
    def candidates(head, params, n=1):
        return heads.kinds.KINDS[head].candidates(head, params, n)

    assert candidates("logistic", {"C": [0.1, 1, 1]}) == [{"C": 1.0}, {"C": 0.1}]  # weak to strong
    assert [c["shrinkage"] for c in candidates("lda", {"shrinkage": [0.5, 0.1]})] == [0.1, 0.5]
    assert candidates("ridge", {"alpha": 5}, n=100) == [{"alpha": 5.0}]
    assert candidates("ridge", {}, n=100)[0]["alpha"] == pytest.approx(0.01)
    both = candidates("knn", {"k": [5, 1], "temperature": 0.1})
    assert both == [{"k": 1, "temperature": 0.1}, {"k": 5, "temperature": 0.1}]


def test_folds_deal_out_every_class():
    y = np.repeat(np.arange(10), 23)
    fold = parts_of(y, seed=0)
    for label in range(10):
        counts = np.bincount(fold[y == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert np.bincount(fold).min() > 35
    assert (fold != parts_of(y, seed=1)).any()


def test_large_train_sets_hold_out_a_twentieth():
    n = HOLDOUT_FROM_ROWS
    X, y = blobs(n=n, d=3)
    trained = train(TrainRows(X, y, roles=["train"]), "lda", seed=0)
    assert "held-out twentieth" in trained.method
    assert trained.top1.n["images"] == n // 20


def test_the_choice_prefers_accuracy_then_loss_then_strength():
    top1, nll = [0.80, 0.81, 0.81, 0.805], [0.9, 0.7, 0.6, 0.8]
    assert choose(top1, nll, 1000) == 2
    # one standard error of .81 at 50,000 rows is .00175; .809 is within, .805 is not
    assert choose([*top1[:3], 0.809], [*nll[:3], 0.62], HOLDOUT_FROM_ROWS) == 3
    # as accurate, but its probabilities are clearly worse
    assert choose([*top1[:3], 0.809], nll, HOLDOUT_FROM_ROWS) == 2
    assert choose([0.80, 0.799], [0.5, 0.9], HOLDOUT_FROM_ROWS) == 0
    # for one part, losses may not decide: they are all the same there
    assert choose([0.80, 0.799], [0.0, 0.0], HOLDOUT_FROM_ROWS) == 1
    assert choose(top1, nll, HOLDOUT_FROM_ROWS) == 2


@pytest.fixture
def linear():
    return LinearHead(
        mean=np.array([1.0, 0.0]),
        scale=np.array([2.0, 1.0]),
        weight=np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]], np.float32),
        bias=np.array([0.0, 0.0, 0.0], np.float32),
        class_ids=np.array([2, 5, 9]),
    )


def test_predictions_by_hand(linear):
    features = np.array([[3.0, 0.0], [1.0, 1.0], [1.0, 1.0]], np.float32)
    found = heads.predict(linear, features, np.array([2, 5, 7]))
    np.testing.assert_allclose(heads.scores(linear, features), [[1, 0, 0], [0, 1, 1], [0, 1, 1]])
    assert found.predicted.tolist() == [2, 5, 5]  # a tie goes to the lower class id
    assert found.correct.tolist() == [True, True, False]
    assert found.in_top5.tolist() == [True, True, False]  # class 7 is unknown: never right
    np.testing.assert_allclose(found.nll[0], np.log(1 + 2 / np.e), rtol=1e-6)
    assert np.isnan(found.nll[2])
    np.testing.assert_allclose(heads.probabilities(linear, features).sum(axis=1), 1)
    np.testing.assert_allclose(
        linear.feature_weights(), [np.sqrt(2 / 3), np.sqrt(2 / 3)], rtol=1e-6
    )


def test_a_head_refuses_other_features(linear):
    with pytest.raises(WrongShape, match="wanted 2 features a row, got 3"):
        heads.scores(linear, np.zeros((1, 3), np.float32))
    with pytest.raises(NotFiniteInput):
        heads.scores(linear, np.array([[np.nan, 0]], np.float32))
    with pytest.raises(NotFiniteInput, match="overflow"):
        heads.scores(
            replace(linear, scale=np.array([1e-30, 1.0])), np.array([[1e30, 0]], np.float32)
        )
    assert heads.scores(linear, np.empty((0, 2), np.float32)).shape == (0, 3)


def test_hard_rows_weigh_more_and_the_average_row_weighs_one():
    """A head that learns more from the rows that a stiff one gets wrong gets more of them right."""
    rng = np.random.default_rng(0)
    y = np.arange(1200) % 2
    X = rng.normal(size=(1200, 3)).astype(np.float32)
    X[:, 0] += 3 * y  # easy for nine of ten
    odd = np.arange(1200) % 10 == 0
    X[odd, 0] = 3 * (1 - y[odd])
    X[odd, 1] += 2 * y[odd]
    rows = TrainRows(X, y.astype(np.int64), roles=["train"])

    def right(hard):
        head = refit(rows, "logistic", {"C": 1.0, "hard": hard}, seed=0)
        return heads.predict(head, X, y).correct

    assert right(20.0)[odd].mean() > right(1.0)[odd].mean() + 0.2
    assert right(20.0)[~odd].mean() < right(1.0)[~odd].mean()
