"""Corrections that read test inputs: diagnostics of what a shift costs, never a better head.

Each is cross-fitted: what corrects one half of a test set was learnt from its other half, and from
no label. Reference and target are treated alike, so that the reference shows what the correction
does where nothing shifted.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from models.heads import Head, probabilities

_RIDGE = 0.1  # of the mean variance, in covariances
_STEPS = 100
_LEAST_CHANGE = 1e-6


def aligned_means(
    features: Float32[np.ndarray, "n d"],
    first_half: Bool[np.ndarray, " n"],
    train: Float32[np.ndarray, "m d"],
) -> Float32[np.ndarray, "n d"]:
    """Move each half by what the other half's mean differs from that of the train rows.

    Examples
    --------
    >>> X = np.array([[5], [7], [6], [6]], np.float32)
    >>> half = np.array([True, True, False, False])
    >>> aligned_means(X, half, np.array([[1], [1]], np.float32)).ravel().tolist()
    [0.0, 2.0, 1.0, 1.0]
    """
    goal = train.mean(axis=0, dtype=float)
    return _by_halves(
        features, first_half, lambda other, mine: mine - (other.mean(axis=0, dtype=float) - goal)
    )


def coral(
    features: Float32[np.ndarray, "n d"],
    first_half: Bool[np.ndarray, " n"],
    train: Float32[np.ndarray, "m d"],
) -> Float32[np.ndarray, "n d"]:
    """Give each half the mean and covariance of the train rows, as the other half tells it.

    Covariances are shrunk by a tenth of their mean variance.

    Source: B. Sun, J. Feng and K. Saenko (2016), Return of frustratingly easy domain adaptation,
    AAAI; there the train rows are moved, here the images.
    """
    goal, colour = train.mean(axis=0, dtype=float), _root(train, 0.5)

    def change(other: np.ndarray, mine: np.ndarray) -> np.ndarray:
        white = (mine - other.mean(axis=0, dtype=float)) @ _root(other, -0.5)
        return np.asarray(white @ colour + goal)

    return _by_halves(features, first_half, change)


def prior_corrected(
    head: Head,
    features: Float32[np.ndarray, "n d"],
    first_half: Bool[np.ndarray, " n"],
    train_share: Float[np.ndarray, " k"],
) -> Int[np.ndarray, " n"]:
    """Class ids after the mix of classes of the other half was put in place of the train rows'.

    Parameters
    ----------
    train_share
        Share of each class of the head among the train rows, above 0.

    Source: M. Saerens, P. Latinne and C. Decaestecker (2002), Neural Computation 14, 21-41.
    """
    found = np.empty(len(features), np.int64)
    p = probabilities(head, features)
    for half in (first_half, ~first_half):
        prior = _prior(p[~half], train_share)
        found[half] = head.class_ids[(p[half] * (prior / train_share)).argmax(axis=1)]
    return found


def _prior(p: np.ndarray, train_share: np.ndarray) -> np.ndarray:
    """Mix of classes by expectation maximisation."""
    prior = train_share.copy()
    for _ in range(_STEPS):
        weighed = p * (prior / train_share)
        new = (weighed / weighed.sum(axis=1, keepdims=True)).mean(axis=0)
        if np.abs(new - prior).max() < _LEAST_CHANGE:
            break
        prior = new
    return np.asarray(np.maximum(prior, 1e-12))


def _by_halves(
    features: np.ndarray,
    first_half: np.ndarray,
    change: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    found = np.empty_like(features)
    for half in (first_half, ~first_half):
        if half.any():
            found[half] = change(features[~half], features[half].astype(float))
    return found


def _root(rows: np.ndarray, power: float) -> np.ndarray:
    """Power of the shrunk covariance."""
    centred = rows - rows.mean(axis=0, dtype=float)
    covariance = centred.T @ centred / max(1, len(rows) - 1)
    size = np.trace(covariance) / len(covariance)
    covariance = (1 - _RIDGE) * covariance + _RIDGE * size * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.maximum(values, 1e-12) ** power) @ vectors.T)
