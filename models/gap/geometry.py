"""Where an image lies among the train rows: near a class, in a place that much lies near (G12)."""

import numpy as np
from jaxtyping import Float, Int

_BLOCK = 4096


def top_similarity(
    features: Float[np.ndarray, "n d"],
    class_means: Float[np.ndarray, "k d"],
    *,
    train_mean: Float[np.ndarray, " d"],
    train_sd: Float[np.ndarray, " d"],
) -> Float[np.ndarray, " n"]:
    """Cosine of each image with the class mean that it points to most, in [−1, 1].

    Images and class means are taken from the train mean, in train standard deviations. NaN where
    an image is the train mean itself, or no class mean differs from it.

    Parameters
    ----------
    class_means
        Mean of each class over the train rows.
    train_mean, train_sd
        Of each feature over the train rows; constant ones take no part.

    Examples
    --------
    >>> top_similarity(np.array([[3.0, 4.0], [-2.0, 0.0]]), np.array([[5.0, 0.0], [0.0, 9.0]]),
    ...                train_mean=np.zeros(2), train_sd=np.ones(2)).round(3).tolist()
    [0.8, 0.0]
    """
    scale = np.where(train_sd > 0, 1 / np.where(train_sd > 0, train_sd, 1.0), 0.0)
    means = _directions(class_means, train_mean, scale)
    means = means[np.isfinite(means).all(axis=1)]
    found = np.full(len(features), np.nan)
    if len(means) == 0:
        return found
    for start in range(0, len(features), _BLOCK):
        here = slice(start, start + _BLOCK)
        found[here] = (_directions(features[here], train_mean, scale) @ means.T).max(axis=1)
    return np.asarray(np.clip(found, -1.0, 1.0))


def _directions(rows: np.ndarray, middle: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32; NaN where a row is the middle."""
    standard = ((rows - middle) * scale).astype(np.float32)
    length = np.linalg.norm(standard, axis=1, keepdims=True)
    return np.asarray(standard / np.where(length > 0, length, np.nan))


def hubness(
    sample: Int[np.ndarray, "s k"], nearest: Int[np.ndarray, "n k"], *, n_train: int
) -> Float[np.ndarray, " n"]:
    """How much of a hub the train rows nearest to each image are; 1 on average over train rows.

    The k-occurrence of a train row is the number of other train rows that have it among their k
    nearest; in many dimensions a few rows, the hubs, are near to very many. An image's hubness is
    the mean k-occurrence of its own k nearest train rows over that of all train rows. No test
    image counts in it, so that its scale does not depend on the sizes of the test sets.

    Parameters
    ----------
    sample
        The k nearest other train rows of each of a sample of train rows; −1 where there are fewer.
    nearest
        The k nearest train rows of each image; −1 likewise. NaN where an image has none.
    n_train
        Number of train rows.

    Source: M. Radovanović, A. Nanopoulos and M. Ivanović (2010), Hubs in space, JMLR 11,
    2487-2531: N_k. Ours: the mean over an image's neighbours, and a sample of the train rows.

    Examples
    --------
    >>> sample = np.array([[1], [0], [0], [0]])  # row 0 is nearest to three of four, row 1 to one
    >>> hubness(sample, np.array([[0], [1], [2]]), n_train=4).tolist()
    [3.0, 1.0, 0.0]
    """
    counts = np.bincount(sample[sample >= 0], minlength=n_train)
    there = nearest >= 0
    sums = np.where(there, counts[np.where(there, nearest, 0)], 0).sum(axis=1)
    n = there.sum(axis=1)
    average = max(int(counts.sum()), 1) / n_train
    return np.asarray(np.where(n > 0, sums / (np.maximum(n, 1) * average), np.nan))
