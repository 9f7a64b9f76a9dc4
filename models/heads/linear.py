"""A trained head, linear in the standardised features, and what it says of rows."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from models.errors import NotFiniteInput, WrongShape

_BLOCK_ROWS = 8192


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


@dataclass(frozen=True)
class LinearHead:
    """Scores f(x) = ((x - mean) / scale) · weight + bias, one per class.

    Attributes
    ----------
    mean, scale : float64 [d], of the train rows; scale is 1 for a constant feature
    weight : float32 [d, k], on standardised features
    bias : float32 [k]
    class_ids : int64 [k], rising; column j of the scores is class class_ids[j]
    """

    mean: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"]
    weight: Float[np.ndarray, "d k"]
    bias: Float[np.ndarray, " k"]
    class_ids: Int[np.ndarray, " k"]

    @property
    def n_features(self) -> int:
        """Length of the vectors that it reads."""
        return len(self.mean)

    def scores(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        """Scores (logits) of each class, float32 [n, k].

        Raises
        ------
        WrongShape, NotFiniteInput
        """
        return np.concatenate(
            [block.numpy() for block in self._blocks(features)]
            or [np.empty((0, len(self.class_ids)), np.float32)]
        )

    def probabilities(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        """Softmax of the scores, float64 [n, k]; each row sums to 1."""
        scores = torch.from_numpy(self.scores(features)).double()
        return np.asarray(torch.softmax(scores, dim=1).numpy())

    def predict(
        self, features: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"]
    ) -> Predictions:
        """Predictions for rows with labels; a label that the head does not know is never right.

        Ties go to the lower class id.

        Raises
        ------
        WrongShape, NotFiniteInput
        """
        column, known = self._columns(labels)
        parts = []
        start = 0
        for scores in self._blocks(features):
            stop = start + len(scores)
            parts.append(
                predictions_of(scores, column[start:stop], known[start:stop], self.class_ids)
            )
            start = stop
        return Predictions(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in Predictions.__dataclass_fields__
            )
        )

    def feature_weights(self) -> Float[np.ndarray, " d"]:
        """How much each feature moves the scores apart: norm over classes of its centred weights.

        In scores per standard deviation of the train rows, ‖w_j − w̄_j‖₂, float64 [d].
        """
        centred = self.weight - self.weight.mean(axis=1, keepdims=True)
        return np.asarray(np.linalg.norm(centred.astype(float), axis=1))

    def _blocks(self, features: Float[np.ndarray, "n d"]) -> Iterator[torch.Tensor]:
        if features.shape[1] != self.n_features:
            raise WrongShape(
                f"wanted {self.n_features} features a row, got {features.shape[1]}. "
                "Use the backbone that this model was trained on."
            )
        weight, bias = torch.from_numpy(self.weight), torch.from_numpy(self.bias)
        for start in range(0, len(features), _BLOCK_ROWS):
            with np.errstate(over="ignore"):  # beyond float32 is infinite, and refused as such
                block = features[start : start + _BLOCK_ROWS].astype(np.float32)
            if not np.isfinite(block).all():
                raise NotFiniteInput(
                    "wanted finite features, got NaN or infinity. Extract these images again."
                )
            # in float64: a mean far from 0 must not swallow the differences
            with np.errstate(over="ignore"):
                standardised = ((block - self.mean) / self.scale).astype(np.float32)
            scores = torch.addmm(bias, torch.from_numpy(standardised), weight)
            if not torch.isfinite(scores).all():
                raise NotFiniteInput(
                    "wanted features near those that the model was trained on, got some so far "
                    "away that the scores overflow. Check the units of these features."
                )
            yield scores

    def _columns(
        self, labels: Int[np.ndarray, " n"]
    ) -> tuple[Int[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
        column = np.searchsorted(self.class_ids, labels)
        column = np.minimum(column, len(self.class_ids) - 1)
        return column, self.class_ids[column] == labels


def predictions_of(
    scores: torch.Tensor,
    column: Int[np.ndarray, " n"],
    known: Bool[np.ndarray, " n"],
    class_ids: Int[np.ndarray, " k"],
) -> Predictions:
    """Predictions from scores [n, k] and the column of each row's label."""
    top, best = scores.max(dim=1)
    lse = torch.logsumexp(scores.double(), dim=1)
    own = scores.gather(1, torch.from_numpy(column)[:, None]).squeeze(1)
    # rank by strictly higher scores, ties by class id: the same rule as argmax
    higher = (scores > own[:, None]).sum(dim=1)
    before = torch.arange(scores.shape[1])[None, :] < torch.from_numpy(column)[:, None]
    rank = higher + ((scores == own[:, None]) & before).sum(dim=1)
    nll = (lse - own.double()).numpy()
    return Predictions(
        predicted=class_ids[best.numpy()],
        confidence=np.exp((top.double() - lse).numpy()),
        correct=(best.numpy() == column) & known,
        in_top5=(rank.numpy() < 5) & known,
        nll=np.where(known, nll, np.nan),
    )
