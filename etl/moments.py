"""What one pass over the rows keeps: moments per class that add up, and quantiles per feature.

Every statistic of the SQL views comes from these, so that no query has to touch the vectors.
"""

from typing import Self

import numpy as np
from jaxtyping import Float, Int

# probabilities of the quantiles that are stored
QUANTILES = (0.01, 0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95, 0.99)
# rows from which quantiles are computed: all of ImageNet val, a uniform sample of a train split
# (the rank of a sampled quantile q has standard error sqrt(q(1-q)/65536), at most .002)
SAMPLE_ROWS = 65_536


class ClassMoments:
    """Count, mean, sum of squared deviations, minimum and maximum per class and feature.

    Parts add up exactly (`merge`), whatever the order and the cut: one machine or many.

    Attributes
    ----------
    class_ids : int64 [k], the classes seen so far, in the order of their first row
    n : int64 [k]
    mean, m2, low, high : float64 [k, d]; m2 is the sum of squared deviations from the mean

    Source: T. F. Chan, G. H. Golub and R. J. LeVeque (1983), Algorithms for computing the sample
    variance, The American Statistician 37, eq. 2.1.
    """

    def __init__(self, n_features: int) -> None:
        self.class_ids = np.empty(0, np.int64)
        self.n = np.empty(0, np.int64)
        self.mean = np.empty((0, n_features))
        self.m2 = np.empty((0, n_features))
        self.low = np.empty((0, n_features))
        self.high = np.empty((0, n_features))
        self._slot: dict[int, int] = {}

    @classmethod
    def of(cls, labels: Int[np.ndarray, " n"], features: Float[np.ndarray, "n d"]) -> Self:
        """Moments of some rows.

        Parameters
        ----------
        labels : int64 [n]
        features : float32 or float64 [n, d]

        Examples
        --------
        >>> m = ClassMoments.of(np.array([5, 5, 7]), np.array([[1.0], [3.0], [8.0]]))
        >>> m.class_ids.tolist(), m.mean.tolist(), m.m2.tolist()
        ([5, 7], [[2.0], [8.0]], [[2.0], [0.0]])
        """
        moments = cls(features.shape[1])
        order = np.argsort(labels, kind="stable")
        class_ids, starts, n = np.unique(labels[order], return_index=True, return_counts=True)
        rows = features[order]
        mean = np.add.reduceat(rows, starts, axis=0, dtype=np.float64) / n[:, None]
        deviation = rows - np.repeat(mean, n, axis=0)
        m2 = np.add.reduceat(np.square(deviation, out=deviation), starts, axis=0)
        low = np.minimum.reduceat(rows, starts, axis=0)
        high = np.maximum.reduceat(rows, starts, axis=0)
        moments._put(class_ids, n, mean, m2, low, high)
        return moments

    def merge(self, other: Self) -> None:
        """Take in the moments of further rows."""
        new = np.array([c not in self._slot for c in other.class_ids.tolist()], dtype=bool)
        old = ~new
        if old.any():
            at = np.array([self._slot[c] for c in other.class_ids[old].tolist()])
            n_a, n_b = self.n[at, None], other.n[old, None]
            delta = other.mean[old] - self.mean[at]
            self.mean[at] += delta * (n_b / (n_a + n_b))
            self.m2[at] += other.m2[old] + np.square(delta) * (n_a * n_b / (n_a + n_b))
            self.low[at] = np.minimum(self.low[at], other.low[old])
            self.high[at] = np.maximum(self.high[at], other.high[old])
            self.n[at] += other.n[old]
        if new.any():
            self._put(
                other.class_ids[new],
                other.n[new],
                other.mean[new],
                other.m2[new],
                other.low[new],
                other.high[new],
            )

    def _put(
        self,
        class_ids: np.ndarray,
        n: np.ndarray,
        mean: np.ndarray,
        m2: np.ndarray,
        low: np.ndarray,
        high: np.ndarray,
    ) -> None:
        for class_id in class_ids.tolist():
            self._slot[class_id] = len(self._slot)
        self.class_ids = np.concatenate([self.class_ids, class_ids])
        self.n = np.concatenate([self.n, n])
        self.mean = np.concatenate([self.mean, mean])
        self.m2 = np.concatenate([self.m2, m2])
        self.low = np.concatenate([self.low, low])
        self.high = np.concatenate([self.high, high])


class RowSample:
    """A uniform sample of rows, all of them while they are few.

    Each row draws a random key and the smallest keys stay, so that every row has the same chance
    whatever the length of the stream.
    """

    def __init__(self, n_features: int, *, capacity: int = SAMPLE_ROWS, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._capacity = capacity
        self._keys = np.empty(0)
        self._threshold = 1.0  # a row with a larger key has no chance any more
        self._parts: list[np.ndarray] = [np.empty((0, n_features), np.float32)]
        self.n_seen = 0

    def add(self, features: Float[np.ndarray, "n d"]) -> None:
        """Offer further rows."""
        self.n_seen += len(features)
        keys = self._rng.random(len(features))
        chosen = keys < self._threshold
        self._keys = np.concatenate([self._keys, keys[chosen]])
        self._parts.append(features[chosen])
        if len(self._keys) > self._capacity * 5 // 4:
            self._shrink()

    def rows(self) -> Float[np.ndarray, "m d"]:
        """Return the sample, float32 [min(n_seen, capacity), d]."""
        if len(self._keys) > self._capacity:
            self._shrink()
        elif len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        return self._parts[0]

    def quantiles(self) -> Float[np.ndarray, "q d"]:
        """Quantiles of each feature at `QUANTILES`, linear between order statistics, float64."""
        rows = self.rows()
        return np.concatenate(
            [
                np.quantile(rows[:, j : j + 64].astype(float), QUANTILES, axis=0)
                for j in range(0, rows.shape[1], 64)
            ],
            axis=1,
        )

    def _shrink(self) -> None:
        keep = np.argpartition(self._keys, self._capacity)[: self._capacity]
        self._parts = [np.concatenate(self._parts)[keep]]
        self._keys = self._keys[keep]
        self._threshold = float(self._keys.max())
