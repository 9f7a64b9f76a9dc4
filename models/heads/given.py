"""Weights of a head that a file gives: a head alone, or the whole checkpoint of a network."""

import hashlib
import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.errors import BadHeadFile
from models.heads.linear import LinearHead
from models.torchvision_guard import import_torchvision

# where the last layer's weights stand, in the order in which they are looked for
_USUAL = ("", "head", "fc", "classifier", "head.fc", "last_linear", "linear")
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "module")  # as timm has them
_DISTILLED = "head_dist"
# distilled networks whose answer is the mean of two linear heads on one vector of features
_MEAN_OF_TWO = ("efficientformer",)
_SHOWN = 8


@dataclass(frozen=True)
class GivenHead:
    """A head as a file gives it, never trained here.

    Attributes
    ----------
    head : on the features as they come; column j is class j
    weight_keys, bias_keys : names of the tensors; of several, the mean was taken
    sha256 : digest of the file
    notes : what had to be assumed
    """

    head: LinearHead
    weight_keys: tuple[str, ...]
    bias_keys: tuple[str, ...]
    sha256: str
    notes: tuple[str, ...]


def read_head(
    file: Path,
    *,
    backbone: str,
    n_features: int,
    weight: Sequence[str] = (),
    bias: Sequence[str] = (),
) -> GivenHead:
    """Head from `weight` [k, d] or [d, k] and `bias` [k] of a file.

    Parameters
    ----------
    file
        .safetensors, or what `torch.save` writes (only tensors are read: no code in it runs).
    backbone
        Where timm knows a network of this name, its name of the last layer is looked for first.
    n_features
        d, the length of the backbone's vectors.
    weight, bias
        Names of the tensors; of several, the mean is taken. Default: those of the network or the
        usual ones: `weight`, `head.weight`, `fc.weight`, `classifier.weight`, …

    Raises
    ------
    BadHeadFile
    """
    tensors = _tensors(file)
    offset = 0
    if not weight:
        layers, offset = _layers_of(backbone)
        weight = _found(tensors, layers, file)
    bias = bias or [f"{key.removesuffix('weight')}bias" for key in weight]
    for key in (*weight, *bias):
        if key not in tensors:
            raise BadHeadFile(
                f"wanted the tensor {key!r} in {file}, got {_few(tensors)}. Name the tensors: "
                "--weight KEY --bias KEY."
            )
    if len(weight) != len(bias):
        raise BadHeadFile(
            f"wanted a bias for each weight, got {len(weight)} and {len(bias)} names."
        )
    notes: list[str] = []
    pairs = [
        _oriented(tensors[w], tensors[b], n_features, w, b, notes)
        for w, b in zip(weight, bias, strict=True)
    ]
    if len({len(b) for _, b in pairs}) > 1:
        raise BadHeadFile(f"wanted weights of the same classes, got {', '.join(weight)}.")
    W, b = (np.mean(parts, axis=0) for parts in zip(*pairs, strict=True))
    W, b = W[:, offset:], b[offset:]
    if len(weight) > 1:
        notes.append(f"the mean of {' and '.join(weight)} was taken")
    if offset:
        notes.append(f"the first {offset} columns, which are no class, were left out")
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and refused as such
        W, b = np.ascontiguousarray(W, np.float32), b.astype(np.float32)
    if not (np.isfinite(W).all() and np.isfinite(b).all()):
        raise BadHeadFile(f"wanted finite weights, got NaN or infinity in {file}.")
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    head = LinearHead(np.zeros(n_features), np.ones(n_features), W, b, np.arange(len(b)))
    return GivenHead(head, tuple(weight), tuple(bias), sha256, tuple(notes))


def _tensors(file: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file by name."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not file.is_file():
        raise BadHeadFile(f"wanted a file with the weights of a head, got nothing at {file}.")
    try:
        if file.suffix == ".safetensors":
            return {key: value for key, value in load_file(file).items() if _is_plain(value, file)}
        _refuse_packed(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of another pickle protocol; it is refused or read

            content: object = torch.load(  # noqa: TID251
                file, map_location="cpu", weights_only=True
            )
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError,
            KeyError, TypeError, AttributeError, IndexError, AssertionError, NotImplementedError,
            RecursionError, MemoryError, zipfile.BadZipFile) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:200]
        raise BadHeadFile(
            f"wanted tensors in {file}, got: {reason}. Name a .safetensors file, or a .pth with "
            "tensors alone: code in such a file is not run."
        ) from error
    if isinstance(content, Mapping):
        inner = [content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)]
        content = inner[0] if inner else content
    if not isinstance(content, Mapping):
        raise BadHeadFile(f"wanted tensors by name in {file}, got {type(content).__name__}.")
    return {
        str(key).removeprefix("module."): value
        for key, value in content.items()
        if isinstance(value, torch.Tensor) and _is_plain(value, file)
    }


def _refuse_packed(file: Path) -> None:
    """Refuse a .pth whose parts are compressed: torch writes none, and one may unpack without end.

    Raises
    ------
    ValueError
    """
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            n_bytes = sum(part.file_size for part in archive.infolist())
        if n_bytes > file.stat().st_size:
            raise ValueError(f"{n_bytes:,} bytes packed into {file.stat().st_size:,}")


def _is_plain(tensor: torch.Tensor, file: Path) -> bool:
    """Whether a tensor's numbers lie in the file, one by one: none is repeated or left out."""
    return (
        tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        and tensor.numel() * tensor.element_size() <= file.stat().st_size
    )


def _layers_of(backbone: str) -> tuple[list[str], int]:
    """Return the last layers of timm's network of this name, and columns that are no class."""
    import_torchvision()
    import timm

    config: Any = None
    with suppress(RuntimeError):  # a tag that this architecture does not have
        config = timm.get_pretrained_cfg(backbone) if timm.is_model(backbone) else None
    if config is None or not config.classifier:
        return [], 0
    names = config.classifier
    if isinstance(names, str):
        return [names], config.label_offset or 0
    if not backbone.startswith(_MEAN_OF_TWO):
        raise BadHeadFile(
            f"wanted a network whose answer is linear in its features, got {backbone}, which has "
            f"the heads {', '.join(names)} and not one linear layer. Import its predictions "
            "instead: gapscope import-predictions."
        )
    return list(names), config.label_offset or 0


def _found(tensors: Mapping[str, torch.Tensor], layers: list[str], file: Path) -> list[str]:
    """Return the names of the weights: of the network's layers if they are there, else usual."""
    expected = [f"{layer}.weight" for layer in layers]
    if expected and all(key in tensors for key in expected):
        keys = expected
    else:
        usual = (f"{layer}.weight".lstrip(".") for layer in _USUAL)
        keys = [key for key in usual if key in tensors and tensors[key].ndim >= 2][:1]
        if keys and f"{_DISTILLED}.weight" in tensors:
            raise BadHeadFile(
                f"wanted one head in {file}, got {keys[0]} and {_DISTILLED}.weight. Where the "
                "network takes their mean, name both: --weight twice."
            )
    if not keys:
        raise BadHeadFile(
            f"wanted the weights of a head in {file}, got {_few(tensors)}. Name the tensors: "
            "--weight KEY --bias KEY."
        )
    for key in keys:
        normed = f"{key.rpartition('.')[0].rpartition('.')[0]}.bn.weight"
        if normed in tensors:
            raise BadHeadFile(
                f"wanted a head that is linear in the features alone, got {key} behind {normed}. "
                "Fold the two into one weight and bias first."
            )
    return keys


def _oriented(
    weight: torch.Tensor, bias: torch.Tensor, d: int, w: str, b: str, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return weight float64 [d, k] and bias float64 [k]."""
    while weight.ndim > 2 and weight.shape[-1] == 1:  # a convolution of one place
        weight = weight.squeeze(-1)
    k = len(bias) if bias.ndim == 1 else -1
    shape = tuple(weight.shape)
    if shape not in ((k, d), (d, k)) or not weight.is_floating_point():
        raise BadHeadFile(
            f"wanted {w} of shape [k, {d}] or [{d}, k], as the backbone has {d} features, and {b} "
            f"of shape [k], got {list(shape)} and {list(bias.shape)}. Name others: --weight KEY "
            "--bias KEY, or the backbone that this head reads."
        )
    if k == d:
        notes.append(f"{w} is square: its rows were taken as classes, as torch.nn.Linear has them")
    numbers = weight.double().numpy()
    return numbers.T if shape == (k, d) else numbers, bias.double().numpy()


def _few(tensors: Mapping[str, torch.Tensor]) -> str:
    shown = [f"{key} {list(t.shape)}" for key, t in list(tensors.items())[-_SHOWN:]]
    return ("… " if len(tensors) > _SHOWN else "") + (", ".join(shown) or "no tensor")
