"""How much each feature differs between clusters of train rows within a class."""

import numpy as np
from jaxtyping import Float, Float32, Int
from sklearn.cluster import MiniBatchKMeans

N_CLUSTERS = 20
_LEAST_ROWS = 2  # of a class in a cluster, for its mean to be one


def between_clusters(
    features: Float32[np.ndarray, "n d"], labels: Int[np.ndarray, " n"], *, seed: int
) -> Float[np.ndarray, " d"]:
    """Share of each feature's variance within classes that lies between clusters, float64 [d].

    Clusters are those of the standardised rows with their class's mean taken off, so that they
    are kinds of images across classes (a background, a pose), not classes. A feature with a large
    share means another thing from kind to kind, and a set with another mix of kinds shifts it. 0
    for a feature that is constant within classes.

    Parameters
    ----------
    features
        Train rows.
    labels
        Their classes.
    seed
        Of the clusters.

    Source: the clusters by k-means (D. Sculley 2010, WWW); the share is η² of a one-way analysis
    of variance.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> kind = np.repeat([0, 1], 200)
    >>> X = np.stack([4.0 * kind, np.zeros(400)], axis=1) + rng.normal(size=(400, 2))
    >>> share = between_clusters(X.astype(np.float32), np.tile([0, 1], 200), seed=0)
    >>> bool(share[0] > share[1])
    True
    """
    X = features.astype(np.float64)
    _, column = np.unique(labels, return_inverse=True)
    count = np.bincount(column)
    sums = np.zeros((len(count), X.shape[1]))
    np.add.at(sums, column, X)
    X -= (sums / count[:, None])[column]
    spread = X.std(axis=0)
    X /= np.where(spread > 0, spread, 1.0)
    n_clusters = max(2, min(N_CLUSTERS, len(X) // 20))
    means = MiniBatchKMeans(n_clusters, n_init=3, random_state=seed, batch_size=1024)
    cluster = means.fit_predict(X)
    n = np.bincount(cluster, minlength=n_clusters)
    totals = np.zeros((n_clusters, X.shape[1]))
    np.add.at(totals, cluster, X)
    there = n >= _LEAST_ROWS
    between = (np.square(totals[there]) / n[there][:, None]).sum(axis=0)
    whole = np.square(X).sum(axis=0)
    return np.where(whole > 0, between / np.where(whole > 0, whole, 1.0), 0.0)


def least_stable(share: Float[np.ndarray, " d"], *, part: float) -> Int[np.ndarray, " q"]:
    """Return the columns with the largest shares: that part of them, one at least, rising.

    Examples
    --------
    >>> least_stable(np.array([0.1, 0.9, 0.3]), part=0.5).tolist()
    [1, 2]
    """
    n = min(len(share) - 1, max(1, round(part * len(share))))
    return np.sort(np.argsort(-share, kind="stable")[:n])
