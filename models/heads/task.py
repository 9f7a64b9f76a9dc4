"""What a kind of head is asked to fit, and what it gives back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int

from models.heads.checkpoint import Checkpoint, NoCheckpoint
from models.heads.linear import LinearHead
from models.heads.matrix import Part, Tick

Params = dict[str, Any]


@runtime_checkable
class TrainedHead(Protocol):
    """A `Head` that was trained here: it can also score rows that are standardised already."""

    @property
    def class_ids(self) -> Int[np.ndarray, " k"]:
        """Class of each column of the scores, rising, int64 [k]."""

    @property
    def n_features(self) -> int:
        """Length of the vectors that it reads."""

    def block_scores(self, X: Float[torch.Tensor, "n d"]) -> Float[torch.Tensor, "n k"]:
        """Scores of one block of finite float32 features."""

    def standard_scores(self, X: Float[torch.Tensor, "n d"]) -> Float[torch.Tensor, "n k"]:
        """Scores of standardised rows."""

    def with_temperature(self, temperature: float) -> "TrainedHead":
        """Return the head with its scores divided by a temperature."""

    def feature_weights(self) -> Float[np.ndarray, " d"]:
        """How much each feature moves the scores apart, float64 [d]."""


@dataclass(frozen=True)
class Fit:
    """One task: fit a head on some rows for each candidate.

    Attributes
    ----------
    part : the rows
    candidates : parameters of each, weakest regularisation first
    seed : of whatever is drawn
    monitor : rows by which a fit may be stopped early; None: none
    found : for each candidate, what an earlier fit with a monitor found of it
    low_precision : whether bfloat16 may be used where the final digits do not hang on it
    tick : called with the share done
    checkpoint, key : where to keep what a killed training goes on from
    """

    part: Part
    candidates: Sequence[Params]
    seed: int
    monitor: Part | None = None
    found: Sequence[Mapping[str, Any]] | None = None
    low_precision: bool = False
    tick: Tick = lambda _share: None
    checkpoint: Checkpoint = field(default_factory=NoCheckpoint)
    key: str = "fit"

    def linear(
        self, weight: Float[torch.Tensor, "d k"], bias: Float[torch.Tensor, " k"]
    ) -> LinearHead:
        """Return the head of weights on standardised features."""
        matrix = self.part.matrix
        return LinearHead(
            matrix.standard.mean,
            matrix.standard.scale,
            weight.cpu().numpy(),
            bias.cpu().numpy(),
            matrix.class_ids,
        )


@dataclass(frozen=True)
class Fitted:
    """A head and how its fit went.

    Attributes
    ----------
    head : not yet scaled by a temperature
    found : what a fit on other rows needs to end as this one did
    curve : (loss, monitored NLL or None) of each step; empty for closed forms
    note : what users should know, "" where there is nothing
    held_scores : the scores of rows that were held out, where candidates share their making
    """

    head: TrainedHead
    found: Mapping[str, Any] = field(default_factory=dict)
    curve: Sequence[tuple[float, float | None]] = ()
    note: str = ""
    held_scores: Callable[[Part], torch.Tensor] | None = None
