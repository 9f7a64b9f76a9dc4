"""Which features shift between two test sets, and how much the head leans on them (G9)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from models.estimate import LEVEL, Estimate

N_PERMUTATIONS = 199
_BLOCK = 64
_Z = 1.959963984540054


@dataclass(frozen=True)
class FeatureShift:
    """How one feature differs between reference and target.

    Attributes
    ----------
    feature_id : position in the vector, from 0
    ks : Kolmogorov-Smirnov distance, in [0, 1]
    wasserstein : Wasserstein-1 distance in standard deviations of the train rows
    mean_difference : target minus reference mean in pooled standard deviations (Cohen's d)
    mean_difference_within_classes : the same after each row's class mean on train is taken off:
        what is left when the mix of classes is the same
    p_value : of the latter, by permutation within classes, adjusted for looking at all features
    head_weight : how much the head leans on it: scores per train standard deviation
    """

    feature_id: int
    ks: float
    wasserstein: float | None
    mean_difference: Estimate
    mean_difference_within_classes: Estimate
    p_value: float | None
    head_weight: float


def feature_shifts(
    reference: Float[np.ndarray, "n1 d"],
    reference_labels: Int[np.ndarray, " n1"],
    target: Float[np.ndarray, "n2 d"],
    target_labels: Int[np.ndarray, " n2"],
    *,
    train_class_ids: Int[np.ndarray, " k"],
    train_class_means: Float[np.ndarray, "k d"],
    train_sd: Float[np.ndarray, " d"],
    head_weights: Float[np.ndarray, " d"],
    seed: int,
) -> list[FeatureShift]:
    """Shift of every feature, the largest |shift within classes| × head weight first.

    Parameters
    ----------
    reference, target
        Features of the two sets, float32.
    reference_labels, target_labels
        Their class ids; rows of classes without train rows take no part in the numbers within
        classes.
    train_class_ids, train_class_means
        Mean of each class over the train rows; ids rising.
    train_sd
        Standard deviation of each feature over the train rows.
    head_weights
        Of `LinearHead.feature_weights`.
    seed
        Of the permutations.
    """
    n = {"reference": len(reference), "target": len(target)}
    ks, w1 = distances(reference, target)
    d_raw = _cohen_d(reference, target)
    centred1, labels1 = _centred(reference, reference_labels, train_class_ids, train_class_means)
    centred2, labels2 = _centred(target, target_labels, train_class_ids, train_class_means)
    n_centred = {"reference": len(centred1), "target": len(centred2)}
    d_within = _cohen_d(centred1, centred2)
    p_values = permutation_p_values(centred1, labels1, centred2, labels2, seed=seed)
    relevance = np.abs(np.nan_to_num(d_within)) * head_weights
    return [
        FeatureShift(
            int(j),
            float(ks[j]),
            float(w1[j] / train_sd[j]) if train_sd[j] > 0 else None,
            _estimate_of_d(d_raw[j], n),
            _estimate_of_d(d_within[j], n_centred),
            None if np.isnan(p_values[j]) else float(p_values[j]),
            float(head_weights[j]),
        )
        for j in np.lexsort((np.arange(len(ks)), -relevance))
    ]


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
    for start in range(0, d, _BLOCK):
        stop = min(start + _BLOCK, d)
        keys = np.concatenate(
            [_sort_keys(a[:, start:stop], 0), _sort_keys(b[:, start:stop], 1)]
        ).T.copy()
        keys.sort(axis=1)
        is_b = (keys & 1).astype(np.int64)
        apart = np.cumsum(n * is_b - m * (1 - is_b), axis=1)[:, :-1] / (n * m)
        width = np.diff(_values(keys).astype(float), axis=1)
        # inside a run of ties the distributions have not both stepped yet: only its end counts
        apart = np.where(width > 0, np.abs(apart), 0.0)
        ks[start:stop] = apart.max(axis=1, initial=0.0)
        w1[start:stop] = (apart * width).sum(axis=1)
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
    """P-value of each column's difference of means, adjusted for the maximum over columns.

    Which set a row belongs to is permuted within its class, so that the class mix stays as it is;
    (1 + number of permutations whose largest |t| reaches this column's) / (1 + permutations), NaN
    where there is nothing to permute.

    Source: P. H. Westfall and S. S. Young (1993), Resampling-Based Multiple Testing, algorithm
    2.5 (single step).
    """
    both = np.intersect1d(a_labels, b_labels)
    if len(both) == 0:
        return np.full(a.shape[1], np.nan)
    in_a, in_b = np.isin(a_labels, both), np.isin(b_labels, both)
    rows = np.concatenate([a[in_a], b[in_b]]).astype(np.float32)
    labels = np.concatenate([a_labels[in_a], b_labels[in_b]])
    is_b = np.arange(len(rows)) >= in_a.sum()
    rows -= rows.mean(axis=0)
    # the mean difference of a permutation is linear in the indicator: one product for all
    spread = np.sqrt(np.square(rows).sum(axis=0, dtype=float))
    spread[spread == 0] = np.inf
    expected = _expected_sum(is_b, rows, labels)
    drawn = _permuted_within(is_b, labels, np.random.default_rng(seed))
    observed = np.abs(is_b.astype(np.float32) @ rows - expected) / spread
    largest = (np.abs(drawn @ rows - expected) / spread).max(axis=1)
    reached = (largest[:, None] >= observed[None, :] * (1 - 1e-6)).sum(axis=0)
    return np.asarray((1 + reached) / (1 + N_PERMUTATIONS))


def _permuted_within(
    is_b: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> Float[np.ndarray, "draws n"]:
    """Return indicators of set b with the members of b drawn anew within each class, float32."""
    _, column = np.unique(labels, return_inverse=True)
    counts = np.bincount(column)
    n_b = np.bincount(column, is_b)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = rank < np.repeat(n_b, counts)
    drawn = np.empty((N_PERMUTATIONS, len(labels)), np.float32)
    for row in drawn:
        row[np.lexsort((rng.random(len(labels)), column))] = chosen
    return drawn


def _expected_sum(is_b: np.ndarray, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean, over the permutations within classes, of each column's sum over set b, float64 [d]."""
    _, column = np.unique(labels, return_inverse=True)
    share_b = np.bincount(column, is_b) / np.bincount(column)
    return np.asarray(share_b[column].astype(np.float32) @ rows, dtype=float)


def _centred(
    features: np.ndarray, labels: np.ndarray, class_ids: np.ndarray, means: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    column = np.minimum(np.searchsorted(class_ids, labels), len(class_ids) - 1)
    known = class_ids[column] == labels
    return (features[known] - means[column[known]]).astype(np.float32), labels[known]


def _cohen_d(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean of b minus mean of a over the root of the mean variance; NaN where that is 0."""
    if len(a) < 2 or len(b) < 2:
        return np.full(a.shape[1], np.nan)
    variance = (a.var(axis=0, ddof=1, dtype=float) + b.var(axis=0, ddof=1, dtype=float)) / 2
    difference = b.mean(axis=0, dtype=float) - a.mean(axis=0, dtype=float)
    return np.asarray(
        np.divide(
            difference, np.sqrt(variance), out=np.full_like(variance, np.nan), where=variance > 0
        )
    )


def _estimate_of_d(d: float, n: dict[str, int]) -> Estimate:
    """Return d with its large-sample interval (Hedges and Olkin 1985, ch. 5, eq. 14)."""
    if np.isnan(d):
        return Estimate.unknown("constant, or fewer than two images", n=n, unit="sd")
    n1, n2 = n["reference"], n["target"]
    half = _Z * float(np.sqrt((n1 + n2) / (n1 * n2) + d**2 / (2 * (n1 + n2))))
    return Estimate(
        float(d), float(d) - half, float(d) + half, "large-sample normal", n, "sd", level=LEVEL
    )
