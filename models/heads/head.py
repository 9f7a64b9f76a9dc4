"""What every trained head can do, whatever it is made of, and what it says of rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from models.errors import NotFiniteInput, WrongShape

_BLOCK_ROWS = 2048


@runtime_checkable
class Head(Protocol):
    """A classifier on frozen features: scores of classes for rows of features."""

    @property
    def class_ids(self) -> Int[np.ndarray, " k"]:
        """Class of each column of the scores, rising, int64 [k]."""

    @property
    def n_features(self) -> int:
        """Length of the vectors that it reads."""

    def block_scores(self, X: Float[torch.Tensor, "n d"]) -> Float[torch.Tensor, "n k"]:
        """Scores (logits) of one block of finite float32 features, float32 [n, k].

        `scores`, `predict` and `probabilities` check the features and call it block by block.
        """

    def feature_weights(self) -> Float[np.ndarray, " d"]:
        """How much each feature moves the scores apart, float64 [d], at least 0.

        In scores per standard deviation of the train rows: the norm over classes of the centred
        weights of the head's best linear approximation (a linear head is its own).
        """


@dataclass(frozen=True)
class Predictions:
    """What a head says of n rows.

    Attributes
    ----------
    predicted : int64 [n], class id of the highest score
    confidence : float64 [n], its probability
    correct : bool [n]
    in_top5 : bool [n], whether the label is among the five highest scores
    nll : float64 [n], minus the log of the label's probability in nats; NaN for a label that the
        head does not know (null everywhere outside)
    """

    predicted: Int[np.ndarray, " n"]
    confidence: Float[np.ndarray, " n"]
    correct: Bool[np.ndarray, " n"]
    in_top5: Bool[np.ndarray, " n"]
    nll: Float[np.ndarray, " n"]


def scores(head: Head, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
    """Scores (logits) of each class, float32 [n, k].

    Raises
    ------
    WrongShape, NotFiniteInput
    """
    found = np.empty((len(features), len(head.class_ids)), np.float32)
    for start, block in _blocks(head, features):
        found[start : start + len(block)] = block.numpy()
    return found


def probabilities(head: Head, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
    """Softmax of the scores, float64 [n, k]; each row sums to 1.

    Raises
    ------
    WrongShape, NotFiniteInput
    """
    logits = torch.from_numpy(scores(head, features)).double()
    return np.asarray(torch.softmax(logits, dim=1).numpy())


def predict(
    head: Head, features: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"]
) -> Predictions:
    """Predictions for rows with labels; a label that the head does not know is never right.

    Ties go to the lower class id.

    Raises
    ------
    WrongShape, NotFiniteInput
    """
    column, known = _columns(head.class_ids, labels)
    parts = []
    for start, block in _blocks(head, features):
        here = slice(start, start + len(block))
        parts.append(predictions_of(block, column[here], known[here], head.class_ids))
    if not parts:
        empty = torch.empty(0, len(head.class_ids))
        parts = [predictions_of(empty, column, known, head.class_ids)]
    return Predictions(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in Predictions.__dataclass_fields__
        )
    )


def predictions_of(
    scores: torch.Tensor,
    column: Int[np.ndarray, " n"],
    known: Bool[np.ndarray, " n"],
    class_ids: Int[np.ndarray, " k"],
) -> Predictions:
    """Predictions from scores [n, k] and the column of each row's label."""
    place = torch.from_numpy(column)
    top, best = scores.max(dim=1)
    # sums of float32 below 1e-6 relative; the scores themselves are float32
    lse = torch.logsumexp(scores, dim=1).double()
    own = scores.gather(1, place[:, None])
    # rank by strictly higher scores, ties by class id: the same rule as the maximum's
    rank = torch.zeros(len(scores), dtype=torch.int64)
    wrong = torch.nonzero(best != place).flatten()
    if len(wrong):
        others, mine = scores[wrong], own[wrong]
        above = (others > mine).sum(dim=1)
        for row in torch.nonzero((others >= mine).sum(dim=1) > above + 1).flatten().tolist():
            above[row] += int((others[row, : int(place[wrong[row]])] == mine[row]).sum())
        rank[wrong] = above
    nll = (lse - own.squeeze(1).double()).clamp(min=0).numpy()
    return Predictions(
        predicted=class_ids[best.numpy()],
        confidence=np.exp((top.double() - lse).clamp(max=0).numpy()),
        correct=(best.numpy() == column) & known,
        in_top5=(rank.numpy() < 5) & known,
        nll=np.where(known, nll, np.nan),
    )


def _blocks(
    head: Head, features: Float[np.ndarray, "n d"]
) -> Iterator[tuple[int, Float[torch.Tensor, "b k"]]]:
    """Each block's first row and its scores."""
    if features.shape[1] != head.n_features:
        raise WrongShape(
            f"wanted {head.n_features} features a row, got {features.shape[1]}. "
            "Use the backbone that this model was trained on."
        )
    for start in range(0, len(features), _BLOCK_ROWS):
        with np.errstate(over="ignore"):  # beyond float32 is infinite, and refused as such
            block = features[start : start + _BLOCK_ROWS].astype(np.float32, copy=False)
        # torch wants memory that may be written, whatever it does with it
        rows = torch.from_numpy(np.require(block, requirements=["C", "W"]))
        if not _is_finite(rows):
            raise NotFiniteInput(
                "wanted finite features, got NaN or infinity. Extract these images again."
            )
        found = head.block_scores(rows)
        if not _is_finite(found):
            raise NotFiniteInput(
                "wanted features near those that the model was trained on, got some so far "
                "away that the scores overflow. Check the units of these features."
            )
        yield start, found


def _is_finite(block: Float[torch.Tensor, "n m"]) -> bool:
    """Whether all numbers are finite: mostly the sum tells, at a tenth of the cost."""
    return bool(torch.isfinite(block.sum())) or bool(torch.isfinite(block).all())


def _columns(
    class_ids: Int[np.ndarray, " k"], labels: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    column = np.searchsorted(class_ids, labels)
    column = np.minimum(column, len(class_ids) - 1)
    return column, class_ids[column] == labels
