"""Which features shift between two test sets, and how much the head leans on them (G9)."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from models.estimate import Estimate, Z

N_PERMUTATIONS = 199
NEARLY_CONSTANT = 0.01  # of the median feature's standard deviation over the train rows
_ROUNDING = 1e-6  # of a feature's mean: what moves less may move by rounding alone
_BLOCK = 8  # features whose keys stay in a core's cache


@dataclass(frozen=True)
class FeatureShift:
    """How one feature differs between reference and target.

    Attributes
    ----------
    feature_id : position in the vector, from 0
    ks : Kolmogorov-Smirnov distance, in [0, 1]
    wasserstein : Wasserstein-1 distance in standard deviations of the train rows
    mean_difference : target minus reference mean in pooled standard deviations (Cohen's d)
    mean_difference_within_classes : the same between images of the same class, averaged over the
        classes in both sets: another mix of classes alone does not move it
    p_value : of the latter, by permutation within classes, adjusted for looking at all features
    head_weight : how much the head leans on it: scores per train standard deviation
    relevance : |shift within classes| in train standard deviations × head weight, scores; 0 where
        the feature is nearly constant over the train rows, for the quotient means nothing there
    is_nearly_constant : see `nearly_constant`
    """

    feature_id: int
    ks: float
    wasserstein: float | None
    mean_difference: Estimate
    mean_difference_within_classes: Estimate
    p_value: float | None
    head_weight: float
    relevance: float
    is_nearly_constant: bool


def feature_shifts(
    reference: Float[np.ndarray, "n1 d"],
    reference_labels: Int[np.ndarray, " n1"],
    target: Float[np.ndarray, "n2 d"],
    target_labels: Int[np.ndarray, " n2"],
    *,
    train_sd: Float[np.ndarray, " d"],
    head_weights: Float[np.ndarray, " d"],
    seed: int,
    progress: Callable[[float, str], None] = lambda _share, _message: None,
) -> list[FeatureShift]:
    """Shift of every feature; first the one that moves the scores most, by `relevance`.

    Features that are nearly constant over the train rows come last.

    Parameters
    ----------
    reference, target
        Features of the two sets, float32.
    reference_labels, target_labels
        Their class ids; rows of classes in one set alone take no part in the numbers within
        classes.
    train_sd
        Standard deviation of each feature over the train rows.
    head_weights
        Of `models.heads.Head.feature_weights`.
    seed
        Of the permutations.
    progress
        Called with the share done and a message.
    """
    progress(0.1, "comparing the distributions of the features")
    n = {"reference": len(reference), "target": len(target)}
    ks, w1 = distances(reference, target)
    d_raw = _cohen_d(reference, target)
    progress(0.4, "comparing features within classes")
    within = _WithinClasses(reference, reference_labels, target, target_labels)
    progress(0.7, "permuting within classes")
    p_values = within.p_values(seed)
    d_within = within.cohen_d()
    flat = nearly_constant(train_sd, reference.mean(axis=0, dtype=float))
    moved = np.divide(np.abs(within.shift), train_sd, out=np.zeros(len(ks)), where=~flat)
    relevance = np.nan_to_num(moved) * head_weights
    return [
        FeatureShift(
            int(j),
            float(ks[j]),
            float(w1[j] / train_sd[j]) if train_sd[j] > 0 else None,
            _estimate_of_d(d_raw[0][j], d_raw[1][j], n),
            _estimate_of_d(d_within[0][j], d_within[1][j], within.n),
            None if np.isnan(p_values[j]) else float(p_values[j]),
            float(head_weights[j]),
            float(relevance[j]),
            bool(flat[j]),
        )
        for j in np.lexsort((np.arange(len(ks)), -relevance, flat))
    ]


def nearly_constant(
    train_sd: Float[np.ndarray, " d"], means: Float[np.ndarray, " d"]
) -> Bool[np.ndarray, " d"]:
    """Whether a feature hardly moves over the train rows, so that shift / train sd means nothing.

    Its train standard deviation is 0, below 1 % of the median feature's (of those that move), or
    within the rounding of its mean.

    Parameters
    ----------
    train_sd
        Standard deviation of each feature over the train rows.
    means
        Where each feature lies, in its own unit.

    Examples
    --------
    >>> nearly_constant(np.array([0.0, 1.0, 2.0, 1e-3]), np.zeros(4)).tolist()
    [True, False, False, True]
    """
    moves = train_sd > 0
    if not moves.any():
        return np.ones(len(train_sd), bool)
    least = np.maximum(NEARLY_CONSTANT * np.median(train_sd[moves]), _ROUNDING * np.abs(means))
    return np.asarray(~moves | (train_sd < least))


def distances_within_classes(
    a: Float[np.ndarray, "n d"],
    a_labels: Int[np.ndarray, " n"],
    b: Float[np.ndarray, "m d"],
    b_labels: Int[np.ndarray, " m"],
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """`distances` after each class's mean over both sets was taken off its rows.

    What tells classes apart no longer widens the distributions, so that a shift within classes
    shows; rows of classes in one set alone take no part. NaN where no class is in both sets.

    Examples
    --------
    >>> a, b = np.array([[0.0], [8.0]]), np.array([[1.0], [9.0]])
    >>> ks, w1 = distances_within_classes(a, np.array([0, 1]), b, np.array([0, 1]))
    >>> ks.tolist(), w1.tolist()
    ([1.0], [1.0])
    """
    within = _WithinClasses(a, a_labels, b, b_labels)
    if min(within.n.values()) == 0:
        return np.full(a.shape[1], np.nan), np.full(a.shape[1], np.nan)
    n_a = within.n["reference"]
    return distances(within.rows[:n_a], within.rows[n_a:])


def distances(
    a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """Kolmogorov-Smirnov and Wasserstein-1 distance of each column, by one sort a column.

    Examples
    --------
    >>> ks, w1 = distances(np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]]))
    >>> ks.tolist(), w1.tolist()
    ([0.5], [1.0])
    """
    d, n, m = a.shape[1], len(a), len(b)
    ks, w1 = np.empty(d), np.empty(d)

    def compare(start: int) -> None:
        here = slice(start, min(start + _BLOCK, d))
        keys = np.concatenate([_sort_keys(a[:, here], 0), _sort_keys(b[:, here], 1)]).T.copy()
        keys.sort(axis=1)
        is_b = (keys & 1).astype(np.int64)
        apart = np.cumsum((n + m) * is_b - m, axis=1)[:, :-1] / (n * m)
        width = np.diff(_values(keys).astype(float), axis=1)
        # inside a run of ties the distributions have not both stepped yet: only its end counts
        apart = np.where(width > 0, np.abs(apart), 0.0)
        ks[here] = apart.max(axis=1, initial=0.0)
        w1[here] = (apart * width).sum(axis=1)

    with ThreadPoolExecutor() as pool:  # NumPy sorts without holding the interpreter
        list(pool.map(compare, range(0, d, _BLOCK)))
    return ks, w1


def _sort_keys(x: np.ndarray, mark: int) -> np.ndarray:
    """Whole numbers that sort as the float32 values do, with a mark in the lowest bit.

    Sorting these is several times faster than sorting positions by value.
    """
    bits = (x.astype(np.float32) + np.float32(0)).view(np.uint32)  # -0 becomes 0
    flip = np.where(bits >> 31, np.uint32(0xFFFFFFFF), np.uint32(0x80000000))
    return ((bits ^ flip).astype(np.uint64) << np.uint64(1)) | np.uint64(mark)


def _values(keys: np.ndarray) -> np.ndarray:
    bits = (keys >> np.uint64(1)).astype(np.uint32)
    flip = np.where(bits >> 31, np.uint32(0x80000000), np.uint32(0xFFFFFFFF))
    return np.asarray((bits ^ flip).view(np.float32))


def permutation_p_values(
    a: Float[np.ndarray, "n d"],
    a_labels: Int[np.ndarray, " n"],
    b: Float[np.ndarray, "m d"],
    b_labels: Int[np.ndarray, " m"],
    *,
    seed: int,
) -> Float[np.ndarray, " d"]:
    """P-value of each column's difference of means within classes, adjusted for all columns.

    Which set a row belongs to is permuted within its class, so that the class mix stays as it is.
    The statistic is Welch's t, so that another spread alone is not taken for another mean. (1 +
    number of permutations whose largest |t| reaches this column's) / (1 + permutations); NaN where
    there is nothing to permute.

    Source: P. H. Westfall and S. S. Young (1993), Resampling-Based Multiple Testing, algorithm
    2.5 (single step); A. Janssen (1997), Statistics & Probability Letters 36, 9-21 (studentised).
    """
    return _WithinClasses(a, a_labels, b, b_labels).p_values(seed)


class _WithinClasses:
    """Difference of means of two sets between rows of the same class.

    With class weights w_c = n_ac n_bc / (n_ac + n_bc) the weighted difference Σ w_c (mean_bc −
    mean_ac) is the sum over set b of the rows centred on their class's mean over both sets: one
    product with the indicator of b, and so for every permutation of it.
    """

    def __init__(
        self, a: np.ndarray, a_labels: np.ndarray, b: np.ndarray, b_labels: np.ndarray
    ) -> None:
        both = np.intersect1d(a_labels, b_labels)
        in_a, in_b = np.isin(a_labels, both), np.isin(b_labels, both)
        labels = np.concatenate([a_labels[in_a], b_labels[in_b]])
        self._d = a.shape[1]
        self.n = {"reference": int(in_a.sum()), "target": int(in_b.sum())}
        self._column = np.searchsorted(both, labels)
        self._is_b = np.arange(len(labels)) >= in_a.sum()
        counts = np.bincount(self._column, minlength=len(both))
        n_b = np.bincount(self._column, self._is_b, minlength=len(both))
        n_a = counts - n_b
        weight = n_a * n_b / np.maximum(counts, 1)
        self._weight = float(weight.sum())
        # variance of the weighted difference: v_a · per_a + v_b · per_b
        self._per_a = float((weight**2 / np.maximum(n_a, 1)).sum())
        self._per_b = float((weight**2 / np.maximum(n_b, 1)).sum())
        # reference first, each less its class's mean over both sets
        self.rows = self._centred(np.concatenate([a[in_a], b[in_b]]), counts)

    @cached_property
    def _squares(self) -> np.ndarray:
        return np.asarray(np.square(self.rows))

    @cached_property
    def _total(self) -> np.ndarray:
        return np.asarray(self._squares.sum(axis=0, dtype=float))

    def _centred(self, rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
        order = np.argsort(self._column, kind="stable")
        if len(order) == 0:
            return np.empty((0, self._d), np.float32)
        starts = np.cumsum(counts) - counts
        means = np.add.reduceat(rows[order], starts, axis=0, dtype=float) / counts[:, None]
        return np.asarray(rows - means[self._column], dtype=np.float32)

    @property
    def shift(self) -> Float[np.ndarray, " d"]:
        """Target minus reference, in the feature's own unit; NaN where no class is in both."""
        if self._weight == 0:
            return np.full(self._d, np.nan)
        return np.asarray(self.rows[self._is_b].sum(axis=0, dtype=float) / self._weight)

    def cohen_d(self) -> tuple[np.ndarray, np.ndarray]:
        """Shift over the pooled standard deviation within classes, and its standard error."""
        v_a, v_b = self._variances(self._is_b[None, :].astype(np.float32))
        spread = np.sqrt((v_a[0] + v_b[0]) / 2)
        if self._weight == 0:
            return np.full(self._d, np.nan), np.full(self._d, np.nan)
        spread[spread == 0] = np.nan
        d = self.shift / spread
        of_means = (v_a[0] * self._per_a + v_b[0] * self._per_b) / self._weight**2 / spread**2
        return d, np.sqrt(of_means + d**2 / (2 * len(self.rows)))

    def p_values(self, seed: int) -> Float[np.ndarray, " d"]:
        """See `permutation_p_values`."""
        if self._weight == 0:
            return np.full(self._d, np.nan)
        observed = self._abs_t(self._is_b[None, :].astype(np.float32))[0]
        largest = self._abs_t(self._permuted(np.random.default_rng(seed))).max(axis=1)
        reached = (largest[:, None] >= observed[None, :] * (1 - 1e-6)).sum(axis=0)
        return np.asarray((1 + reached) / (1 + N_PERMUTATIONS))

    def _variances(self, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Variance within classes of sets a and b, for each row of indicators [m, n]."""
        in_b = (members @ self._squares).astype(float)
        n_a, n_b = max(self.n["reference"], 1), max(self.n["target"], 1)
        return np.maximum(self._total - in_b, 0) / n_a, in_b / n_b

    def _abs_t(self, members: np.ndarray) -> np.ndarray:
        v_a, v_b = self._variances(members)
        error = np.sqrt(v_a * self._per_a + v_b * self._per_b)
        difference = np.abs((members @ self.rows).astype(float))
        # a column that does not move within classes has no t: nothing speaks for a shift
        flat = error <= 1e-6 * np.sqrt(self._total.max(initial=0.0))
        return np.where(flat, 0.0, difference / np.where(flat, 1.0, error))

    def _permuted(self, rng: np.random.Generator) -> Float[np.ndarray, "draws n"]:
        """Return indicators of set b with its members drawn anew within each class, float32."""
        counts = np.bincount(self._column)
        n_b = np.bincount(self._column, self._is_b)
        rank = np.arange(len(self._column)) - np.repeat(np.cumsum(counts) - counts, counts)
        chosen = rank < np.repeat(n_b, counts)
        drawn = np.empty((N_PERMUTATIONS, len(self._column)), np.float32)
        for row in drawn:
            row[np.lexsort((rng.random(len(row)), self._column))] = chosen
        return drawn


def _cohen_d(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of b minus mean of a over the root of the mean variance, and its standard error.

    NaN where the spread is 0 or unknown.
    """
    if len(a) < 2 or len(b) < 2:
        return np.full(a.shape[1], np.nan), np.full(a.shape[1], np.nan)
    v_a, v_b = (x.var(axis=0, ddof=1, dtype=float) for x in (a, b))
    variance = (v_a + v_b) / 2
    variance[variance == 0] = np.nan
    d = (b.mean(axis=0, dtype=float) - a.mean(axis=0, dtype=float)) / np.sqrt(variance)
    of_means = (v_a / len(a) + v_b / len(b)) / variance
    return d, np.sqrt(of_means + d**2 / (2 * (len(a) + len(b))))


def _estimate_of_d(d: float, error: float, n: dict[str, int]) -> Estimate:
    """Return d with its large-sample interval (Hedges and Olkin 1985, ch. 5, unequal spreads)."""
    if np.isnan(d) or np.isnan(error):
        return Estimate.unknown("constant, or too few images to compare", n=n, unit="sd")
    half = Z * float(error)
    return Estimate(float(d), float(d) - half, float(d) + half, "large-sample normal", n, "sd")
