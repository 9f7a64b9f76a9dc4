"""Halves of a test set: findings come from one (explore), verdicts from the other (confirm)."""

import numpy as np
from jaxtyping import Bool, Int, UInt64


def explore_half(
    labels: Int[np.ndarray, " n"], keys: UInt64[np.ndarray, " n"], *, seed: int
) -> Bool[np.ndarray, " n"]:
    """Whether each image is in the explore half; half of each class is, give or take one.

    Parameters
    ----------
    labels
        Class ids.
    keys
        A number for each image that is its own, such as a hash of its path: the half of an image
        does not depend on the order in which images are stored.
    seed
        Of the draw.

    Examples
    --------
    >>> half = explore_half(np.repeat([0, 1], 4), np.arange(8, dtype=np.uint64), seed=0)
    >>> half[:4].sum(), half[4:].sum()
    (np.int64(2), np.int64(2))
    """
    by_key = np.argsort(keys, kind="stable")
    drawn = np.empty(len(labels))
    drawn[by_key] = np.random.default_rng(seed).random(len(labels))
    half = np.empty(len(labels), bool)
    half[np.lexsort((drawn, labels))] = np.arange(len(labels)) % 2 == 0
    return half
