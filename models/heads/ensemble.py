"""Several heads as one: a weighted mean of their calibrated scores."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Int

from models.heads.head import Head
from models.heads.judging import without_absent
from models.heads.task import TrainedHead

_WEIGHT_ROWS = 20_000
_STEPS = 200
_SMALL = 0.02


@dataclass(frozen=True)
class EnsembleHead:
    """Scores Σ share_m · scores_m, of which each m is calibrated: a product of experts.

    Attributes
    ----------
    members : heads over the same features and classes
    shares : float64 [m], weight of each member's log probabilities, at least 0
    """

    members: tuple[Head, ...]
    shares: Float[np.ndarray, " m"]

    @property
    def class_ids(self) -> Int[np.ndarray, " k"]:
        """Class of each column of the scores."""
        return self.members[0].class_ids

    @property
    def n_features(self) -> int:
        """Length of the vectors that it reads."""
        return self.members[0].n_features

    def block_scores(self, X: Float[torch.Tensor, "n d"]) -> Float[torch.Tensor, "n k"]:
        """Scores of one block of finite float32 features."""
        return combined([member.block_scores(X) for member in self.members], self.shares)

    def standard_scores(self, X: Float[torch.Tensor, "n d"]) -> Float[torch.Tensor, "n k"]:
        """Scores of standardised rows."""
        members = cast(tuple[TrainedHead, ...], self.members)
        return combined([member.standard_scores(X) for member in members], self.shares)

    def with_temperature(self, temperature: float) -> "EnsembleHead":
        """Return the head with its scores divided by a temperature."""
        return replace(self, shares=self.shares / temperature)

    def feature_weights(self) -> Float[np.ndarray, " d"]:
        """How much each feature moves the scores apart: the members' weighted sum, a bound."""
        parts = [s * m.feature_weights() for s, m in zip(self.shares, self.members, strict=True)]
        return np.asarray(sum(parts[1:], start=parts[0]))


def combined(
    scores: Sequence[Float[torch.Tensor, "n k"]], shares: Float[np.ndarray, " m"]
) -> Float[torch.Tensor, "n k"]:
    """Weighted sum of the members' log probabilities, float32 [n, k].

    Examples
    --------
    >>> one, other = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    >>> torch.softmax(combined([one, other], np.array([1.0, 1.0])), dim=1).round(decimals=2)
    tensor([[0.7300, 0.2700]])
    """
    total = torch.zeros_like(scores[0])
    for found, share in zip(scores, shares, strict=True):
        total += float(share) * torch.log_softmax(without_absent(found), dim=1)
    return total


def best_shares(
    scores: Sequence[Float[torch.Tensor, "n k"]], y: Int[torch.Tensor, " n"]
) -> Float[np.ndarray, " m"]:
    """Shares of calibrated members for the lowest loss on rows that none of them learnt from.

    Members of less than 2 % of the whole are left out. At most 20,000 rows are looked at; targets
    are smoothed by 1/(n + 2), as for a temperature.

    Source: G. Hinton (2002), Training products of experts, Neural Computation 14.
    """
    some = [s[:_WEIGHT_ROWS].float() for s in scores]
    logs = torch.stack([torch.log_softmax(without_absent(s), dim=1) for s in some])
    y = y[:_WEIGHT_ROWS]
    theta = torch.full((len(scores),), -np.log(len(scores)).item(), dtype=torch.float64)
    theta.requires_grad_()
    optimiser = torch.optim.LBFGS([theta], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        mixed = torch.einsum("m,mnk->nk", theta.exp().float(), logs)
        loss = torch.nn.functional.cross_entropy(mixed, y, label_smoothing=1 / (len(y) + 2))
        loss = loss + 1e-6 * theta.square().sum().float()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    shares = theta.detach().exp().numpy()
    return np.where(shares < _SMALL * shares.sum(), 0.0, shares)
