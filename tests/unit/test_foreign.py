import io
import json
import pickle
import time
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from models import heads
from models.errors import DamagedHead, InvalidParams
from models.heads import LinearHead, pack, unpack
from models.heads.foreign import (
    Fitted,
    SklearnHead,
    _classifiers,
    check_sklearn,
    fit_sklearn,
    sklearn_head,
    stored,
)
from models.heads.linear import linear_approximation

IDS = np.array([2, 5, 9])


def rows(n=240, d=5, k=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % k
    X = (rng.normal(size=(n, d)) + 4 * rng.normal(size=(k, d))[y]) * 3 + 50
    return X.astype(np.float32), y.astype(np.int64)


def standardised(X):
    mean, scale = X.mean(axis=0, dtype=float), X.std(axis=0, dtype=float)
    return mean, scale, ((X - mean) / scale).astype(np.float32)


def head_of(name, params=None, *, keep=None, **options):
    X, y = rows()
    mean, scale, Z = standardised(X)
    keep = np.ones(len(y), bool) if keep is None else keep(y)
    fitted = fit_sklearn(name, params or {}, Z[keep], y[keep], seed=0)
    return sklearn_head(fitted, mean, scale, IDS, Z, **options), fitted, X, y


@pytest.mark.parametrize(
    "name",
    ["LogisticRegression", "RandomForestClassifier", "KNeighborsClassifier", "LinearSVC",
     "GaussianNB", "MLPClassifier", "HistGradientBoostingClassifier", "RidgeClassifier", "SVC",
     "GaussianProcessClassifier", "CalibratedClassifierCV"],
)  # fmt: skip
def test_a_head_says_what_its_classifier_says_and_comes_back_from_disk(name, tmp_path):
    check_sklearn(name, {})
    params = {"max_iter": 20} if "Hist" in name or "MLP" in name else {}
    head, fitted, X, y = head_of(name, params)
    _, _, Z = standardised(X)
    said = heads.predict(head, X, IDS[y])
    assert (said.predicted == IDS[fitted.estimator.predict(Z)]).all()
    assert said.correct.mean() > 0.8
    if hasattr(fitted.estimator, "predict_proba"):
        expected = np.maximum(fitted.estimator.predict_proba(Z), 1e-7)
        np.testing.assert_allclose(np.exp(heads.scores(head, X)), expected, rtol=1e-3, atol=1e-4)
    arrays, what = pack(head)
    back = unpack(arrays, json.loads(json.dumps(what)))
    np.testing.assert_array_equal(heads.scores(back, X), heads.scores(head, X))
    np.testing.assert_array_equal(back.feature_weights(), head.feature_weights())
    assert isinstance(head, heads.Head)


@pytest.mark.parametrize("name", ["LogisticRegression", "LinearSVC", "RidgeClassifier"])
@pytest.mark.parametrize("absent", [0, 1, 2])
def test_a_class_without_rows_shifts_no_other(name, absent):
    head, _, X, y = head_of(name, keep=lambda y: y != absent)
    said = heads.predict(head, X, IDS[y])
    assert not (said.predicted == IDS[absent]).any()
    assert said.correct[y != absent].mean() > 0.9


def test_two_classes_have_two_columns_that_differ_by_the_margin():
    head, fitted, X, _ = head_of("LinearSVC", keep=lambda y: y != 2)
    found = heads.scores(head, X)
    _, _, Z = standardised(X)
    margin = fitted.estimator.decision_function(Z)
    np.testing.assert_allclose(found[:, 1] - found[:, 0], margin, atol=1e-4)


def test_a_classifier_that_only_predicts_has_ones_and_noughts():
    class Only:
        classes_ = np.array([0, 2])

        def predict(self, X):
            return np.where(X[:, 0] > 0, 2, 0)

    X = np.array([[-1.0], [3.0]], np.float32)
    head = sklearn_head(Fitted("Only", Only()), np.zeros(1), np.ones(1), IDS, X)
    assert heads.predict(head, X, np.array([2, 9])).correct.all()
    assert heads.scores(head, X)[:, [0, 2]].tolist() == [[1, 0], [0, 1]]


def test_the_temperature_divides_all_scores_but_those_of_absent_classes():
    warm, _, X, _ = head_of("GaussianNB", temperature=2.0)
    cold = replace(warm, temperature=1.0)
    np.testing.assert_allclose(heads.scores(warm, X) * 2, heads.scores(cold, X), rtol=1e-6)
    half, *_ = head_of("GaussianNB", temperature=2.0, keep=lambda y: y != 0)
    assert heads.scores(half, X)[0, 0] == np.float32(-1e30)


def test_the_linear_approximation_of_a_linear_head_is_itself():
    head, fitted, X, _ = head_of("LogisticRegression")
    weights = fitted.estimator.coef_.T.astype(np.float32)
    linear = LinearHead(head.mean, head.scale, weights, np.zeros(3, np.float32), IDS)
    _, _, Z = standardised(X)
    found = linear_approximation(heads.scores(linear, X), Z)
    np.testing.assert_allclose(found, linear.feature_weights(), rtol=5e-3)
    np.testing.assert_allclose(head.feature_weights(), linear.feature_weights(), rtol=0.1)
    # what all classes share moves none apart
    shared = heads.scores(linear, X) + 5 * Z[:, :1]
    np.testing.assert_allclose(linear_approximation(shared, Z), found, rtol=1e-4)


def test_a_feature_that_no_tree_looks_at_has_little_weight():
    X, y = rows(d=2)
    X[:, 1] = np.random.default_rng(1).normal(size=len(X))
    mean, scale, Z = standardised(X)
    fitted = fit_sklearn("DecisionTreeClassifier", {"max_depth": 2}, Z, y, seed=0)
    weights = sklearn_head(fitted, mean, scale, IDS, Z).feature_weights()
    assert weights[1] < 0.3 * weights[0]


def test_the_sample_is_thinned_evenly_not_cut():
    X, y = rows(n=10_002, d=2)
    order = np.argsort(y, kind="stable")
    mean, scale, Z = standardised(X[order])
    fitted = fit_sklearn("GaussianNB", {}, Z, y[order], seed=0)
    whole = linear_approximation(np.log(np.maximum(fitted.estimator.predict_proba(Z), 1e-7)), Z)
    np.testing.assert_allclose(
        sklearn_head(fitted, mean, scale, IDS, Z).feature_weights(), whole, rtol=0.1
    )


def test_the_seed_decides_and_is_the_only_way_to_decide():
    X, y = rows()
    _, _, Z = standardised(X)
    one, same, other = (
        fit_sklearn("RandomForestClassifier", {"n_estimators": 5}, Z, y, seed=s).estimator
        for s in (1, 1, 2**40 + 2)
    )
    assert (one.predict_proba(Z) == same.predict_proba(Z)).all()
    assert (one.predict_proba(Z) != other.predict_proba(Z)).any()
    with pytest.raises(InvalidParams, match="it is the seed"):
        check_sklearn("RandomForestClassifier", {"random_state": 1})


def test_warnings_are_handed_back_once_and_not_printed():
    X, y = rows()
    _, _, Z = standardised(X)
    fitted = fit_sklearn("LogisticRegression", {"max_iter": 1}, Z, y, seed=0)
    assert len(fitted.notes) == 1
    assert "failed to converge" in fitted.notes[0]
    assert fit_sklearn("GaussianNB", {}, Z, y, seed=0).notes == ()


def test_scores_that_contradict_predict_are_counted():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 3)).astype(np.float32), np.arange(300) % 3
    X[:, 0] *= 9
    (note,) = fit_sklearn("NearestCentroid", {}, X, y, seed=0).notes
    assert "predict names another class than the scores on" in note


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("LogisticRegresion", {}, "Did you mean LogisticRegression"),
        ("randomforestclassifier", {}, "Did you mean RandomForestClassifier"),
        ("xyz", {}, "There are AdaBoostClassifier"),
        ("StackingClassifier", {}, r"made of others \(estimators\)"),
        ("OneVsRestClassifier", {}, r"made of others \(estimator\)"),
        ("SelfTrainingClassifier", {}, "made of others"),
        ("LogisticRegression", {"c": 1}, "Did you mean C[?]"),
        ("LogisticRegression", {"maxiter": 1}, "Did you mean max_iter"),
        ("GaussianNB", {"zzz": 1}, "It has priors, var_smoothing"),
        ("LogisticRegression", {"C": -1}, "The 'C' parameter of LogisticRegression must be"),
        ("RandomForestClassifier", {"n_estimators": 0}, "n_estimators"),
        ("RandomForestClassifier", {"n_estimators": "many"}, "n_estimators"),
        ("MLPClassifier", {"activation": "x"}, "activation"),
        ("BaggingClassifier", {"estimator": "tree"}, "estimator"),
        ("MultinomialNB", {}, "Negative values"),
        ("SVC", {"decision_function_shape": "ovo"}, "one score a class"),
        ("SVC", {"class_weight": {"0": 2}}, "places"),
        ("RandomForestClassifier", {"n_jobs": 100_000}, "GAP_THREADS"),
    ],
)
def test_what_scikit_learn_will_not_do_is_refused_in_words(name, params, words):
    with pytest.raises(InvalidParams, match=words):
        check_sklearn(name, params)


def test_a_list_that_only_the_tiny_fit_refuses_is_left_to_training():
    priors = {"priors": [0.25] * 4}
    check_sklearn("GaussianNB", priors)
    X, y = rows(k=3)
    with pytest.raises(InvalidParams, match="priors"):
        fit_sklearn("GaussianNB", priors, X, y, seed=0)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("RandomForestClassifier", {"n_estimators": 10**7}),
        ("MLPClassifier", {"hidden_layer_sizes": [10**6, 10**6]}),
        ("MLPClassifier", {"hidden_layer_sizes": 10**9, "max_iter": 10**9}),
        ("LogisticRegressionCV", {"Cs": 10**9}),
        ("GaussianProcessClassifier", {"n_restarts_optimizer": 10**9}),
    ],
)
def test_s_a_tiny_fit_is_tiny_whatever_is_asked(name, params):
    began = time.monotonic()
    check_sklearn(name, params)
    assert time.monotonic() - began < 10


def test_rows_that_cannot_be_scored_are_refused_in_words():
    head, _, X, _ = head_of("RadiusNeighborsClassifier", {"radius": 1.0})
    with pytest.raises(InvalidParams, match="No neighbors found"):
        heads.scores(head, X + 1000)


def test_a_classifier_with_a_type_that_is_not_allowed_is_refused(monkeypatch):
    monkeypatch.setattr("models.heads.foreign.TRUSTED", ())
    with pytest.raises(InvalidParams, match=r"without pickle.*sklearn.tree._tree.Tree"):
        check_sklearn("DecisionTreeClassifier", {})


def test_every_classifier_that_stands_by_itself_is_stored_or_refused_in_words():
    refused = set()
    for name in _classifiers():
        try:
            check_sklearn(name, {})
        except InvalidParams:
            refused.add(name)
    assert refused == {
        "CategoricalNB", "ClassifierChain", "ComplementNB", "FixedThresholdClassifier",
        "MultiOutputClassifier", "MultinomialNB", "OneVsOneClassifier", "OneVsRestClassifier",
        "OutputCodeClassifier", "SelfTrainingClassifier", "StackingClassifier",
        "TunedThresholdClassifierCV", "VotingClassifier",
    }  # fmt: skip


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def with_payload(payload, **changes):
    head, *_ = head_of("GaussianNB")
    arrays, what = pack(head)
    return {**arrays, "estimator": np.frombuffer(payload, np.uint8)}, {**what, **changes}


def test_a_pickle_is_refused_and_never_run(tmp_path):
    marker = tmp_path / "marker"
    payload = pickle.dumps(Evil(marker))
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("schema.json", payload)
        archive.writestr("x.pkl", payload)
    buffer = io.BytesIO()
    torch.save(Evil(marker), buffer)
    for bad in (payload, held.getvalue(), buffer.getvalue(), b"", b"\0" * 40):
        with pytest.raises(DamagedHead):
            unpack(*with_payload(bad))
    assert not marker.exists()
    pickle.loads(payload).close()
    assert marker.exists()


def test_a_type_that_is_not_allowed_is_refused_and_never_built(tmp_path):
    """The schema of a good file, with its class or a function of the machine named in it."""
    good, _ = pack(head_of("GaussianNB")[0])
    marker = tmp_path / "marker"
    schema_of = {
        "a function": {"__class__": "system", "__module__": "os", "__loader__": "FunctionNode",
                       "content": {"module_path": "os", "function": "system"}},
        "an object": {"__class__": "Popen", "__module__": "subprocess",
                      "__loader__": "ObjectNode", "content": {"__class__": "dict",
                      "__module__": "builtins", "__loader__": "DictNode", "content": {},
                      "key_types": {"__class__": "list", "__module__": "builtins",
                                    "__loader__": "ListNode", "content": []}}},
        "something unknown": {"__class__": "x", "__module__": "y", "__loader__": "NoSuchNode"},
    }  # fmt: skip
    with zipfile.ZipFile(io.BytesIO(good["estimator"].tobytes())) as archive:
        schema = json.loads(archive.read("schema.json"))
        rest = {n: archive.read(n) for n in archive.namelist() if n != "schema.json"}
    for content in schema_of.values():
        bad = json.loads(json.dumps(schema))
        attributes = bad["content"]["content"]
        attributes[next(iter(attributes))] = content
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w") as archive:
            archive.writestr("schema.json", json.dumps(bad))
            for name, data in rest.items():
                archive.writestr(name, data)
        with pytest.raises(DamagedHead):
            unpack(*with_payload(held.getvalue()))
    assert not marker.exists()


def test_another_classifier_version_or_shape_than_said_is_refused():
    head, *_ = head_of("GaussianNB")
    arrays, what = pack(head)
    for changes in (
        {"name": "LogisticRegression"}, {"name": "os.system"}, {"name": 1}, {"version": "0.9"},
        {"temperature": "1"},
    ):  # fmt: skip
        with pytest.raises(DamagedHead):
            unpack(arrays, {**what, **changes})
    with pytest.raises(DamagedHead, match="fit each other"):
        unpack({**arrays, "mean": arrays["mean"][:4]}, what)
    with pytest.raises(DamagedHead):
        unpack({**arrays, "class_ids": arrays["class_ids"][:2]}, what)
    with pytest.raises(DamagedHead):
        unpack({**arrays, "estimator": arrays["estimator"].astype(np.int64)}, what)
    unfitted = stored("GaussianNB", _classifiers()["GaussianNB"]())
    with pytest.raises(DamagedHead, match="fitted"):
        unpack({**arrays, "estimator": unfitted}, what)
    assert isinstance(unpack(arrays, what), SklearnHead)


def test_it_agrees_with_scikit_learn_by_itself():
    head, _, X, y = head_of("LogisticRegression", {"C": 0.1})
    _, _, Z = standardised(X)
    theirs = LogisticRegression(C=0.1, random_state=0).fit(Z, y)
    np.testing.assert_allclose(heads.probabilities(head, X), theirs.predict_proba(Z), atol=1e-5)
