"""A head that is linear in the standardised features, and the linear head nearest to any other."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int

from models.errors import HeadsDiffer

_RIDGE = 1e-3  # relative to the variance of a standardised feature


@dataclass(frozen=True)
class LinearHead:
    """Scores f(x) = ((x - mean) / scale) · weight + bias, one per class.

    Attributes
    ----------
    mean, scale : float64 [d], of the train rows; scale is 1 for a constant feature
    weight : float32 [d, k], on standardised features
    bias : float32 [k]
    class_ids : int64 [k], rising; column j of the scores is class class_ids[j]
    """

    mean: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"]
    weight: Float[np.ndarray, "d k"]
    bias: Float[np.ndarray, " k"]
    class_ids: Int[np.ndarray, " k"]

    @property
    def n_features(self) -> int:
        """Length of the vectors that it reads."""
        return len(self.mean)

    def block_scores(self, X: Float[torch.Tensor, "n d"]) -> Float[torch.Tensor, "n k"]:
        """Scores of one block of finite float32 features."""
        return self.standard_scores(self._standardiser(X))

    def standard_scores(self, X: Float[torch.Tensor, "n d"]) -> Float[torch.Tensor, "n k"]:
        """Scores of standardised rows."""
        bias, weight = torch.from_numpy(self.bias), torch.from_numpy(self.weight)
        return torch.addmm(bias.to(X.device), X, weight.to(X.device))

    def with_temperature(self, temperature: float) -> "LinearHead":
        """Return the head with its scores divided by a temperature."""
        by = np.float32(temperature)
        return replace(self, weight=self.weight / by, bias=self.bias / by)

    def feature_weights(self) -> Float[np.ndarray, " d"]:
        """How much each feature moves the scores apart: norm over classes of its centred weights.

        In scores per standard deviation of the train rows, ‖w_j − w̄_j‖₂, float64 [d].
        """
        return norm_of_centred(self.weight)

    @cached_property
    def _standardiser(self) -> "Standardiser":
        return Standardiser(self.mean, self.scale)


class Standardiser:
    """(x − mean) / scale of float32 rows, to float32's own precision, in float32 arithmetic.

    The difference of two near float32 numbers is exact, so that a mean far from 0 does not swallow
    what is left of x: first float32(mean) is taken off, then what that left out.

    Parameters
    ----------
    mean, scale : float64 [d]

    Examples
    --------
    >>> Standardiser(np.array([1e6]), np.array([2.0]))(torch.tensor([[1e6 + 1]]))
    tensor([[0.5000]])
    """

    def __init__(self, mean: Float[np.ndarray, " d"], scale: Float[np.ndarray, " d"]) -> None:
        self._near = torch.from_numpy(mean.astype(np.float32))
        self._rest = torch.from_numpy((mean - self._near.double().numpy()).astype(np.float32))
        # a scale near 0 has an inverse that float32 cannot hold: such columns are divided twice
        root = np.sqrt(scale)
        is_tiny = scale < 1e-30
        self._inverse = torch.from_numpy((1 / np.where(is_tiny, root, scale)).astype(np.float32))
        self._again = torch.from_numpy((1 / np.where(is_tiny, root, 1.0)).astype(np.float32))
        self._is_tiny = bool(is_tiny.any())

    def __call__(self, X: Float[torch.Tensor, "n d"]) -> Float[torch.Tensor, "n d"]:
        """Standardise one block; X itself stays as it is."""
        out = X.sub(self._near).sub_(self._rest).mul_(self._inverse)
        return out.mul_(self._again) if self._is_tiny else out


def norm_of_centred(weight: Float[np.ndarray, "d k"]) -> Float[np.ndarray, " d"]:
    """Norm over classes of the centred weights, float64 [d].

    Examples
    --------
    >>> norm_of_centred(np.array([[1.0, -1.0], [2.0, 2.0]])).round(3)
    array([1.414, 0.   ])
    """
    centred = weight - weight.mean(axis=1, keepdims=True)
    return np.asarray(np.linalg.norm(centred.astype(float), axis=1))


def linear_approximation(
    scores: Float[np.ndarray, "n k"], X: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, " d"]:
    """How much each feature moves the scores apart, by the linear head nearest to them.

    Least squares of the centred scores on the features with a ridge of 1e-3 of a standardised
    feature's variance; then the norm over classes of its weights. Of a head that is linear itself
    this is what `LinearHead.feature_weights` says, up to the ridge.

    Parameters
    ----------
    scores
        Of some train rows.
    X
        Those rows, standardised.

    Examples
    --------
    >>> X = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    >>> linear_approximation(np.stack([X[:, 0], -X[:, 0]], axis=1), X).round(2)
    array([1.41, 0.  ])
    """
    return norm_of_centred(nearest_linear(scores, X)[0])


def nearest_linear(
    scores: Float[np.ndarray, "n k"], X: Float[np.ndarray, "n d"]
) -> tuple[Float[np.ndarray, "d k"], Float[np.ndarray, " k"]]:
    """Weights and bias of the linear head nearest to centred scores (see `linear_approximation`).

    Examples
    --------
    >>> X = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    >>> weight, bias = nearest_linear(np.stack([X[:, 0] + 1, -X[:, 0] - 1], axis=1), X)
    >>> weight.round(2).tolist(), bias.round(2).tolist()
    ([[1.0, -1.0], [0.0, 0.0]], [1.0, -1.0])
    """
    centre = X.mean(axis=0, dtype=float)
    X = X - centre
    apart = scores - scores.mean(axis=1, keepdims=True, dtype=float)
    level = apart.mean(axis=0)
    gram = X.T @ X / len(X) + _RIDGE * np.eye(X.shape[1])
    weight = np.linalg.solve(gram, X.T @ (apart - level) / len(X))
    return weight, level - centre @ weight


def interpolated(a: LinearHead, b: LinearHead, alpha: float) -> LinearHead:
    """Head whose scores are (1 - alpha) · those of `a` + alpha · those of `b`.

    All is put together in float64. The result is centred where the one that was trained on rows
    is (halfway where both were), so that features far from 0 cost no digits.

    Parameters
    ----------
    alpha
        0 gives `a`, 1 gives `b`.

    Raises
    ------
    HeadsDiffer
        They read other features or know other classes.

    Examples
    --------
    >>> zero, one, ids = np.zeros(1), np.ones(1), np.arange(2)
    >>> a, b = (LinearHead(zero, one, np.full((1, 2), w, np.float32), np.full(2, w, np.float32),
    ...         ids) for w in (1.0, 3.0))
    >>> interpolated(a, b, 0.25).weight
    array([[1.5, 1.5]], dtype=float32)
    """
    if a.n_features != b.n_features or not np.array_equal(a.class_ids, b.class_ids):
        raise HeadsDiffer(
            "wanted two heads with the same features and classes, got "
            f"{a.n_features} features and {len(a.class_ids)} classes beside "
            f"{b.n_features} and {len(b.class_ids)}"
            + (
                ", not the same ones."
                if (a.n_features, len(a.class_ids)) == (b.n_features, len(b.class_ids))
                else "."
            )
        )
    trained = [head for head in (a, b) if not is_raw(head)] or [a]
    mean = np.mean([head.mean for head in trained], axis=0)
    scale = np.exp(np.mean([np.log(head.scale) for head in trained], axis=0))
    weight, bias = np.zeros(a.weight.shape), np.zeros(len(a.bias))
    for share, head in ((1 - alpha, a), (alpha, b)):
        weight += share * head.weight * (scale / head.scale)[:, None]
        bias += share * (head.bias + ((mean - head.mean) / head.scale) @ head.weight.astype(float))
    return LinearHead(mean, scale, weight.astype(np.float32), bias.astype(np.float32), a.class_ids)


def is_raw(head: LinearHead) -> bool:
    """Whether its weights are on the features as they come, not on standardised ones."""
    return not head.mean.any() and bool((head.scale == 1).all())
