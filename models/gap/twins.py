"""Nearest images of two test sets: the most similar one of the other set, and right twins.

Similarity is the cosine of features standardised by the train rows' moments.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int

_ROWS = 2048
Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Nearest:
    """The most similar row of another set.

    Attributes
    ----------
    place : its row, int64 [n]; −1 where there is none
    similarity : cosine, in [−1, 1], float64 [n]; NaN where there is none
    """

    place: Int[np.ndarray, " n"]
    similarity: Float[np.ndarray, " n"]


def directions(
    features: Float[np.ndarray, "n d"],
    *,
    mean: Float[np.ndarray, " d"],
    sd: Float[np.ndarray, " d"],
) -> Float32[np.ndarray, "n d"]:
    """Standardised features at length 1, float32; features that do not vary are 0.

    Parameters
    ----------
    mean, sd
        Of each feature over the train rows.

    Examples
    --------
    >>> directions(np.array([[3.0, 9.0]]), mean=np.zeros(2), sd=np.array([1.0, 0.0])).tolist()
    [[1.0, 0.0]]
    """
    varies = sd > 1e-7 * np.abs(mean)
    scale = np.where(varies, 1 / np.where(varies, sd, 1.0), 0.0)
    found = np.empty(features.shape, np.float32)
    for start in range(0, len(features), _ROWS):
        z = (features[start : start + _ROWS] - mean) * scale
        length = np.sqrt(np.square(z).sum(axis=1, keepdims=True))
        found[start : start + len(z)] = z / np.maximum(length, 1e-30)
    return found


def nearest_of_both(
    first: Float32[np.ndarray, "n1 d"],
    second: Float32[np.ndarray, "n2 d"],
    *,
    progress: Progress = lambda _share, _message: None,
) -> tuple[Nearest, Nearest]:
    """For each row of one set the most similar row of the other, in both directions.

    Each block of products is read along its rows and along its columns, so that the n1 × n2
    products are made once and never kept.

    Parameters
    ----------
    first, second
        Of `directions`.

    Examples
    --------
    >>> a, b = np.eye(2, dtype=np.float32), np.array([[0.6, 0.8]], np.float32)
    >>> forth, back = nearest_of_both(a, b)
    >>> forth.place.tolist(), back.place.tolist(), round(float(back.similarity[0]), 3)
    ([0, 0], [1], 0.8)
    """
    n1, n2 = len(first), len(second)
    if n1 == 0 or n2 == 0:
        return _none(n1), _none(n2)
    a, b = torch.from_numpy(first), torch.from_numpy(second)
    best1, place1 = torch.full((n1,), -torch.inf), torch.zeros(n1, dtype=torch.int64)
    best2, place2 = torch.full((n2,), -torch.inf), torch.zeros(n2, dtype=torch.int64)
    room = torch.empty(min(_ROWS, n1) * min(_ROWS, n2))
    for start in range(0, n1, _ROWS):
        progress(start / n1, "looking for the nearest images of the other split")
        here = slice(start, min(start + _ROWS, n1))
        for begin in range(0, n2, _ROWS):
            there = slice(begin, min(begin + _ROWS, n2))
            shape = (here.stop - start, there.stop - begin)
            cosine = room[: shape[0] * shape[1]].view(shape)
            torch.mm(a[here], b[there].T, out=cosine)
            _keep(cosine, 1, begin, best1[here], place1[here])
            _keep(cosine, 0, start, best2[there], place2[there])
    return _found(best1, place1), _found(best2, place2)


def right_twins(
    wrong: Float32[np.ndarray, "n2 d"],
    wrong_labels: Int[np.ndarray, " n2"],
    right: Float32[np.ndarray, "n1 d"],
    right_labels: Int[np.ndarray, " n1"],
) -> Nearest:
    """For each row the most similar row of the same class in another set.

    Parameters
    ----------
    wrong, wrong_labels
        Images that a model gets wrong, and their classes.
    right, right_labels
        Images of the other set that it gets right.

    Examples
    --------
    >>> rows = np.eye(2, dtype=np.float32)
    >>> right_twins(rows, np.array([0, 5]), rows, np.array([1, 0])).place.tolist()
    [1, -1]
    """
    place = np.full(len(wrong), -1, np.int64)
    similarity = np.full(len(wrong), np.nan)
    order = np.argsort(right_labels, kind="stable")
    of_class = right_labels[order]
    asked = np.argsort(wrong_labels, kind="stable")
    classes, starts = np.unique(wrong_labels[asked], return_index=True)
    stops = np.append(starts[1:], len(asked))
    first = np.searchsorted(of_class, classes)
    last = np.searchsorted(of_class, classes, side="right")
    for start, stop, begin, end in zip(starts, stops, first, last, strict=True):
        if begin == end:
            continue
        mine, theirs = asked[start:stop], order[begin:end]
        cosine = wrong[mine] @ right[theirs].T
        best = cosine.argmax(axis=1)
        place[mine] = theirs[best]
        similarity[mine] = np.clip(cosine[np.arange(len(mine)), best], -1.0, 1.0)
    return Nearest(place, similarity)


def _keep(
    cosine: torch.Tensor, dim: int, offset: int, best: torch.Tensor, place: torch.Tensor
) -> None:
    values, at = cosine.max(dim=dim)
    nearer = values > best
    best[nearer] = values[nearer]
    place[nearer] = at[nearer] + offset


def _found(best: torch.Tensor, place: torch.Tensor) -> Nearest:
    return Nearest(place.numpy(), np.clip(best.double().numpy(), -1.0, 1.0))


def _none(n: int) -> Nearest:
    return Nearest(np.full(n, -1, np.int64), np.full(n, np.nan))
