"""What one pass over the rows keeps: moments per class that add up, and quantiles per feature.

Every statistic of the SQL views comes from these, so that no query has to touch the vectors.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import numpy as np
from jaxtyping import Float, Int

from etl.kernels import accumulate

# probabilities of the quantiles that are stored
QUANTILES = (0.01, 0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95, 0.99)
# rows from which quantiles are computed: all of ImageNet val, a uniform sample of a train split
# (the rank of a sampled quantile q has standard error sqrt(q(1-q)/65536), at most .002; beyond
# 1,024 features the sample has fewer rows, so that it takes no more memory)
SAMPLE_ROWS = 65_536
SAMPLE_BYTES = 4 * SAMPLE_ROWS * 1024
_FEATURES_AT_ONCE = 16  # columns turned to rows and sorted in the cache


class ClassMoments:
    """Count, mean, sum of squared deviations, minimum and maximum per class and feature.

    Rows are taken in one after the other in float64, so that the answer does not depend on how the
    stream was cut; parts of a split add up (`merge`): one machine or many.

    The k classes are in the order in which they came; n is int64 [k]; mean, m2, low and high are
    float64 [k, d].

    Source: B. P. Welford (1962), Note on a method for calculating corrected sums of squares and
    products, Technometrics 4, for a row; T. F. Chan, G. H. Golub and R. J. LeVeque (1983),
    Algorithms for computing the sample variance, The American Statistician 37, eq. 2.1, for a part.
    """

    def __init__(self, n_features: int) -> None:
        self._slot: dict[int, int] = {}
        self._n = np.zeros(0, np.int64)
        self._mean, self._m2, self._low, self._high = np.zeros((4, 0, n_features))

    @classmethod
    def of(cls, labels: Int[np.ndarray, " n"], features: Float[np.ndarray, "n d"]) -> Self:
        """Return the moments of some rows.

        Examples
        --------
        >>> m = ClassMoments.of(np.array([5, 5, 7]), np.array([[1.0], [3.0], [8.0]], np.float32))
        >>> m.class_ids.tolist(), m.mean.tolist(), m.m2.tolist()
        ([5, 7], [[2.0], [8.0]], [[2.0], [0.0]])
        """
        moments = cls(features.shape[1])
        moments.add(labels, features)
        return moments

    @property
    def class_ids(self) -> Int[np.ndarray, " k"]:
        """Classes seen so far."""
        return np.fromiter(self._slot, np.int64, len(self._slot))

    @property
    def n(self) -> Int[np.ndarray, " k"]:
        """Rows of each class."""
        return self._n[: len(self._slot)]

    @property
    def mean(self) -> Float[np.ndarray, "k d"]:
        """Mean of each class and feature."""
        return self._mean[: len(self._slot)]

    @property
    def m2(self) -> Float[np.ndarray, "k d"]:
        """Sum of squared deviations from the mean."""
        return self._m2[: len(self._slot)]

    @property
    def low(self) -> Float[np.ndarray, "k d"]:
        """Smallest value."""
        return self._low[: len(self._slot)]

    @property
    def high(self) -> Float[np.ndarray, "k d"]:
        """Largest value."""
        return self._high[: len(self._slot)]

    def add(self, labels: Int[np.ndarray, " n"], features: Float[np.ndarray, "n d"]) -> None:
        """Take in further rows: labels int64 [n], features float32 [n, d]."""
        slots = self._slots(labels)
        accumulate(slots, features, self._n, self._mean, self._m2, self._low, self._high)

    def merge(self, other: Self) -> None:
        """Take in the moments of further rows."""
        at = self._slots(other.class_ids)
        n_a, n_b = self._n[at, None], other.n[:, None]
        delta = other.mean - self._mean[at]
        self._mean[at] += delta * (n_b / (n_a + n_b))
        self._m2[at] += other.m2 + np.square(delta) * (n_a * n_b / (n_a + n_b))
        self._low[at] = np.minimum(self._low[at], other.low)
        self._high[at] = np.maximum(self._high[at], other.high)
        self._n[at] += other.n

    def total(self) -> dict[str, Int[np.ndarray, " d"] | Float[np.ndarray, " d"]]:
        """Moments of each feature over all classes, in the order of the table `feature_moment`.

        Examples
        --------
        >>> m = ClassMoments.of(np.array([5, 5, 7]), np.array([[1.0], [3.0], [8.0]], np.float32))
        >>> [values.tolist() for values in m.total().values()]
        [[3], [4.0], [2.0], [24.0], [1.0], [8.0]]
        """
        n = self.n[:, None]
        mean = (n * self.mean).sum(axis=0) / n.sum()
        return {
            "n_images": np.full(len(mean), n.sum()),
            "mean_value": mean,
            "m2_within": self.m2.sum(axis=0),
            "m2_between": (n * np.square(self.mean - mean)).sum(axis=0),
            "min_value": self.low.min(axis=0),
            "max_value": self.high.max(axis=0),
        }

    def _slots(self, labels: np.ndarray) -> np.ndarray:
        """Row of each label's class in the arrays, which grow where a class is new."""
        classes, inverse = np.unique(labels, return_inverse=True)
        slots = np.array(
            [self._slot.setdefault(c, len(self._slot)) for c in classes.tolist()], np.int64
        )
        if len(self._slot) > len(self._n):
            more = max(len(self._slot) - len(self._n), len(self._n))
            self._n = np.pad(self._n, (0, more))
            self._mean, self._m2, self._low, self._high = (
                np.pad(values, ((0, more), (0, 0)), constant_values=start)
                for values, start in (
                    (self._mean, 0.0),
                    (self._m2, 0.0),
                    (self._low, np.inf),
                    (self._high, -np.inf),
                )
            )
        return slots[inverse]


class RowSample:
    """A uniform sample of rows, all of them while they are few; its memory never grows further.

    Source: J. S. Vitter (1985), Random sampling with a reservoir, ACM Transactions on Mathematical
    Software 11, algorithm R.
    """

    def __init__(self, n_features: int, *, capacity: int = SAMPLE_ROWS, seed: int) -> None:
        capacity = min(capacity, SAMPLE_BYTES // (4 * n_features))
        self._rng = np.random.default_rng(seed)
        # pages of it that no row reaches take no memory
        self._rows = np.empty((capacity, n_features), np.float32)
        self.n_seen = 0

    def add(self, features: Float[np.ndarray, "n d"]) -> None:
        """Offer further rows."""
        capacity, n = len(self._rows), len(features)
        n_free = min(max(capacity - self.n_seen, 0), n)
        self._rows[self.n_seen : self.n_seen + n_free] = features[:n_free]
        # the i-th row of the stream, from 1, draws one of i places and is kept if that exists
        rank = np.arange(self.n_seen + n_free + 1, self.n_seen + n + 1)
        place = (self._rng.random(n - n_free) * rank).astype(np.int64)
        kept = np.flatnonzero(place < capacity)
        self._rows[place[kept]] = features[n_free:][kept]  # of two for one place the later stays
        self.n_seen += n

    @property
    def is_all(self) -> bool:
        """Whether the sample holds every row."""
        return self.n_seen <= len(self._rows)

    def rows(self) -> Float[np.ndarray, "m d"]:
        """Return the sample, float32 [min(n_seen, capacity), d]."""
        return self._rows[: self.n_seen]


def quantiles(rows: Float[np.ndarray, "n d"], n_threads: int) -> Float[np.ndarray, "q d"]:
    """Quantiles of each feature at `QUANTILES`, linear between order statistics, float64.

    Examples
    --------
    >>> quantiles(np.array([[0.0], [1.0], [3.0]], np.float32), 1)[QUANTILES.index(0.75)]
    array([2.])
    """
    place = np.array(QUANTILES) * (len(rows) - 1)
    below = place.astype(np.int64)
    above = np.minimum(below + 1, len(rows) - 1)
    share = (place - below)[:, None]

    def some(first: int) -> np.ndarray:
        columns = np.ascontiguousarray(rows[:, first : first + _FEATURES_AT_ONCE].T)
        columns.sort(axis=1)
        low, high = (columns[:, at].T.astype(np.float64) for at in (below, above))
        return low + (high - low) * share

    with ThreadPoolExecutor(n_threads) as pool:
        parts: Iterable[np.ndarray] = pool.map(some, range(0, rows.shape[1], _FEATURES_AT_ONCE))
        return np.concatenate(list(parts), axis=1)
