"""Heads of another maker: any classifier of scikit-learn on the standardised features.

It is stored by skops, which writes no pickle and builds known types alone; a classifier that
cannot be stored so is refused before it is trained.
"""

import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache, cached_property
from inspect import Parameter, signature
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, UInt8

from models.errors import DamagedHead, InvalidParams
from models.heads.closed_form import ABSENT
from models.heads.linear import Standardiser, linear_approximation

_SAMPLE_ROWS = 5000
_COMPARED_ROWS = 1000
_LEAST_PROBABILITY = 1e-7  # trees and neighbours say 0 of what they have not seen
_TRIAL = {"n": 120, "d": 8, "k": 3}
_TRIAL_STEPS = 2  # of what a trial would only take long over: trees, iterations
_TRIAL_STEPPED = ("n_estimators", "max_iter", "n_restarts_optimizer", "Cs")
_TRIAL_MOST = 1000
_REFUSALS = (ValueError, TypeError, ArithmeticError, LookupError, RuntimeError, AttributeError)
_DISTANCES = ("Euclidean", "Manhattan", "Chebyshev", "Minkowski", "Hamming", "Canberra",
    "BrayCurtis")  # fmt: skip
# types of fitted classifiers beyond those that skops trusts by itself; none of them calls a
# function that a file names
TRUSTED = (
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    "sklearn.gaussian_process.kernels.ConstantKernel",
    "sklearn.gaussian_process.kernels.Product",
    "sklearn.gaussian_process.kernels.RBF",
    *(f"sklearn.metrics._dist_metrics.{name}Distance64" for name in _DISTANCES),
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
)


@dataclass(frozen=True)
class Fitted:
    """A fitted classifier and what was said while it was fitted.

    Attributes
    ----------
    name : of its class in scikit-learn
    estimator : fitted on labels 0 … k-1; those that no row had are absent from its `classes_`
    notes : warnings, each once: that it did not converge, say, or that its `predict` is not the
        class of the highest score
    """

    name: str
    estimator: Any
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SklearnHead:
    """Scores of a scikit-learn classifier on (x - mean) / scale, one column a class.

    log of `predict_proba` where there is one (at least log 1e-7), else `decision_function` (two
    classes: -f/2 and f/2, whose softmax is the logistic function of f), else 1 for the class that
    `predict` names and 0 for the others; all divided by the temperature. A class that the
    classifier has not seen has the score -1e30.

    Attributes
    ----------
    name : of its class in scikit-learn
    estimator : fitted on standardised features and labels 0 … k-1
    mean, scale : float64 [d], of the train rows; scale is 1 for a constant feature
    class_ids : int64 [k], rising; label j of the estimator is class class_ids[j]
    weights : float64 [d], what `feature_weights` answers
    temperature : what the scores are divided by
    """

    name: str
    estimator: Any
    mean: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"]
    class_ids: Int[np.ndarray, " k"]
    weights: Float[np.ndarray, " d"]
    temperature: float = 1.0

    @property
    def n_features(self) -> int:
        """Length of the vectors that it reads."""
        return len(self.mean)

    def block_scores(self, X: Float[torch.Tensor, "n d"]) -> Float[torch.Tensor, "n k"]:
        """Scores of one block of finite float32 features.

        Raises
        ------
        InvalidParams
            scikit-learn will not score these rows with these parameters.
        """
        return self.standard_scores(self._standardiser(X))

    def standard_scores(self, X: Float[torch.Tensor, "n d"]) -> Float[torch.Tensor, "n k"]:
        """Scores of standardised rows.

        Raises
        ------
        InvalidParams
        """
        found = np.full((len(X), len(self.class_ids)), ABSENT, np.float32)
        said = _scores(self.name, self.estimator, X.cpu().numpy())
        found[:, self.estimator.classes_] = said / self.temperature
        return torch.from_numpy(found)

    def with_temperature(self, temperature: float) -> "SklearnHead":
        """Return the head with its scores divided by a temperature."""
        return replace(
            self,
            temperature=self.temperature * temperature,
            weights=self.weights / temperature,
        )

    def feature_weights(self) -> Float[np.ndarray, " d"]:
        """Norm over classes of the centred weights of its best linear approximation."""
        return self.weights

    @cached_property
    def _standardiser(self) -> Standardiser:
        return Standardiser(self.mean, self.scale)


def check_sklearn(name: str, params: Mapping[str, Any]) -> None:
    """Refuse what `fit_sklearn` would refuse, and what could not be stored, by a tiny fit.

    The tiny fit has 120 rows of 8 features in 3 classes. What it refuses of a list may be a matter
    of these sizes (priors of ten classes, say) and is left to the training.

    Raises
    ------
    InvalidParams
        No such classifier or parameter, a value out of range, or a fitted classifier that cannot
        be stored without pickle.

    Examples
    --------
    >>> check_sklearn("LogisticRegresion", {})
    Traceback (most recent call last):
    ...
    models.errors.InvalidParams: wanted a classifier of scikit-learn, got 'LogisticRegresion'. Did
    you mean LogisticRegression, LogisticRegressionCV?
    """
    estimator, _ = _estimator(name, params, seed=0)
    rng = np.random.default_rng(0)
    y = np.arange(_TRIAL["n"]) % _TRIAL["k"]
    X = rng.normal(size=(_TRIAL["n"], _TRIAL["d"])) + y[:, None] - 1
    # a value that is out of range stays so; none makes of a tiny fit one that takes the machine
    few = {key: _few(value, _TRIAL_MOST) for key, value in params.items()}
    steps = {
        key: min(value, _TRIAL_STEPS)
        for key, value in estimator.get_params(deep=False).items()
        if key in _TRIAL_STEPPED and isinstance(value, int | float)
    }
    estimator.set_params(**{**few, **steps})
    try:
        fitted = _fit(name, estimator, X.astype(np.float32), y)
    except InvalidParams as error:
        # scikit-learn's own check of values raises what is both; it knows nothing of sizes
        said = error.__cause__
        is_of_values = isinstance(said, ValueError) and isinstance(said, TypeError)
        if is_of_values or not any(isinstance(v, list | dict) for v in params.values()):
            raise
        return
    stored(fitted.name, fitted.estimator)


def _few(value: Any, most: int) -> Any:
    """Return a parameter with no whole number above `most`; in a list, above the steps."""
    if isinstance(value, list):
        return [_few(one, _TRIAL_STEPS) for one in value]
    return min(value, most) if type(value) is int else value


def fit_sklearn(
    name: str,
    params: Mapping[str, Any],
    X: Float32[np.ndarray, "n d"],
    y: Int[np.ndarray, " n"],
    *,
    seed: int,
) -> Fitted:
    """Fit a classifier of scikit-learn.

    Parameters
    ----------
    name
        One of `sklearn.utils.all_estimators("classifier")` that needs no other estimator.
    params
        As its constructor takes them, but for `random_state`: that is the seed.
    X
        Standardised on these rows.
    y
        In 0 … k-1; not all of them need be there.
    seed
        Of its `random_state`, where it has one.

    Raises
    ------
    InvalidParams
        No such classifier or parameter, or scikit-learn refuses, in its words.

    Examples
    --------
    >>> X = np.array([[-1.0], [1.0]], np.float32)
    >>> fit_sklearn("GaussianNB", {}, X, np.array([0, 2]), seed=0).estimator.classes_
    array([0, 2])
    """
    estimator, notes = _estimator(name, params, seed=seed)
    fitted = _fit(name, estimator, X, y)
    few = X[:: -(-len(X) // _COMPARED_ROWS) or 1]
    best = estimator.classes_[_scores(name, estimator, few).argmax(axis=1)]
    n_other = int((best != estimator.predict(few)).sum())
    if n_other:
        notes += (
            f"predict names another class than the scores on {n_other:,} of {len(few):,} rows; "
            "the scores count",
        )
    return replace(fitted, notes=notes + fitted.notes)


def sklearn_head(
    fitted: Fitted,
    mean: Float[np.ndarray, " d"],
    scale: Float[np.ndarray, " d"],
    class_ids: Int[np.ndarray, " k"],
    X_sample: Float32[np.ndarray, "n d"],
    *,
    temperature: float = 1.0,
) -> SklearnHead:
    """Head of a fitted classifier.

    Parameters
    ----------
    fitted
        On features standardised by `mean` and `scale`, and labels that count `class_ids`.
    mean, scale
        Of the train rows.
    X_sample
        Standardised train rows, of which at most 5,000, evenly spaced, give the linear
        approximation.
    temperature
        What the scores are divided by.

    Raises
    ------
    InvalidParams
        scikit-learn will not score these rows with these parameters.
    """
    X = X_sample[:: -(-len(X_sample) // _SAMPLE_ROWS) or 1]
    said = _scores(fitted.name, fitted.estimator, X) / temperature
    return SklearnHead(
        fitted.name,
        fitted.estimator,
        mean,
        scale,
        class_ids,
        linear_approximation(said, X),
        temperature,
    )


def stored(name: str, estimator: Any) -> UInt8[np.ndarray, " b"]:
    """Bytes of a fitted classifier, in skops' form: no code, and only types that are allowed.

    Raises
    ------
    InvalidParams
        It holds something else.
    """
    import skops.io
    from skops.io.exceptions import UnsupportedTypeException

    try:
        data = skops.io.dumps(estimator)
        others = sorted(set(skops.io.get_untrusted_types(data=data)) - set(TRUSTED))
    except UnsupportedTypeException as error:
        others = [str(error)]
    if others:
        raise InvalidParams(
            f"wanted a classifier that can be stored without pickle, got {name} with "
            f"{', '.join(others)}. Choose other parameters, or another classifier."
        )
    return np.frombuffer(data, np.uint8)


def restored(name: str, data: UInt8[np.ndarray, " b"]) -> Any:
    """Classifier from the bytes that `stored` made; a pickle is refused, never run.

    Raises
    ------
    DamagedHead
        They are no such classifier, or hold a type that is not allowed.
    """
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    if name not in _classifiers():
        raise DamagedHead(f"wanted a classifier of scikit-learn, got {name!r}.")
    try:
        estimator = skops.io.loads(data.tobytes(), trusted=list(TRUSTED))
    except (
        *_REFUSALS, UntrustedTypesFoundException, BadZipFile, zlib.error, ImportError, EOFError,
        OSError,
    ) as error:  # fmt: skip
        raise DamagedHead(
            f"wanted a {name} as skops stores it, got: {' '.join(str(error).split())[:300]}."
        ) from error
    if type(estimator) is not _classifiers()[name] or not hasattr(estimator, "classes_"):
        raise DamagedHead(f"wanted a fitted {name}, got {type(estimator).__name__}.")
    return estimator


@cache
def _classifiers() -> dict[str, type]:
    from sklearn.utils import all_estimators

    return dict(all_estimators("classifier"))


def _estimator(name: str, params: Mapping[str, Any], *, seed: int) -> tuple[Any, tuple[str, ...]]:
    """Return an unfitted classifier with its parameters, and what was said: deprecated, say."""
    known = _classifiers()
    if name not in known:
        near = _near(name, known)
        raise InvalidParams(
            f"wanted a classifier of scikit-learn, got {name!r}. "
            + (f"Did you mean {', '.join(near)}?" if near else f"There are {', '.join(known)}.")
        )
    needed = [
        key
        for key, value in signature(known[name]).parameters.items()
        if value.default is Parameter.empty
    ]
    if needed or name == "SelfTrainingClassifier":
        raise InvalidParams(
            f"wanted a classifier that stands by itself, got {name}, which is made of others "
            f"({', '.join(needed) or 'estimator'}). Name the classifier itself."
        )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        estimator: Any = known[name]()
    has = estimator.get_params(deep=False)
    for key in params:
        if key not in has:
            near = _near(key, has)
            raise InvalidParams(
                f"{name} has no parameter {key!r}. "
                + (f"Did you mean {near[0]}?" if near else f"It has {', '.join(has) or 'none'}.")
            )
    if "random_state" in params:
        raise InvalidParams(
            f"wanted the parameters of {name} without random_state: it is the seed. Leave it out."
        )
    if "n_jobs" in params:
        raise InvalidParams(
            f"wanted the parameters of {name} without n_jobs: GAP_THREADS says how many cores are "
            "used. Leave it out."
        )
    if isinstance(params.get("class_weight"), dict):
        raise InvalidParams(
            "wanted class_weight 'balanced' or none, got an object: its keys would be places "
            "among the classes, not classes. Leave it out."
        )
    if params.get("decision_function_shape") == "ovo":
        raise InvalidParams(
            "wanted one score a class, got decision_function_shape 'ovo', which gives one a pair "
            "of classes. Leave it out."
        )
    chance = {"random_state": seed % 2**32} if "random_state" in has else {}
    return estimator.set_params(**params, **chance), _once(said)


def _near(name: str, among: Mapping[str, Any]) -> list[str]:
    lower = {known.lower(): known for known in among}
    return [lower[found] for found in get_close_matches(name.lower(), lower, n=3, cutoff=0.6)]


def _fit(name: str, estimator: Any, X: np.ndarray, y: np.ndarray) -> Fitted:
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            estimator.fit(X, y)
    except _REFUSALS as error:
        raise InvalidParams(_in_its_words(name, error)) from error
    return Fitted(name, estimator, _once(said))


def _once(said: Sequence[warnings.WarningMessage]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_one_line(warning.message) for warning in said))


def _scores(
    name: str, estimator: Any, X: Float32[np.ndarray, "n d"]
) -> Float[np.ndarray, "n present"]:
    """Scores of the classes that the classifier has seen, in the order of its `classes_`."""
    try:
        if hasattr(estimator, "predict_proba"):
            return np.asarray(np.log(np.maximum(estimator.predict_proba(X), _LEAST_PROBABILITY)))
        if hasattr(estimator, "decision_function"):
            found = np.asarray(estimator.decision_function(X), float)
            return found if found.ndim == 2 else np.stack([-found / 2, found / 2], axis=1)
        said = np.asarray(estimator.predict(X))
        return np.asarray(said[:, None] == estimator.classes_[None, :], float)
    except _REFUSALS as error:
        raise InvalidParams(_in_its_words(name, error)) from error


def _in_its_words(name: str, error: Exception) -> str:
    return f"wanted parameters of {name} that scikit-learn takes, got: {_one_line(error)}"


def _one_line(said: object) -> str:
    return " ".join(str(said).split())[:500] or type(said).__name__
