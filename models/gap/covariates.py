"""Difficulty of an image as the model itself sees it, without any label."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_BLOCK = 4096


@dataclass(frozen=True)
class Covariates:
    """What a model's scores and features say of each image.

    Attributes
    ----------
    confidence : probability of the predicted class, in [0, 1]
    margin : highest score minus the second, at least 0; 0 with one class
    entropy : of the probabilities, in nats
    norm : length of the vector of features, each in train standard deviations from its train mean,
        divided by √d
    """

    confidence: Float[np.ndarray, " n"]
    margin: Float[np.ndarray, " n"]
    entropy: Float[np.ndarray, " n"]
    norm: Float[np.ndarray, " n"]

    def columns(self) -> Float[np.ndarray, "n 4"]:
        """All four, in the order above."""
        return np.column_stack([self.confidence, self.margin, self.entropy, self.norm])


def covariates_of(
    scores: Float[np.ndarray, "n k"],
    features: Float[np.ndarray, "n d"],
    *,
    train_mean: Float[np.ndarray, " d"],
    train_sd: Float[np.ndarray, " d"],
) -> Covariates:
    """Covariates of n images.

    Parameters
    ----------
    scores
        Logits of the head.
    features
        What the head read.
    train_mean, train_sd
        Of each feature over the train rows; constant ones take no part in the norm.

    Examples
    --------
    >>> found = covariates_of(np.log(np.array([[0.75, 0.25]])), np.array([[3.0, 9.0]]),
    ...                       train_mean=np.zeros(2), train_sd=np.array([1.0, 0.0]))
    >>> [round(float(x[0]), 3) for x in (found.confidence, found.margin, found.norm)]
    [0.75, 1.099, 3.0]
    """
    n = len(scores)
    confidence, margin, entropy, norm = (np.empty(n) for _ in range(4))
    moves = train_sd > 0
    scale = np.where(moves, train_sd, 1.0)
    for start in range(0, n, _BLOCK):
        here = slice(start, start + _BLOCK)
        z = scores[here].astype(np.float64)
        z -= z.max(axis=1, keepdims=True)
        e = np.exp(z)
        total = e.sum(axis=1)
        confidence[here] = 1 / total
        entropy[here] = np.log(total) - (e * z).sum(axis=1) / total
        margin[here] = -np.partition(z, -2, axis=1)[:, -2] if z.shape[1] > 1 else 0.0
        standard = (features[here] - train_mean) / scale
        norm[here] = np.sqrt(np.square(standard[:, moves]).mean(axis=1)) if moves.any() else 0.0
    return Covariates(confidence, margin, entropy, norm)


def principal_components(
    reference: Float[np.ndarray, "n1 d"],
    target: Float[np.ndarray, "n2 d"],
    *,
    scale: Float[np.ndarray, " d"],
    n_components: int,
) -> tuple[Float[np.ndarray, "n1 c"], Float[np.ndarray, "n2 c"]]:
    """Both sets on the directions in which they spread most together, each set counting half.

    A direction in which the sets lie apart spreads them too, so that a shift is not missed.

    Parameters
    ----------
    scale
        What each feature is divided by: its train standard deviation. Constant ones take no part.
    """
    keep = scale > 0
    parts = [
        (np.asarray(x[:, keep], np.float32) / scale[keep].astype(np.float32))
        for x in (reference, target)
    ]
    means = [part.mean(axis=0, dtype=np.float64) for part in parts]
    middle = (means[0] + means[1]) / 2
    centred = [part - middle.astype(np.float32) for part in parts]
    spread = sum((part.T @ part).astype(np.float64) / (2 * len(part)) for part in centred)
    _, vectors = np.linalg.eigh(spread)
    turned = vectors[:, ::-1][:, :n_components].astype(np.float32)
    return centred[0] @ turned, centred[1] @ turned
