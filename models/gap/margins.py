"""Which features make a linear head's margins smaller on one set than on another (G8)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from models.gap.resampling import Replicates, weighted_sums
from models.heads import LinearHead

_BLOCK_ROWS = 2048


@dataclass(frozen=True)
class StandardHead:
    """A linear head on features in train standard deviations from the train mean, in float64.

    Attributes
    ----------
    mean, scale : of the features over the train rows; scale is 1 for a constant one
    weight : float64 [k, d], scores per train standard deviation
    bias : float64 [k], scores at the train mean
    class_ids : int64 [k], rising
    """

    mean: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"]
    weight: Float[np.ndarray, "k d"]
    bias: Float[np.ndarray, " k"]
    class_ids: Int[np.ndarray, " k"]

    @classmethod
    def of(
        cls, head: LinearHead, mean: Float[np.ndarray, " d"], sd: Float[np.ndarray, " d"]
    ) -> "StandardHead":
        """Return the same head in these units, whatever units its weights were given in."""
        scale = np.where(sd > 0, sd, 1.0)
        per_unit = head.weight.astype(float) / head.scale[:, None]
        bias = head.bias + (mean - head.mean) @ per_unit
        return cls(mean, scale, (per_unit * scale[:, None]).T.copy(), bias, head.class_ids)

    def column_of(self, labels: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Column of each label among the scores, -1 for one that the head does not know."""
        column = np.minimum(np.searchsorted(self.class_ids, labels), len(self.class_ids) - 1)
        return np.where(self.class_ids[column] == labels, column, -1)


@dataclass(frozen=True)
class MarginLedger:
    """Terms of the difference of mean margins, reference minus target, one a feature.

    Attributes
    ----------
    values : float64 [1 + m, d], the terms in the sample and in each replicate, scores
    errors : standard error of each term
    p_values : that the term is 0, adjusted for looking at all features
    bias : what the biases make of another mix of classes (or of competitors)
    difference : mean margin on the reference minus mean margin on the target, float64 [1 + m]
    residual : what terms and bias leave of it: rounding
    """

    values: Float[np.ndarray, "m d"]
    errors: Float[np.ndarray, " d"]
    p_values: Float[np.ndarray, " d"]
    bias: float
    difference: Float[np.ndarray, " m"]
    residual: float


def margin_ledger(
    head: StandardHead,
    reference: Float[np.ndarray, "n1 d"],
    reference_columns: Int[np.ndarray, " n1"],
    target: Float[np.ndarray, "n2 d"],
    target_columns: Int[np.ndarray, " n2"],
    drawn: Replicates,
    *,
    competitors: tuple[Int[np.ndarray, " n1"], Int[np.ndarray, " n2"]] | None = None,
    progress: Callable[[float], None] = lambda _share: None,
) -> MarginLedger:
    """Terms C_j, or with `competitors` D_j, of the difference of mean margins.

    The margin of an image is its own class's score minus the mean of the others,
    m = A [(w_y − w̄)·x + b_y − b̄] with A = K / (K − 1), and mean_P m − mean_Q m = Σ C_j + B exactly,
    C_j = A {mean_P[(w_yj − w̄_j) x_j] − mean_Q[same]}. With competitors it is own score minus that
    of the strongest other class, m* = f_y − max f, above 0 where the image is right, and D_j
    likewise. x is in train standard deviations from the train mean.

    C_j cancels a translation that all classes share (D_j does not, where the head's competitors
    are lopsided in j); it sees an attenuation of what tells the classes apart.

    Parameters
    ----------
    reference, target
        Features of images whose class the head knows.
    reference_columns, target_columns
        Column of each image's class among the scores.
    drawn
        Bootstrap weights of the same images.
    competitors
        Of `strongest_others`, for both sets.
    progress
        Called with the share done.
    """
    sides = []
    for i, (rows, own, weights) in enumerate(
        ((reference, reference_columns, drawn.reference), (target, target_columns, drawn.target))
    ):
        other = None if competitors is None else competitors[i]

        def tick(share: float, first: int = i) -> None:
            progress((first + share) / 2)

        sides.append(_means(head, rows, own, other, weights, tick))
    (c1, b1, m1), (c2, b2, m2) = sides
    values, biases, margins = c1 - c2, b1 - b2, m1 - m2
    errors, p_values = drawn.errors_and_p_values(values)
    residual = float(margins - values[0].sum() - biases[0])
    difference = values.sum(axis=1) + biases
    return MarginLedger(values, errors, p_values, float(biases[0]), difference, residual)


def _means(
    head: StandardHead,
    rows: np.ndarray,
    own: np.ndarray,
    other: np.ndarray | None,
    weights: np.ndarray,
    tick: Callable[[float], None],
) -> tuple[np.ndarray, np.ndarray, float]:
    """Weighted mean contributions [1 + m, d] and biases [1 + m]; the mean margin, row by row."""
    k = len(head.class_ids)
    stretch = k / (k - 1) if other is None else 1.0
    total = weights.sum(axis=0, dtype=float)
    terms = np.zeros((weights.shape[1], rows.shape[1]))
    biases = np.zeros(weights.shape[1])
    margin = 0.0
    mean_weight, mean_bias = head.weight.mean(axis=0), head.bias.mean()
    for start in range(0, len(rows), _BLOCK_ROWS):
        here = slice(start, start + _BLOCK_ROWS)
        if other is None:
            apart = head.weight[own[here]]
            apart -= mean_weight
            bias = head.bias[own[here]] - mean_bias
        else:
            apart = head.weight[own[here]]
            apart -= head.weight[other[here]]
            bias = head.bias[own[here]] - head.bias[other[here]]
        z = rows[here].astype(float)
        z -= head.mean
        z /= head.scale
        margin += float((np.einsum("ij,ij->i", apart, z) + bias).sum()) * stretch
        apart *= z
        apart *= stretch
        terms += weighted_sums(apart, weights[here])
        biases += weighted_sums(stretch * bias[:, None], weights[here])[:, 0]
        tick(min(1.0, (start + _BLOCK_ROWS) / len(rows)))
    return terms / total[:, None], biases / total, margin / len(rows)


def strongest_others(
    scores: Float[np.ndarray, "n k"], columns: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """Column of the highest score among the classes that are not an image's own.

    Examples
    --------
    >>> strongest_others(np.array([[3.0, 2.0, 1.0]]), np.array([0])).tolist()
    [1]
    """
    found = np.empty(len(scores), np.int64)
    for start in range(0, len(scores), _BLOCK_ROWS):
        block = scores[start : start + _BLOCK_ROWS].copy()
        block[np.arange(len(block)), columns[start : start + _BLOCK_ROWS]] = -np.inf
        found[start : start + _BLOCK_ROWS] = block.argmax(axis=1)
    return found
