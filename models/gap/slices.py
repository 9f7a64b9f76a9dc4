"""Groups of images that lose more than others: clusters of features, and slices found (G11)."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt64
from sklearn.cluster import MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeRegressor

from models.estimate import Estimate
from models.gap.difference import newcombe
from models.gap.domain import design
from models.gap.excess import benjamini_hochberg, excess_p_values

N_CLUSTERS = 50
ROWS_A_CLUSTER = 20  # train rows that each cluster is made of, on average at least
_BLOCK = 8192
_DEPTH = 3
_LEAST_SHARE = 0.05  # of the information on the gap that a slice holds
_LEAST_IMAGES = 20  # of each half of each set, below which nothing is searched
_FOLDS = 5
_BATCH, _PASSES = 4096, 5


@dataclass(frozen=True)
class SliceGap:
    """Gap of one group of images.

    Attributes
    ----------
    n_reference, n_target : images that the gap is of
    gap : with Newcombe's interval
    excess : gap minus the gap of all images; None where the gap is
    p_value : of the test that the group loses what all lose
    q_value : p_value adjusted for looking at all groups; None without images of both sets
    """

    n_reference: int
    n_target: int
    gap: Estimate
    excess: float | None
    p_value: float | None
    q_value: float | None


def slice_gaps(
    reference_slice: Int[np.ndarray, " n1"],
    reference_correct: Bool[np.ndarray, " n1"],
    target_slice: Int[np.ndarray, " n2"],
    target_correct: Bool[np.ndarray, " n2"],
    *,
    n_slices: int,
) -> list[SliceGap]:
    """Gap of each group, and whether it is another one than all images together have.

    Groups must not have been chosen by these images being right or wrong.

    Parameters
    ----------
    reference_slice, target_slice
        Group of each image, 0 … n_slices − 1.
    reference_correct, target_correct
        Whether the model is right.

    Source: R. G. Newcombe (1998) for the interval, C. P. Farrington and G. Manning (1990) for the
    test, Y. Benjamini and Y. Hochberg (1995) for many of them.

    Examples
    --------
    >>> found = slice_gaps(np.array([0, 0, 1, 1]), np.array([1, 1, 1, 1], bool),
    ...                    np.array([0, 0, 1, 1]), np.array([1, 1, 1, 0], bool), n_slices=2)
    >>> [(s.gap.estimate, s.excess) for s in found]
    [(0.0, -0.25), (0.5, 0.25)]
    """
    n1, n2 = (np.bincount(s, minlength=n_slices) for s in (reference_slice, target_slice))
    k1 = np.bincount(reference_slice[reference_correct], minlength=n_slices)
    k2 = np.bincount(target_slice[target_correct], minlength=n_slices)
    there = (n1 > 0) & (n2 > 0)
    p = np.full(n_slices, np.nan)
    q = np.full(n_slices, np.nan)
    common = 0.0
    if there.any():
        common = float(k1.sum() / n1.sum() - k2.sum() / n2.sum())
    if there.any() and abs(common) < 1:
        p[there] = excess_p_values(k1[there], n1[there], k2[there], n2[there], gap=common)
        q[there] = benjamini_hochberg(p[there])
    found = []
    for s in range(n_slices):
        gap = newcombe(int(k1[s]), int(n1[s]), int(k2[s]), int(n2[s]))
        found.append(
            SliceGap(
                int(n1[s]),
                int(n2[s]),
                gap,
                None if gap.estimate is None else gap.estimate - common,
                float(p[s]) if np.isfinite(p[s]) else None,
                float(q[s]) if np.isfinite(q[s]) else None,
            )
        )
    return found


@dataclass(frozen=True)
class Clusters:
    """Groups of alike train rows, and the way there from features.

    Attributes
    ----------
    centres : in train standard deviations from the train mean, float32 [k, d]
    mean, scale : of the features that vary among the train rows
    kept : which features these are
    """

    centres: Float32[np.ndarray, "k d"]
    mean: Float32[np.ndarray, " d"]
    scale: Float32[np.ndarray, " d"]
    kept: Int[np.ndarray, " d"]

    def of(self, features: Float[np.ndarray, "n e"]) -> Int[np.ndarray, " n"]:
        """Return the nearest centre of each row."""
        half = np.square(self.centres).sum(axis=1) / 2
        found = np.empty(len(features), np.int64)
        for start in range(0, len(features), _BLOCK):
            rows = _standard(features[start : start + _BLOCK], self.kept, self.mean, self.scale)
            found[start : start + len(rows)] = np.argmin(half - rows @ self.centres.T, axis=1)
        return found


def clusters_of(
    train: Float[np.ndarray, "n d"],
    *,
    train_mean: Float[np.ndarray, " d"],
    train_sd: Float[np.ndarray, " d"],
    seed: int,
    n_clusters: int = N_CLUSTERS,
) -> Clusters | None:
    """Group train rows by k-means; test rows take no part.

    Parameters
    ----------
    train
        Features of train rows, or of a random sample of them.
    train_mean, train_sd
        Of each feature; constant ones take no part.
    seed
        Of the starts and batches.
    n_clusters
        How many at most.

    Returns
    -------
    At most so many clusters, of 20 rows at least on average; None where that leaves fewer than two.

    Source: D. Sculley (2010), Web-Scale K-Means Clustering, WWW.

    Examples
    --------
    >>> rows = np.repeat([[0.0], [9.0]], 20, axis=0)
    >>> found = clusters_of(rows, train_mean=np.zeros(1), train_sd=np.ones(1), seed=0)
    >>> one, other = found.of(np.array([[1.0], [8.0]]))
    >>> bool(one != other)
    True
    """
    k = min(n_clusters, len(train) // ROWS_A_CLUSTER)
    kept = np.flatnonzero(train_sd > 0)
    if k < 2 or len(kept) == 0:
        return None
    mean, scale = train_mean[kept].astype(np.float32), train_sd[kept].astype(np.float32)
    rows = _standard(train, kept, mean, scale)
    fit = MiniBatchKMeans(k, batch_size=_BATCH, max_iter=_PASSES, n_init=1, random_state=seed)
    with warnings.catch_warnings():
        # rows that are equal make fewer clusters, which then hold no image
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit.fit(rows)
    return Clusters(fit.cluster_centers_.astype(np.float32), mean, scale, kept)


def _standard(
    rows: np.ndarray, kept: np.ndarray, mean: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    found = rows.astype(np.float32) if len(kept) == rows.shape[1] else rows[:, kept]
    found = np.array(found, np.float32)
    found -= mean
    found /= scale
    return found


@dataclass(frozen=True)
class FoundSlices:
    """Slices that one half of the images suggested, and what the other half says of them.

    Attributes
    ----------
    rules : each slice in words
    reference, target : slice of every image
    gaps : of the images of the confirm half
    """

    rules: list[str]
    reference: Int[np.ndarray, " n1"]
    target: Int[np.ndarray, " n2"]
    gaps: list[SliceGap]


def find_slices(
    reference: Float[np.ndarray, "n1 q"],
    reference_correct: Bool[np.ndarray, " n1"],
    target: Float[np.ndarray, "n2 q"],
    target_correct: Bool[np.ndarray, " n2"],
    explore: tuple[Bool[np.ndarray, " n1"], Bool[np.ndarray, " n2"]],
    *,
    keys: UInt64[np.ndarray, " n"],
    names: Sequence[str],
    categories: Sequence[Sequence[str] | None] | None = None,
    seed: int,
) -> FoundSlices | None:
    """Search one half for slices that lose more or less than others, test them on the other half.

    On the explore half a tree of depth three splits the images so that the gap differs between its
    leaves as much as it can. It is fitted to residuals, so that leaves are not merely hard or
    merely frequent in one set: with m the expected accuracy and e the chance to be of the target,
    both predicted out of fold by logistic regression, the tree predicts (c − m) / (t − e) with
    weights (t − e)². On the confirm half nothing is fitted.

    Parameters
    ----------
    reference, target
        Covariates of each image; NaN where unknown. None may say whether the model is right.
    reference_correct, target_correct
        Whether the model is right.
    explore
        Which images are of the explore half.
    keys
        A number for each image that is its own, reference first: folds are drawn by it, so that
        the order in which images are stored changes nothing.
    names
        Of the covariates.
    categories
        For covariates that are numbers of categories, their names.
    seed
        Of the folds.

    Returns
    -------
    None where there are too few images to search, or the tree finds nothing to split by.

    Source: X. Nie and S. Wager (2021), Biometrika 108, 299-319 (the residuals); S. Athey and
    G. Imbens (2016), PNAS 113, 7353-7360 (one half for the tree, the other for its leaves); S.
    Eyuboglu et al. (2022), ICLR, for slices that know of errors.
    """
    halves = [(mask, ~mask) for mask in explore]
    if min(int(half.sum()) for pair in halves for half in pair) < _LEAST_IMAGES:
        return None
    in_explore = np.concatenate(explore)
    is_target = np.arange(len(in_explore)) >= len(reference)
    columns, labels = _columns(
        np.concatenate([reference, target]), in_explore, names,
        categories or [None] * len(names),
    )  # fmt: skip
    if not labels:
        return None
    correct = np.concatenate([reference_correct, target_correct])
    t = is_target[in_explore]
    basis = design(np.concatenate([reference, target])[in_explore], t, n_knots=4)
    c = correct[in_explore]
    drawn = np.empty(len(c))
    drawn[np.argsort(keys[in_explore])] = np.random.default_rng(seed).random(len(c))
    e = _out_of_fold(basis, t, drawn)
    ahead = t - e
    # the expected accuracy of a place counts the images of both sets that are there
    residual = c - _out_of_fold(basis, c, drawn)
    tree = DecisionTreeRegressor(
        max_depth=_DEPTH, min_weight_fraction_leaf=_LEAST_SHARE, random_state=seed
    )
    tree.fit(columns[in_explore], residual / ahead, sample_weight=np.square(ahead))
    if tree.get_n_leaves() < 2:
        return None
    leaves, place = np.unique(tree.apply(columns), return_inverse=True)
    rules = _rules(tree, labels)
    confirm = ~in_explore
    gaps = slice_gaps(
        place[confirm & ~is_target],
        correct[confirm & ~is_target],
        place[confirm & is_target],
        correct[confirm & is_target],
        n_slices=len(leaves),
    )
    return FoundSlices(
        [rules[leaf] for leaf in leaves.tolist()], place[~is_target], place[is_target], gaps
    )


def _out_of_fold(basis: np.ndarray, y: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Predicted probability of y from a ridge-penalised logistic regression on other folds."""
    found = np.empty(len(y))
    fold = np.empty(len(y), np.int64)
    fold[np.lexsort((drawn, y))] = np.arange(len(y)) % _FOLDS
    for f in range(_FOLDS):
        held = fold == f
        if basis.shape[1] == 0 or len(np.unique(y[~held])) < 2:
            found[held] = y[~held].mean()
            continue
        fit = LogisticRegression(C=1.0, tol=1e-3, max_iter=500)
        found[held] = fit.fit(basis[~held], y[~held]).predict_proba(basis[held])[:, 1]
    return np.clip(found, 0.01, 0.99)


_Label = tuple[str, tuple[str, str] | None]  # covariate; of a column of 0 and 1 what they say


def _columns(
    values: np.ndarray,
    explore: np.ndarray,
    names: Sequence[str],
    categories: Sequence[Sequence[str] | None],
) -> tuple[np.ndarray, list[_Label]]:
    """Columns for a tree: numbers, categories and unknown values each as a column of 0 and 1."""
    columns: list[np.ndarray] = []
    labels: list[_Label] = []
    for j, name in enumerate(names):
        x, kinds = values[:, j], categories[j]
        known = np.isfinite(x)
        if kinds is not None:
            is_either = len(kinds) == 2 and known.all()
            for code in [1] if is_either else range(len(kinds)):
                columns.append((x == code).astype(float))
                no = f"is {kinds[0]}" if is_either else f"is not {kinds[code]}"
                labels.append((name, (no, f"is {kinds[code]}")))
        elif known[explore].any():
            columns.append(np.where(known, x, np.median(x[known & explore])))
            labels.append((name, None))
        if not known.all():
            columns.append((~known).astype(float))
            labels.append((name, ("is known", "is unknown")))
    return (np.column_stack(columns) if columns else np.empty((len(values), 0))), labels


def _rules(tree: DecisionTreeRegressor, labels: Sequence[_Label]) -> dict[int, str]:
    """Path to each leaf in words; of several bounds of one covariate only the tightest count."""
    fitted = tree.tree_
    rules: dict[int, str] = {}

    def walk(node: int, bounds: dict[int, tuple[float, float]]) -> None:
        if fitted.children_left[node] < 0:
            said = [_words(labels[j], *bounds[j]) for j in bounds]
            rules[node] = " and ".join(said)
            return
        j, at = int(fitted.feature[node]), float(fitted.threshold[node])
        low, high = bounds.get(j, (-np.inf, np.inf))
        walk(int(fitted.children_left[node]), bounds | {j: (low, min(high, at))})
        walk(int(fitted.children_right[node]), bounds | {j: (max(low, at), high)})

    walk(0, {})
    return rules


def _words(label: _Label, low: float, high: float) -> str:
    name, says = label
    if says is not None:
        return f"{name} {says[1] if low >= 0 else says[0]}"
    if np.isinf(low):
        return f"{name} at most {high:.3g}"
    if np.isinf(high):
        return f"{name} above {low:.3g}"
    return f"{name} above {low:.3g}, at most {high:.3g}"
