"""A head as named arrays and a description in JSON, and back: what is stored holds no code.

Each kind of head has an entry here; nothing else knows how heads are laid out on disk.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from models.errors import DamagedHead
from models.heads.ensemble import EnsembleHead
from models.heads.foreign import SklearnHead, restored, stored
from models.heads.head import Head
from models.heads.linear import LinearHead
from models.heads.neighbours import NeighbourHead
from models.heads.network import NetworkHead
from models.heads.selected import SelectedHead

# arrays of each type of head, and their dimensions: the same letter, the same length
_LINEAR = {"mean": "d", "scale": "d", "weight": "dk", "bias": "k", "class_ids": "k"}
_STANDARD = {"mean": "d", "scale": "d", "weights": "d", "class_ids": "k"}
_NEIGHBOURS = _STANDARD | {"bank": "nd", "columns": "n"}
_VOTES = ("n_nearest", "vote_temperature", "temperature")
_LAYERS = {
    "mlp": {"first": "dh", "first_bias": "h", "second": "hk", "skip": "dk", "bias": "k"},
    "cosine": {"weight": "dk", "bias": "k", "sharpness": "1"},
}
_SKLEARN = _STANDARD | {"estimator": "b"}
_WHOLE = ("class_ids", "columns", "estimator")


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
        return _arrays(head, _LINEAR), {"type": "linear"}
    if isinstance(head, NeighbourHead):
        what = {name: getattr(head, name) for name in _VOTES}
        return _arrays(head, _NEIGHBOURS), {"type": "knn", **what}
    if isinstance(head, NetworkHead):
        arrays = {f"layer.{name}": array for name, array in head.arrays.items()}
        what = {"type": "network", "kind": head.kind, "temperature": head.temperature}
        return arrays | _arrays(head, _STANDARD), what
    if isinstance(head, EnsembleHead):
        packed = [pack(member) for member in head.members]
        arrays = {f"{i}.{n}": a for i, (mine, _) in enumerate(packed) for n, a in mine.items()}
        return arrays | {"shares": head.shares}, {
            "type": "ensemble",
            "members": [what for _, what in packed],
        }
    if isinstance(head, SelectedHead):
        arrays, what = pack(head.head)
        arrays = {f"head.{name}": array for name, array in arrays.items()}
        described = {"type": "selected", "n_features": head.n_features, "head": what}
        return arrays | {"columns": head.columns}, described
    if isinstance(head, SklearnHead):
        arrays = _arrays(head, _STANDARD)
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
    if what.get("type") == "knn":
        _check(arrays, _NEIGHBOURS)
        k = len(arrays["class_ids"])
        if not ((arrays["columns"] >= 0) & (arrays["columns"] < k)).all():
            raise DamagedHead(f"wanted a column below {k} for each row, got others.")
        return NeighbourHead(
            **{name: arrays[name] for name in _NEIGHBOURS},
            n_nearest=int(what["n_nearest"]),
            vote_temperature=float(what["vote_temperature"]),
            temperature=float(what["temperature"]),
        )
    if what.get("type") == "network":
        return _network(arrays, what)
    if what.get("type") == "ensemble":
        return _ensemble(arrays, what)
    if what.get("type") == "selected":
        return _selected(arrays, what)
    if what.get("type") == "sklearn":
        return _unpack_sklearn(arrays, what)
    raise DamagedHead(f"wanted a known type of head, got {what.get('type')!r}.")


def _check(arrays: Mapping[str, np.ndarray], wanted: Mapping[str, str]) -> None:
    if set(arrays) != set(wanted) or not all(
        array.dtype.kind in ("iu" if name in _WHOLE else "f") and np.isfinite(array).all()
        for name, array in arrays.items()
    ):
        raise DamagedHead(
            f"wanted the tensors {', '.join(wanted)}, all finite numbers, got "
            f"{', '.join(arrays) or 'none'}."
        )
    lengths: dict[str, int] = {"1": 1}
    for name, letters in wanted.items():
        shape = arrays[name].shape
        if len(shape) != len(letters) or any(
            lengths.setdefault(letter, n) != n for letter, n in zip(letters, shape, strict=True)
        ):
            raise DamagedHead(f"wanted tensors that fit each other, got {name} of {list(shape)}.")


def _arrays(head: Head, names: Mapping[str, str]) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(getattr(head, name)) for name in names}


def _network(arrays: Mapping[str, np.ndarray], what: Mapping[str, Any]) -> NetworkHead:
    kind = what.get("kind")
    if kind not in _LAYERS:
        raise DamagedHead(f"wanted a network of kind {', '.join(_LAYERS)}, got {kind!r}.")
    layers = {f"layer.{name}": ndim for name, ndim in _LAYERS[kind].items()}
    _check(arrays, layers | _STANDARD)
    return NetworkHead(
        kind=kind,
        arrays={name.removeprefix("layer."): arrays[name] for name in layers},
        temperature=float(what["temperature"]),
        **{name: arrays[name] for name in _STANDARD},
    )


def _ensemble(arrays: Mapping[str, np.ndarray], what: Mapping[str, Any]) -> EnsembleHead:
    members = []
    for i, member in enumerate(what.get("members", [])):
        prefix = f"{i}."
        mine = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
        members.append(unpack(mine, member))
    shares = arrays.get("shares")
    if not members or shares is None or shares.shape != (len(members),):
        raise DamagedHead("wanted an ensemble with a share for each member, got another.")
    if not np.isfinite(shares).all() or len({m.n_features for m in members}) > 1:
        raise DamagedHead("wanted members over the same features with finite shares.")
    return EnsembleHead(tuple(members), shares)


def _selected(arrays: Mapping[str, np.ndarray], what: Mapping[str, Any]) -> SelectedHead:
    mine = {n.removeprefix("head."): a for n, a in arrays.items() if n.startswith("head.")}
    head = unpack(mine, what.get("head", {}))
    columns, n_features = arrays.get("columns"), what.get("n_features")
    if (
        columns is None
        or not isinstance(n_features, int)
        or columns.shape != (head.n_features,)
        or columns.dtype.kind != "i"
        or not ((columns >= 0) & (columns < n_features)).all()
    ):
        raise DamagedHead("wanted a column for each feature that the head reads, got others.")
    return SelectedHead(head, columns, n_features)


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
    parts = {n: arrays[n] for n in _STANDARD}
    return SklearnHead(name=name, estimator=estimator, temperature=temperature, **parts)


def _sklearn_version() -> str:
    """Return major and minor version."""
    import sklearn

    return ".".join(sklearn.__version__.split(".")[:2])
