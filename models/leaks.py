"""Whether test rows stand among the train rows: equal vectors, and copies changed a little.

A test row that is a copy of a train row, encoded anew or with noise, lies much closer to it than
rows of one distribution lie to each other. How close those lie is measured on the train rows: each
of a sample is held against all others. Two distances count, both from 1 − cosine of features
standardised by the train rows' moments: that to the nearest train row, and its ratio to that of
the fiftieth nearest, which says whether the place is a crowded one. A test row is a near-duplicate
when both are smaller than chance lets happen once in a hundred audits.

Near a point the number of rows within a distance grows like a power of it, so the lower tails of
both are powers. Their exponents are fitted between two quantiles of the sample, away from its very
lowest values, which copies among the train rows themselves would spoil. Where most train rows have
copies there, all of the nearest are spoiled; then the exponent comes from the twentieth to the
fiftieth neighbours, which copies do not reach, and the threshold follows from the law alone.

Source: E. Facco, M. d'Errico, A. Rodriguez and A. Laio (2017), Scientific Reports 7, 12140: ratios
of distances to neighbours follow a power law. Ours: two quantiles in place of a fit to all values.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, UInt64
from scipy.special import digamma

from models.heads.rows import Matrix

N_NEIGHBOURS = 50
N_CALIBRATION = 2000
FALSE_ALARMS = 0.01  # near-duplicates expected by chance, over all test rows of an audit
RESOLUTION = 1e-5  # what float32 products tell of 1 - cosine, with a margin
_BODY, _TAIL = (0.6, 0.9), (0.02, 0.2)  # quantiles between which the exponents are fitted
_FEWEST = 30  # values below which no tail can be fitted
_LOWEST = 5
_INNER = 0.4  # of the neighbours: those beyond tell of the place, not of copies
# honest rows gave thresholds of .14 to 2.7 times the law's, rows with copies .003 times and less
_SPOILED = 1 / 40
_BLOCK_ROWS = 8192
_QUERY_ROWS = 4096
Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Neighbours:
    """The nearest train rows of each row asked about, nearest first.

    Attributes
    ----------
    distance : 1 − cosine, float64 [q, k]; infinite where there are fewer than k train rows
    place : row of the train matrix, int64 [q, k]; −1 there
    """

    distance: Float[np.ndarray, "q k"]
    place: Int[np.ndarray, "q k"]


@dataclass(frozen=True)
class Threshold:
    """Below which distances a test row is no chance neighbour of a train row.

    Attributes
    ----------
    distance : of 1 − cosine to the nearest train row; 0 where the train rows do not allow one
    ratio : of that to the distance of the k-th nearest; 0 likewise
    n : train rows that it was calibrated on
    n_twins : of these, rows with a near-duplicate among the train rows, left out of the calibration
    k : neighbours of each row that were looked at
    """

    distance: float
    ratio: float
    n: int
    n_twins: int
    k: int

    @property
    def can_tell(self) -> bool:
        """Whether anything but chance could be told: in few dimensions all rows are close."""
        return self.distance > RESOLUTION and self.ratio > 0


@dataclass(frozen=True)
class NearDuplicates:
    """Test rows with a train row closer than chance allows.

    Attributes
    ----------
    query : row of each pair among the test rows, int64 [p]
    place : row of each pair among the train rows, int64 [p]
    distance : 1 − cosine of each pair [p]
    threshold : what they were held against
    nearest : the nearest train row of every test row
    n_crowded : test rows as close to k train rows as copies would be: many copies, or a crowd
    """

    query: Int[np.ndarray, " p"]
    place: Int[np.ndarray, " p"]
    distance: Float[np.ndarray, " p"]
    threshold: Threshold
    nearest: Neighbours
    n_crowded: int


def row_hashes(features: Matrix) -> UInt64[np.ndarray, " n"]:
    """64-bit hash of the float32 bytes of each row, the same in every process and machine.

    Each pair of words, folded so that its halves mix, times a fixed random odd number, summed
    modulo 2^64, a slice of rows at a time. Different rows may share a hash (2^-32 at worst, for
    rows that differ in half a pair), so who finds equal hashes compares the rows.

    Examples
    --------
    >>> rows = np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0]], np.float32)
    >>> a, b, c = row_hashes(rows)
    >>> bool(a == c), bool(a == b)
    (True, False)
    """
    n, d = features.shape
    n_words = (d + 1) // 2
    rng = np.random.Generator(np.random.PCG64(2026))
    factors = rng.integers(0, 2**64, n_words, np.uint64, endpoint=False) | np.uint64(1)
    hashes = np.empty(n, np.uint64)
    for start in range(0, n, _BLOCK_ROWS):
        block = features[start : min(start + _BLOCK_ROWS, n)]
        words = np.zeros((len(block), 2 * n_words), "<f4")
        words[:, :d] = block
        pairs = words.view("<u8")
        pairs ^= pairs >> np.uint64(32)
        hashes[start : start + len(block)] = pairs @ factors
    hashes ^= hashes >> np.uint64(31)
    return np.asarray(hashes * np.uint64(0x9E3779B97F4A7C15) + np.uint64(d))


def first_of_each(hashes: UInt64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Mark the first row of each hash: equal rows count once.

    Examples
    --------
    >>> first_of_each(np.array([7, 5, 7], np.uint64)).tolist()
    [True, True, False]
    """
    is_first = np.zeros(len(hashes), bool)
    is_first[np.unique(hashes, return_index=True)[1]] = True
    return is_first


def nearest(
    queries: Float32[np.ndarray, "q d"],
    train: Matrix,
    *,
    mean: Float[np.ndarray, " d"],
    sd: Float[np.ndarray, " d"],
    own: Int[np.ndarray, " q"] | None = None,
    counts: Bool[np.ndarray, " n"] | None = None,
    k: int = N_NEIGHBOURS,
    progress: Progress = lambda _share, _message: None,
) -> Neighbours:
    """Nearest train rows by the cosine of standardised features.

    Memory: the queries once, a block of train rows, and their products.

    Parameters
    ----------
    mean, sd
        Of each feature over the train rows; features that do not vary take no part.
    own
        Row of `train` that is the query itself and no neighbour; −1 for none.
    counts
        Train rows that count; default: all.
    progress
        Called with the share done and a message; an exception from it stops the search.
    """
    varies = sd > 1e-7 * np.abs(mean)
    scale = torch.from_numpy(np.where(varies, 1 / np.where(varies, sd, 1.0), 0.0))
    middle = torch.from_numpy(np.asarray(mean, np.float64))
    q, n = len(queries), len(train)
    asked = torch.empty(queries.shape, dtype=torch.float32)
    for start in range(0, q, _BLOCK_ROWS):
        part = slice(start, start + _BLOCK_ROWS)
        asked[part] = _unit(queries[part], middle, scale)
    best = torch.full((q, k), -math.inf)
    place = torch.full((q, k), -1, dtype=torch.int64)
    for start in range(0, n, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, n)
        block = _unit(train[start:stop], middle, scale)
        for first in range(0, q, _QUERY_ROWS):
            part = slice(first, min(first + _QUERY_ROWS, q))
            progress((start + (stop - start) * first / q) / n, "looking for the nearest train rows")
            cosine = asked[part] @ block.T
            if counts is not None:
                cosine[:, torch.from_numpy(~counts[start:stop])] = -math.inf
            if own is not None:
                mine = own[part] - start
                here = np.flatnonzero((mine >= 0) & (mine < stop - start))
                cosine[torch.from_numpy(here), torch.from_numpy(mine[here])] = -math.inf
            # the further the search, the fewer rows find anything nearer
            nearer = torch.nonzero(cosine.amax(dim=1) > best[part][:, -1]).squeeze(1)
            if len(nearer) == 0:
                continue
            values, columns = cosine[nearer].topk(min(k, stop - start), dim=1)
            rows = nearer + first
            values = torch.cat([best[rows], values], dim=1)
            columns = torch.cat([place[rows], columns + start], dim=1)
            best[rows], order = values.topk(k, dim=1)
            place[rows] = columns.gather(1, order)
    distance = np.maximum(1.0 - best.double().numpy(), 0.0)
    # rows of nothing but zeros (dead rectifiers) are all equal and tell nothing
    distance[np.abs(queries).max(axis=1, initial=0) == 0] = np.inf
    found = place.numpy()
    found[np.isinf(distance)] = -1
    return Neighbours(distance, found)


def calibrate(sample: Neighbours, *, n_queries: int) -> Threshold:
    """Threshold from train rows held against all other train rows.

    Rows of the sample that are near-duplicates of other train rows, by a threshold fitted to the
    middle of the distances alone, are left out; then the lower tails are fitted.

    Parameters
    ----------
    n_queries
        Test rows that will be held against it: each gets an equal share of the false alarms.
    """
    usable = np.isfinite(sample.distance).all(axis=1)
    sample = Neighbours(sample.distance[usable], sample.place[usable])
    nearest_of, ratio = sample.distance[:, 0], _ratios(sample)[:, 0]
    n, k = sample.distance.shape
    share = 1 / max(n, 1)  # one honest row lost costs little
    is_twin = (nearest_of < _quantile(nearest_of, _BODY, share, errors=0.0)) & (
        ratio < _quantile(ratio, _BODY, share, errors=0.0)
    )
    share = FALSE_ALARMS / max(n_queries, 1)
    found = Threshold(
        distance=_quantile(nearest_of[~is_twin], _TAIL, share),
        ratio=_quantile(ratio[~is_twin], _TAIL, share),
        n=n,
        n_twins=int(is_twin.sum()),
        k=k,
    )
    # the tenth of the rows whose outer neighbours are closest together have no copies among these
    gain = _outer_gain(sample)
    at_most = _ratio_by_law(float(np.quantile(gain, 0.1)), k, share) if n >= _FEWEST else 0.0
    if found.ratio >= _SPOILED * at_most:
        return found
    is_twin = ratio < at_most
    clean = ~is_twin if (~is_twin).sum() >= _FEWEST else np.ones(n, bool)
    by_law = _ratio_by_law(float(gain[clean].mean()), k, share)
    return Threshold(
        distance=by_law * float(np.median(sample.distance[clean, -1])),
        ratio=by_law,
        n=n,
        n_twins=int((ratio < by_law).sum()),
        k=k,
    )


def _inner(k: int) -> int:
    return max(int(_INNER * k), 1)


def _outer_gain(sample: Neighbours) -> Float[np.ndarray, " n"]:
    """Log of the k-th distance over that of a neighbour further in, of each row."""
    k = sample.distance.shape[1]
    outer = np.maximum(sample.distance[:, [_inner(k) - 1, k - 1]], RESOLUTION)
    return np.asarray(np.log(outer[:, 1] / outer[:, 0]))


def _ratio_by_law(gain: float, k: int, share: float) -> float:
    """Ratio of the nearest to the k-th distance that a share of rows undercuts, by the power law.

    With N ~ r^a rows within r, E log(r_k / r_j) = (ψ(k) − ψ(j)) / a, which gives a; and r_1 / r_k
    < x happens with 1 − (1 − x^a)^(k − 1). 0 where the outer neighbours do not spread.
    """
    if gain <= 0:
        return 0.0
    exponent = float(digamma(k) - digamma(_inner(k))) / gain
    return float((share / (k - 1)) ** (1 / exponent))


def near_duplicates(
    train: Matrix,
    queries: Float32[np.ndarray, "q d"],
    *,
    mean: Float[np.ndarray, " d"],
    sd: Float[np.ndarray, " d"],
    counts: Bool[np.ndarray, " n"],
    seed: int,
    progress: Progress = lambda _share, _message: None,
) -> NearDuplicates:
    """Find test rows with a train row closer than chance allows.

    Parameters
    ----------
    train
        Train rows.
    queries
        Test rows.
    mean, sd
        Of each feature over the train rows.
    counts
        Train rows that count: of equal ones only one, so that repeated rows cannot crowd a place
        (see `first_of_each`).
    seed
        Of the sample that the threshold is calibrated on.
    """
    sample, mine = nearest_with_sample(
        train, queries, mean=mean, sd=sd, counts=counts, seed=seed, progress=progress
    )
    return judged(mine, calibrate(sample, n_queries=len(queries)))


def nearest_with_sample(
    train: Matrix,
    queries: Float32[np.ndarray, "q d"],
    *,
    mean: Float[np.ndarray, " d"],
    sd: Float[np.ndarray, " d"],
    counts: Bool[np.ndarray, " n"],
    seed: int,
    progress: Progress = lambda _share, _message: None,
) -> tuple[Neighbours, Neighbours]:
    """Nearest train rows of a sample of train rows, each held against all others, and of queries.

    One search for both; parameters as in `near_duplicates`.
    """
    there = np.flatnonzero(counts)
    rng = np.random.default_rng(seed)
    sample = np.sort(rng.choice(there, min(N_CALIBRATION, len(there)), replace=False))
    rows = np.stack([train[row : row + 1][0] for row in sample.tolist()])
    k = int(np.clip(len(there) // 20, 10, N_NEIGHBOURS))
    found = nearest(
        np.concatenate([rows, queries]),
        train,
        mean=mean,
        sd=sd,
        own=np.concatenate([sample, np.full(len(queries), -1)]),
        counts=counts,
        k=k,
        progress=progress,
    )
    m = len(sample)
    return (
        Neighbours(found.distance[:m], found.place[:m]),
        Neighbours(found.distance[m:], found.place[m:]),
    )


def judged(found: Neighbours, threshold: Threshold) -> NearDuplicates:
    """Rows with a neighbour closer than the threshold lets chance bring.

    Of more neighbours than the threshold was calibrated with, the nearest count.
    """
    k = threshold.k
    found = Neighbours(found.distance[:, :k], found.place[:, :k])
    is_close = (found.distance < threshold.distance) & threshold.can_tell
    query, column = np.nonzero(is_close & (_ratios(found) < threshold.ratio))
    return NearDuplicates(
        query=query,
        place=found.place[query, column],
        distance=found.distance[query, column],
        threshold=threshold,
        nearest=found,
        n_crowded=int(is_close.all(axis=1).sum()),
    )


def equal_rows(features: Float32[np.ndarray, "n d"]) -> Int[np.ndarray, "p 2"]:
    """Pairs of equal rows: each row that repeats an earlier one, beside the first of them.

    Equal are rows of the same bytes.

    Examples
    --------
    >>> equal_rows(np.array([[1.0], [2.0], [1.0]], np.float32)).tolist()
    [[0, 2]]
    """
    _, first, group = np.unique(row_hashes(features), return_index=True, return_inverse=True)
    later = np.flatnonzero(first[group] != np.arange(len(features)))
    earlier = first[group[later]]
    same = [
        features[i].tobytes() == features[j].tobytes()
        for i, j in zip(earlier.tolist(), later.tolist(), strict=True)
    ]
    return np.asarray(np.column_stack([earlier, later])[np.array(same, bool)])


def _unit(rows: np.ndarray, middle: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    z = ((torch.from_numpy(np.ascontiguousarray(rows)) - middle) * scale).float()
    return torch.nn.functional.normalize(z, dim=1)


def _ratios(found: Neighbours) -> Float[np.ndarray, "q k"]:
    last = found.distance[:, -1:]
    ratios = np.ones_like(found.distance)
    tells = (last > RESOLUTION) & np.isfinite(last)
    np.divide(found.distance, last, out=ratios, where=tells)
    return ratios


def _quantile(
    values: np.ndarray, window: tuple[float, float], share: float, *, errors: float = 1.645
) -> float:
    """Quantile of a share far below 1 / n, from a power law fitted between two quantiles.

    −log(1 − F(x)) = c x^a, the law of a nearest neighbour, gives a from the two; less so many of
    its standard errors, so that a small sample gives a small threshold. 0 where there are too few
    values, or where they do not spread.
    """
    n = len(values)
    lower, upper = max(int(window[0] * n), _LOWEST), int(window[1] * n)
    if n < _FEWEST or upper <= lower:
        return 0.0
    low, high = np.partition(np.maximum(values, RESOLUTION), (lower, upper))[[lower, upper]]
    if low == high:
        return 0.0
    at_low, at_high = (-math.log1p(-rank / n) for rank in (lower, upper))
    gain = math.log(at_high / at_low)
    # ranks below the upper one are uniform there: log F(low) has variance (1 - p) / (n p)
    error = math.sqrt((1 - lower / upper) / lower) / gain
    exponent = gain / math.log(high / low) * (1 - errors * error)
    if exponent <= 0:
        return 0.0
    return float(low * min(1.0, share / at_low) ** (1 / exponent))
