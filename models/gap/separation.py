"""Features that work for one test set and not for the other.

How well each separates the classes of each set, and what accuracy is lost when it is masked.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from models.gap.margins import strongest_others
from models.gap.resampling import Replicates, weighted_sums

_BLOCK = 128  # features at a time
_CLOSE = 1e-4  # scores: what lies nearer to a change of the prediction is looked at in full


@dataclass(frozen=True)
class Separation:
    """Share of each feature's variance that lies between classes, on both sets.

    Attributes
    ----------
    eta2 : between-class share of the sum of squares, [2, d], reference first; with few images a
        class it is far too high
    omega2 : the same without that bias, [2, d]; may fall below 0 by chance; NaN for a constant
    values : omega² of the reference minus that of the target, in the sample and the replicates,
        float64 [1 + m, d]
    errors : standard error of the sample's
    p_values : that it is 0, adjusted for looking at all features
    n : images of each set that took part
    n_classes : classes with at least two images in both sets: the others take no part
    """

    eta2: Float[np.ndarray, "2 d"]
    omega2: Float[np.ndarray, "2 d"]
    values: Float[np.ndarray, "m d"]
    errors: Float[np.ndarray, " d"]
    p_values: Float[np.ndarray, " d"]
    n: dict[str, int]
    n_classes: int


def separation(
    reference: Float[np.ndarray, "n1 d"],
    reference_labels: Int[np.ndarray, " n1"],
    target: Float[np.ndarray, "n2 d"],
    target_labels: Int[np.ndarray, " n2"],
    drawn: Replicates,
    *,
    progress: Callable[[float], None] = lambda _share: None,
) -> Separation:
    """How well each feature separates the classes of each set.

    With M the pooled variance within classes and T the total one, ω² = (T − M) / (T + M / (N − 1)),
    which is Hays's (SSB − (K − 1) MSW) / (SST + MSW). Replicates weigh the squares around the
    sample's own class means (the linear part of what a refit would do): refitted class means of ten
    images would add their noise to the between-class share once more.

    Parameters
    ----------
    drawn
        Bootstrap weights of the images of both sets.
    progress
        Called with the share done.

    Source: W. L. Hays (1963), Statistics for Psychologists; K. Okada (2013), Behaviormetrika 40,
    129-147, for the bias of eta².
    """
    ids, n1 = np.unique(reference_labels, return_counts=True)
    others, n2 = np.unique(target_labels, return_counts=True)
    classes = np.intersect1d(ids[n1 >= 2], others[n2 >= 2])
    sides = [
        _Side(rows, labels, weights, classes)
        for rows, labels, weights in (
            (reference, reference_labels, drawn.reference),
            (target, target_labels, drawn.target),
        )
    ]
    n = {"reference": sides[0].n, "target": sides[1].n}
    d, m = reference.shape[1], drawn.reference.shape[1]
    if len(classes) < 2:
        unknown = np.full((2, d), np.nan)
        nothing = np.full((m, d), np.nan)
        return Separation(unknown, unknown, nothing, nothing[0], nothing[0], n, len(classes))
    eta2, omega2 = np.empty((2, d)), np.empty((2, m, d))
    for start in range(0, d, _BLOCK):
        here = slice(start, min(start + _BLOCK, d))
        for i, side in enumerate(sides):
            eta2[i, here], omega2[i, :, here] = side.shares(here)
        progress(here.stop / d)
    values = omega2[0] - omega2[1]
    errors, p_values = drawn.errors_and_p_values(values)
    return Separation(eta2, omega2[:, 0], values, errors, p_values, n, len(classes))


class _Side:
    """One set's images of the classes that take part, in order of class."""

    def __init__(
        self, rows: np.ndarray, labels: np.ndarray, weights: np.ndarray, classes: np.ndarray
    ) -> None:
        there = np.flatnonzero(np.isin(labels, classes))
        order = there[np.argsort(labels[there], kind="stable")]
        self.n, self._k = len(order), len(classes)
        self._rows, self._order, self._weights = rows, order, weights[order]
        self._counts = np.bincount(np.searchsorted(classes, labels[order]), minlength=self._k)

    def shares(self, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        """eta² [q] and omega² [1 + m, q] of some features."""
        x = self._rows[self._order, columns].astype(float)
        x -= x.mean(axis=0)
        # squares near rounding are those of a constant feature
        floor = (1e-6 * np.abs(self._rows[self._order[:1], columns]).astype(float)[0]) ** 2 * self.n
        starts = np.cumsum(self._counts) - self._counts
        means = np.add.reduceat(x, starts, axis=0) / self._counts[:, None]
        total = weighted_sums(x**2, self._weights)
        x -= np.repeat(means, self._counts, axis=0)
        within = weighted_sums(x**2, self._weights)
        known = total[0] > floor
        total[:, ~known] = np.nan
        eta2 = 1 - within[0] / total[0]
        of_all, of_classes = total / (self.n - 1), within / max(self.n - self._k, 1)
        return eta2, (of_all - of_classes) / (of_all + of_classes / (self.n - 1))


def right_without(
    scores: Float[np.ndarray, "n k"],
    columns: Int[np.ndarray, " n"],
    values: Float[np.ndarray, "n q"],
    weight: Float[np.ndarray, "k q"],
    *,
    progress: Callable[[float], None] = lambda _share: None,
) -> Bool[np.ndarray, "n q"]:
    """Whether a linear head is right on each image with one feature set to its train mean.

    The scores are those with all features; masking feature j takes x_j w_j off them. Only images
    near enough to a change are looked at in full: the margin to the strongest other class says
    which they are.

    Parameters
    ----------
    columns
        Column of each image's class, -1 where the head does not know it: never right.
    values
        Features to mask, in train standard deviations from the train mean.
    weight
        Their weights, scores per train standard deviation.

    Examples
    --------
    >>> scores = np.array([[2.0, 1.0]])
    >>> right_without(scores, np.array([0]), np.array([[1.0]]), np.array([[2.0], [0.0]])).tolist()
    [[False]]
    """
    n, q = values.shape
    found = np.zeros((n, q), bool)
    known = np.flatnonzero(columns >= 0)
    own, row = columns[known], np.arange(len(known))
    if len(known) == 0:
        return found
    at = scores[known] if len(known) < n else scores
    other = strongest_others(at, own)
    margin = at[row, own].astype(float) - at[row, other]
    for j in range(q):
        z, w = values[known, j].astype(float), weight[:, j].astype(float)
        # how far the margin to any other class may fall, and to the strongest one does
        most = np.where(z > 0, z * (w[own] - w.min()), z * (w[own] - w.max()))
        surely_right = margin - most > _CLOSE
        surely_wrong = margin - z * (w[own] - w[other]) < -_CLOSE
        right = surely_right & ~surely_wrong
        for some in np.array_split(np.flatnonzero(~surely_right & ~surely_wrong), 1 + n // 2048):
            moved = at[some] - z[some, None] * w[None, :]
            right[some] = moved.argmax(axis=1) == own[some]
        found[known, j] = right
        progress((j + 1) / q)
    return found


@dataclass(frozen=True)
class Losses:
    """Accuracy lost where a feature is masked, one column a feature.

    Attributes
    ----------
    reference, target : accuracy with it minus accuracy without it on each set, in the sample and
        the replicates, float64 [1 + m, q]
    errors : standard error of their difference, reference minus target
    p_values : that the difference is 0, adjusted for looking at all masked features
    """

    reference: Float[np.ndarray, "m q"]
    target: Float[np.ndarray, "m q"]
    errors: Float[np.ndarray, " q"]
    p_values: Float[np.ndarray, " q"]

    @property
    def difference(self) -> Float[np.ndarray, "m q"]:
        """What the gap would be smaller by without the feature."""
        return np.asarray(self.reference - self.target)


def losses(
    reference_right: Bool[np.ndarray, " n1"],
    reference_without: Bool[np.ndarray, "n1 q"],
    target_right: Bool[np.ndarray, " n2"],
    target_without: Bool[np.ndarray, "n2 q"],
    drawn: Replicates,
) -> Losses:
    """Accuracy lost on both sets, paired image by image.

    Examples
    --------
    >>> drawn = Replicates(np.ones((2, 3), np.float32), np.ones((1, 3), np.float32), 0)
    >>> yes, no = np.array([True, True]), np.array([[True], [False]])
    >>> losses(yes, no, yes[:1], no[:1], drawn).difference[0].tolist()
    [0.5]
    """
    sides = []
    for right, without, weights in (
        (reference_right, reference_without, drawn.reference),
        (target_right, target_without, drawn.target),
    ):
        change = right[:, None].astype(np.float32) - without
        total = weights.sum(axis=0, dtype=float)
        sides.append(weighted_sums(change, weights) / total[:, None])
    errors, p_values = drawn.errors_and_p_values(sides[0] - sides[1])
    return Losses(sides[0], sides[1], errors, p_values)
