"""The softmax loss and its gradient over blocks of rows, for many problems in one product."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64

Block = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Targets:
    """What a block's rows should be called.

    Attributes
    ----------
    y : int64 [b], column of each row's class
    other : int64 [b], a second class, or None
    share : float32 [b], the weight of the first class where there is a second
    weight : float32 [b], of each row's loss, or None for 1
    smoothing : share of each row's target that is spread over all classes
    """

    y: Int64[torch.Tensor, " b"]
    other: torch.Tensor | None = None
    share: torch.Tensor | None = None
    weight: torch.Tensor | None = None
    smoothing: float = 0.0


@dataclass(frozen=True)
class Slope:
    """Loss and gradient of h problems, summed over rows.

    Attributes
    ----------
    loss : float64 [h]
    weight : float32 [h, k, d]
    bias : float32 [h, k]
    """

    loss: Float[torch.Tensor, " h"]
    weight: Float[torch.Tensor, "h k d"]
    bias: Float[torch.Tensor, "h k"]


def slope(
    blocks: Iterable[Block],
    targets: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, Targets]],
    weight: Float[torch.Tensor, "h d k"],
    bias: Float[torch.Tensor, "h k"],
    *,
    low_precision: bool = False,
    tick: Callable[[int], None] = lambda _rows: None,
) -> Slope:
    """Loss Σ −log p and its gradient: two products a block, X·[W_1 … W_h] and residual'·X.

    The scores of a block stay in cache; no matrix of n × hk is ever made.

    Parameters
    ----------
    targets
        Turns a block (X, y) into the rows and targets that are learnt from.
    low_precision
        Whether the products are made of bfloat16 numbers; sums stay float32.
    tick
        Called after each block with its number of rows.
    """
    h, d, k = weight.shape
    device = weight.device
    flat = weight.permute(1, 0, 2).reshape(d, h * k)
    flat_bias = bias.reshape(1, h * k)
    loss = torch.zeros(h, dtype=torch.float64, device=device)
    total = torch.zeros(h * k, d, device=device)
    bias_total = torch.zeros(h * k, device=device)
    low = flat.bfloat16() if low_precision else None
    room = low_rows = low_scores = torch.empty(0, device=device)
    for X, y in blocks:
        rows, wanted = targets(X, y)
        n = len(rows)
        if room.shape[0] < n:  # once: fresh memory for each block costs as much as the softmax
            room = torch.empty(n, h * k, device=device)
            if low is not None:
                low_rows = torch.empty(n, d, device=device, dtype=torch.bfloat16)
                low_scores = torch.empty(n, h * k, device=device, dtype=torch.bfloat16)
        scores = room[:n]
        if low is None:
            torch.addmm(flat_bias, rows, flat, out=scores)
        else:
            rows = low_rows[:n].copy_(rows)
            torch.add(torch.mm(rows, low, out=low_scores[:n]), flat_bias, out=scores)
        loss += to_residual(scores.view(-1, h, k), wanted)
        if low is None:
            total.addmm_(scores.T, rows)
        else:
            total.add_(low_scores[:n].copy_(scores).T @ rows)
        bias_total.add_(scores.sum(dim=0))
        tick(len(y))
    return Slope(loss, total.view(h, k, d), bias_total.view(h, k))


def to_residual(scores: Float[torch.Tensor, "b h k"], wanted: Targets) -> torch.Tensor:
    """Turn scores, where they lie, into p − target, and return the loss of each problem [h]."""
    k = scores.shape[2]
    shares = _shares(wanted, scores)
    losses = torch.zeros(scores.shape[:2], dtype=torch.float64, device=scores.device)
    for column, share in shares:
        place = column[:, None, None].expand(-1, scores.shape[1], 1)
        losses -= share.double() * scores.gather(2, place).squeeze(2)
    if wanted.smoothing:
        losses -= wanted.smoothing * scores.mean(dim=2)
    # one fused pass; the largest probability, at least 1/k, gives back log Σ exp to the last digit
    largest = scores.amax(dim=2)
    torch.softmax(scores, dim=2, out=scores)
    losses += largest.double() - scores.amax(dim=2).double().log()
    for column, share in shares:
        place = column[:, None, None].expand(-1, scores.shape[1], 1)
        value = (-share)[:, :, None].expand(-1, scores.shape[1], 1)
        scores.scatter_add_(2, place, value)
    if wanted.smoothing:
        scores.sub_(wanted.smoothing / k)
    if wanted.weight is not None:
        scores.mul_(wanted.weight[:, None, None])
        losses = losses * wanted.weight[:, None].double()
    return losses.sum(dim=0)


def _shares(wanted: Targets, scores: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Columns that have a share of the target of their own, and that share [b, 1]."""
    whole = 1 - wanted.smoothing
    if wanted.other is None or wanted.share is None:
        return [(wanted.y, scores.new_full((len(scores), 1), whole))]
    first = wanted.share[:, None] * whole
    return [(wanted.y, first), (wanted.other, whole - first)]
