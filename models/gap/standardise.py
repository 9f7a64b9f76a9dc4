"""How much of a gap goes with a covariate: standardisation by its bins (G5)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.sparse import csr_array

from models.estimate import Estimate, share
from models.gap.difference import newcombe
from models.gap.resampling import Replicates, weighted_sums

N_BINS = 15
_CATEGORIES_MAX = 50
_TINY = 1e-30  # weight of a bin that a replicate leaves empty
UNKNOWN, OTHERS = "unknown", "all others"


@dataclass(frozen=True)
class Covariate:
    """What is known of each image of both sets.

    Attributes
    ----------
    name : in words
    reference, target : one value an image; NaN where unknown; a category's number
    categories : names of the categories; None for numbers
    """

    name: str
    reference: Float[np.ndarray, " n1"]
    target: Float[np.ndarray, " n2"]
    categories: Sequence[str] | None = None


@dataclass(frozen=True)
class Bin:
    """Images of both sets that are alike in a covariate.

    Attributes
    ----------
    name : range of values, or the category
    low, high : smallest and largest value in it; None for categories and unknown values
    mean : of the values of both sets; None where low is
    accuracy_reference, accuracy_target : with Wilson's interval; null without images
    """

    name: str
    low: float | None
    high: float | None
    mean: float | None
    n_reference: int
    n_target: int
    accuracy_reference: Estimate
    accuracy_target: Estimate


@dataclass(frozen=True)
class Standardised:
    """The gap in parts by one covariate: explained + rest + uncovered = gap.

    Attributes
    ----------
    name : of the covariate
    explained : what the gap would be were images of one bin equally hard on both sets
    rest : difference between images of one bin
    uncovered : part of the gap that comes from target images in bins without any of the reference,
        of which standardisation says nothing; exactly 0 where there are none
    uncovered_share : such images, as a share of the target's
    share : explained over gap; null where the gap is not told from 0
    bins : rising in the covariate, or in the order of the categories
    difference : mean of the reference minus that of the target, of images where it is known, in
        the covariate's own unit; null for categories
    """

    name: str
    explained: Estimate
    rest: Estimate
    uncovered: Estimate
    uncovered_share: float
    share: Estimate
    bins: list[Bin]
    difference: Estimate


def standardise(
    reference_correct: Bool[np.ndarray, " n1"],
    target_correct: Bool[np.ndarray, " n2"],
    covariates: Sequence[Covariate],
    drawn: Replicates,
    *,
    n_bins: int = N_BINS,
) -> list[Standardised]:
    """Gap in parts by each covariate on its own (G5).

    With bins z, a1(z) and a2(z) the accuracies in them and q(z) the target's shares:
    explained = a1 − Σ q(z) a1(z), rest = Σ q(z) (a1(z) − a2(z)). Where the target has images in
    bins that the reference lacks, q is that of the other bins, and a third part is left:
    uncovered = Σ q(z) a2(z) − a2. Bins are quantiles of both sets pooled, one a value where there
    are few; unknown values are a bin. Bins are the same in every replicate.

    Parameters
    ----------
    reference_correct, target_correct
        Whether the model is right.
    covariates
        All are standardised in one product.
    drawn
        Weights of the sample and its replicates.
    n_bins
        At most so many bins of numbers.

    Source: E. M. Kitagawa (1955), JASA 50, 1168-1194.

    Examples
    --------
    >>> from models.gap.resampling import replicates
    >>> reference, target = np.array([1, 1, 1, 0], bool), np.array([1, 0, 0, 0], bool)
    >>> is_hard = Covariate("is hard", np.array([0.0, 0, 1, 1]), np.array([0.0, 1, 1, 1]))
    >>> drawn = replicates(np.zeros(4, int), np.zeros(4, int), seed=0)
    >>> found = standardise(reference, target, [is_hard], drawn)[0]
    >>> found.explained.estimate, found.rest.estimate  # .75 − (1/4 · 1 + 3/4 · 1/2); 3/4 · 1/2
    (0.125, 0.375)
    """
    cut = [_cut(one, n_bins) for one in covariates]
    first = _sums([one.reference for one in cut], cut, reference_correct, drawn.reference)
    second = _sums([one.target for one in cut], cut, target_correct, drawn.target)
    differences = _differences(covariates, drawn)
    n_right = int(reference_correct.sum()), int(target_correct.sum())
    gap = newcombe(n_right[0], len(reference_correct), n_right[1], len(target_correct))
    return [
        _parts(one.name, cut[i], first[i], second[i], drawn, gap, differences[i])
        for i, one in enumerate(covariates)
    ]


_Range = tuple[float | None, float | None, float | None]
_NO_RANGE: _Range = (None, None, None)


@dataclass(frozen=True)
class _Cut:
    """Bin of each image; of each bin its name, and smallest, largest and mean value if numbers."""

    reference: np.ndarray
    target: np.ndarray
    names: list[str]
    ranges: list[_Range]


def _cut(covariate: Covariate, n_bins: int) -> _Cut:
    values = np.concatenate([covariate.reference, covariate.target]).astype(np.float64)
    known = np.isfinite(values)
    cut = _cut_numbers if covariate.categories is None else _cut_categories
    bins, names, ranges = cut(values[known], n_bins, covariate.categories or [])
    codes = np.full(len(values), len(names))
    codes[known] = bins
    if not known.all():
        names, ranges = [*names, UNKNOWN], [*ranges, _NO_RANGE]
    n1 = len(covariate.reference)
    return _Cut(codes[:n1], codes[n1:], names, ranges)


_Named = tuple[np.ndarray, list[str], list[_Range]]


def _cut_numbers(values: np.ndarray, n_bins: int, _categories: Sequence[str]) -> _Named:
    found, codes = np.unique(values, return_inverse=True)
    if len(found) > n_bins:
        edges = np.quantile(values, np.linspace(0, 1, n_bins + 1)[1:-1])
        _, codes = np.unique(
            np.searchsorted(np.unique(edges), values, side="right"), return_inverse=True
        )
    n = np.bincount(codes)
    low, high = np.full(len(n), np.inf), np.full(len(n), -np.inf)
    np.minimum.at(low, codes, values)
    np.maximum.at(high, codes, values)
    mean = np.bincount(codes, values, minlength=len(n)) / n
    ranges: list[_Range] = list(zip(low.tolist(), high.tolist(), mean.tolist(), strict=True))
    names = [f"{a:.3g}" if a == b else f"{a:.3g} to {b:.3g}" for a, b, _ in ranges]
    return codes, names, ranges


def _cut_categories(values: np.ndarray, _n_bins: int, categories: Sequence[str]) -> _Named:
    codes = values.astype(np.int64)
    n = np.bincount(codes, minlength=len(categories))
    kept = np.flatnonzero(n)
    if len(kept) > _CATEGORIES_MAX:
        kept = np.sort(np.argsort(-n, kind="stable")[: _CATEGORIES_MAX - 1])
    names = [categories[i] for i in kept.tolist()]
    place = np.full(len(categories), len(names))
    place[kept] = np.arange(len(names))
    codes = place[codes]
    if (codes == len(names)).any():
        names.append(OTHERS)
    return codes, names, [_NO_RANGE] * len(names)


def _sums(
    codes: Sequence[np.ndarray], cut: Sequence[_Cut], correct: np.ndarray, weights: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weight in each bin, and weight on right images in it, float64 [b, 1 + m], per covariate.

    One product for all covariates: rows of the sparse matrix are bins, and bins of right images.
    """
    counts = [len(one.names) for one in cut]
    starts = np.cumsum([0, *(2 * b for b in counts)])
    rows, columns = [], []
    right = np.flatnonzero(correct)
    for bins, b, start in zip(codes, counts, starts[:-1], strict=True):
        rows += [start + bins, start + b + bins[right]]
        columns += [np.arange(len(bins)), right]
    if not rows:
        return []
    at = np.concatenate(rows), np.concatenate(columns)
    indicator = csr_array(
        (np.ones(len(at[0]), np.float32), at), shape=(int(starts[-1]), len(correct))
    )
    sums = np.asarray(indicator @ weights, np.float64)
    return [
        (sums[start : start + b], sums[start + b : start + 2 * b])
        for start, b in zip(starts[:-1], counts, strict=True)
    ]


def _parts(
    name: str,
    cut: _Cut,
    first: tuple[np.ndarray, np.ndarray],
    second: tuple[np.ndarray, np.ndarray],
    drawn: Replicates,
    gap: Estimate,
    difference: Estimate,
) -> Standardised:
    (n1, k1), (n2, k2) = first, second
    there = n1[:, 0] > 0
    a1, a2 = k1.sum(axis=0) / n1.sum(axis=0), k2.sum(axis=0) / n2.sum(axis=0)
    covered = n2[there].sum(axis=0)
    missing = float(1 - covered[0] / n2[:, 0].sum())
    bins = [
        Bin(
            cut.names[i],
            low,
            high,
            mean,
            int(n1[i, 0]),
            int(n2[i, 0]),
            share(int(k1[i, 0]), int(n1[i, 0])),
            share(int(k2[i, 0]), int(n2[i, 0])),
        )
        for i, (low, high, mean) in enumerate(cut.ranges)
    ]
    if covered[0] == 0:
        null = Estimate.unknown(
            "no image of the target is in a bin with images of the reference",
            n=drawn.n,
            unit="fraction",
        )
        return Standardised(name, null, null, null, 1.0, null, bins, difference)
    moved = (
        n2[there] * k1[there] / np.maximum(n1[there], _TINY)
    ).sum(axis=0) / np.maximum(covered, _TINY)  # fmt: skip
    same = k2[there].sum(axis=0) / np.maximum(covered, _TINY)
    explained, rest, uncovered = a1 - moved, moved - same, same - a2
    if there.all() or missing == 0:
        uncovered = np.zeros_like(uncovered)
    return Standardised(
        name,
        drawn.estimate(explained),
        drawn.estimate(rest),
        drawn.estimate(uncovered),
        missing,
        _share(explained, a1 - a2, drawn, gap),
        bins,
        difference,
    )


def _differences(covariates: Sequence[Covariate], drawn: Replicates) -> list[Estimate]:
    """Mean of the reference minus that of the target, of each covariate."""
    if not covariates:
        return []
    columns = [np.column_stack([one.reference for one in covariates]),
               np.column_stack([one.target for one in covariates])]  # fmt: skip
    known = [np.isfinite(side) for side in columns]
    # from a common middle: replicates are summed in float32
    n = sum(there.sum(axis=0) for there in known)
    middle = sum(
        np.where(there, side, 0.0).sum(axis=0) for side, there in zip(columns, known, strict=True)
    ) / np.maximum(n, 1)
    means = [
        weighted_sums(np.where(there, side - middle, 0.0), weights)
        / np.maximum(weighted_sums(there.astype(np.float32), weights), _TINY)
        for side, there, weights in zip(
            columns, known, (drawn.reference, drawn.target), strict=True
        )
    ]
    found = []
    for i, one in enumerate(covariates):
        reason = None
        if one.categories is not None:
            reason = "categories have no mean"
        elif not all(there[:, i].any() for there in known):
            reason = "no image of one set has a value"
        unit = f"of {one.name}"
        found.append(
            drawn.estimate(means[0][:, i] - means[1][:, i], unit=unit)
            if reason is None
            else Estimate.unknown(reason, n=drawn.n, unit=unit)
        )
    return found


def _share(part: np.ndarray, whole: np.ndarray, drawn: Replicates, gap: Estimate) -> Estimate:
    """Part over whole, its spread to first order: replicates' own ratios have no mean."""
    if gap.estimate is None or gap.low is None or gap.high is None or gap.low <= 0 <= gap.high:
        return Estimate.unknown(
            "the gap is not distinguishable from 0", n=drawn.n, unit="fraction of the gap"
        )
    ratio = part[0] / whole[0]
    return drawn.estimate(ratio + (part - ratio * whole) / whole[0], unit="fraction of the gap")
