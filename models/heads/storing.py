"""A head as named arrays and a description in JSON, and back: what is stored holds no code.

Each kind of head has an entry here; nothing else knows how heads are laid out on disk.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from models.errors import DamagedHead
from models.heads.foreign import SklearnHead, restored, stored
from models.heads.head import Head
from models.heads.linear import LinearHead

_LINEAR = {"mean": 1, "scale": 1, "weight": 2, "bias": 1, "class_ids": 1}
_SKLEARN = {"mean": 1, "scale": 1, "weights": 1, "class_ids": 1, "estimator": 1}


def pack(head: Head) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and description of a head.

    Examples
    --------
    >>> zero, one = np.zeros(1), np.ones(1, np.float32)
    >>> arrays, what = pack(LinearHead(zero, zero + 1, one[:, None], one, np.array([7])))
    >>> what, sorted(arrays)
    ({'type': 'linear'}, ['bias', 'class_ids', 'mean', 'scale', 'weight'])
    """
    if isinstance(head, LinearHead):
        return {name: np.ascontiguousarray(getattr(head, name)) for name in _LINEAR}, {
            "type": "linear"
        }
    if isinstance(head, SklearnHead):
        arrays = {n: np.ascontiguousarray(getattr(head, n)) for n in _SKLEARN if n != "estimator"}
        arrays["estimator"] = stored(head.name, head.estimator)
        return arrays, {"type": "sklearn", "name": head.name, "temperature": head.temperature,
            "version": _sklearn_version()}  # fmt: skip
    raise TypeError(f"no way to store {type(head).__name__}")


def unpack(arrays: Mapping[str, np.ndarray], what: Mapping[str, Any]) -> Head:
    """Head from its arrays and description.

    Raises
    ------
    DamagedHead
        They are not those of a head: changed by another hand.
    """
    if what.get("type") == "linear":
        _check(arrays, _LINEAR)
        return LinearHead(**{name: arrays[name] for name in _LINEAR})
    if what.get("type") == "sklearn":
        return _unpack_sklearn(arrays, what)
    raise DamagedHead(f"wanted a known type of head, got {what.get('type')!r}.")


def _check(arrays: Mapping[str, np.ndarray], wanted: Mapping[str, int]) -> None:
    found = {name: array.ndim for name, array in arrays.items()}
    if found != wanted or not all(np.isfinite(array).all() for array in arrays.values()):
        raise DamagedHead(
            f"wanted the tensors {', '.join(wanted)}, all finite, got {', '.join(found) or 'none'}."
        )


def _unpack_sklearn(arrays: Mapping[str, np.ndarray], what: Mapping[str, Any]) -> SklearnHead:
    _check(arrays, _SKLEARN)
    version, name, temperature = (what.get(n) for n in ("version", "name", "temperature"))
    if version != _sklearn_version():
        # what a classifier keeps inside may mean something else there, without an error
        raise DamagedHead(
            f"wanted a head of scikit-learn {_sklearn_version()}, got one of {version}."
        )
    if (
        not isinstance(name, str)
        or not isinstance(temperature, float)
        or arrays["estimator"].dtype != np.uint8
    ):
        raise DamagedHead("wanted name, temperature and bytes of a classifier, got something else.")
    estimator = restored(name, arrays["estimator"])
    d, k = len(arrays["mean"]), len(arrays["class_ids"])
    if (
        getattr(estimator, "n_features_in_", d) != d
        or not np.isin(estimator.classes_, np.arange(k)).all()
    ):
        raise DamagedHead(f"wanted a classifier of {d} features and {k} classes, got another.")
    parts = {n: arrays[n] for n in _SKLEARN if n != "estimator"}
    return SklearnHead(name=name, estimator=estimator, temperature=temperature, **parts)


def _sklearn_version() -> str:
    """Return major and minor version."""
    import sklearn

    return ".".join(sklearn.__version__.split(".")[:2])
