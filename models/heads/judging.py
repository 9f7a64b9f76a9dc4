"""How good scores of held-out rows are: accuracy, and loss at the best temperature."""

import math

import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar

from models.heads.closed_form import ABSENT

_TEMPERATURE_ROWS, _TEMPERATURE_SCORES = 10_000, 4_000_000


def best_temperature(
    scores: Float[torch.Tensor, "n k"], y: Int[torch.Tensor, " n"], precision: float = 1e-3
) -> float:
    """Temperature by which the scores are to be divided for the lowest loss.

    At most the first 10,000 rows, and 4 million scores, are looked at; `precision` is relative.
    Where all rows are right the loss alone would ask for certainty; n right ones do not show it,
    so targets are smoothed by 1/(n + 2).

    Source: C. Guo et al. (2017), On calibration of modern neural networks, ICML.

    Examples
    --------
    >>> scores = torch.tensor([[2.0, 0.0]] * 3 + [[0.0, 2.0]])
    >>> round(best_temperature(scores, torch.tensor([0, 0, 0, 0])), 1)  # right in 3 of 4: log 2
    2.3
    """
    n = min(_TEMPERATURE_ROWS, max(1000, _TEMPERATURE_SCORES // scores.shape[1]))
    logits, y = without_absent(scores[:n]), y[:n]
    smoothing = 1 / (len(y) + 2)
    found = minimize_scalar(
        lambda log_temperature: float(
            torch.nn.functional.cross_entropy(
                logits / math.exp(log_temperature), y, label_smoothing=smoothing
            )
        ),
        bounds=(-7, 7),
        method="bounded",
        options={"xatol": precision},
    )
    return math.exp(found.x)


def nll_at(
    scores: Float[torch.Tensor, "n k"], y: Int[torch.Tensor, " n"], temperature: float
) -> float:
    """Mean −log probability of the labels in nats, with the scores divided by a temperature."""
    scaled = without_absent(scores) / temperature
    return float(torch.nn.functional.cross_entropy(scaled, y))


def nll_at_best_temperature(
    scores: Float[torch.Tensor, "n k"], y: Int[torch.Tensor, " n"], precision: float = 1e-3
) -> float:
    """Mean −log probability of the labels in nats at the best temperature."""
    return nll_at(scores, y, best_temperature(scores, y, precision))


def without_absent(scores: Float[torch.Tensor, "n k"]) -> Float[torch.Tensor, "n k"]:
    """Scores in which a class without rows in its fold is the least likely, not impossible."""
    absent = scores < ABSENT / 2
    if not absent.any():
        return scores
    floor = scores.masked_fill(absent, math.inf).amin(dim=1, keepdim=True)
    return torch.where(absent, floor, scores)
