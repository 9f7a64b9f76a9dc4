"""Weights from standardised rows, for every value of a head's hyper-parameter.

Each function takes X float32 [n, d] (standardised on these rows), y int64 [n] in 0 … k-1 and the
values to try, and yields (weight [d, k], bias [k]) in the order of the values. What the values
share is computed once: one pass over the rows for all penalties, one covariance and one
eigendecomposition for all shrinkages.
"""

from collections.abc import Callable, Iterator, Sequence

import torch

from models.heads.lbfgs import minimise

Solution = tuple[torch.Tensor, torch.Tensor]
# called between steps with the share of this fit that is done; may raise to stop the fit
Tick = Callable[[float], None]

_MAX_ITERATIONS = 300
_OPTIMISER_BYTES = 2e9
_SCORES_BYTES = 32e6
# score of a class without rows: it must not win the rows that were held out of its fold
ABSENT = -1e30


def logistic(
    X: torch.Tensor, y: torch.Tensor, k: int, values: Sequence[float], tick: Tick
) -> Iterator[Solution]:
    """Multinomial logistic regression, min Σ loss + ‖W‖² / (2C), for each C, the bias free.

    All penalties share each pass over the rows: one product X · [W_1 … W_h] instead of h. Products
    are float32, sums and parameters float64; at most 300 iterations. With two classes the penalty
    is shared by two weight vectors, so that C here is half of scikit-learn's.
    """
    n, d = X.shape
    penalty = 1 / torch.tensor(values, dtype=torch.float64)
    # as many problems at once as keep the optimiser's memory of its steps below about 2 GB
    at_once = max(1, int(_OPTIMISER_BYTES / (8 * 22 * (d + 1) * k)))
    passes = 0

    def evaluate(which: torch.Tensor, theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal passes
        passes += 1
        tick(min(0.99, (first + at_once * passes / _MAX_ITERATIONS) / len(values)))
        h = len(theta)
        weight = theta[:, : d * k].reshape(h, d, k)
        flat = weight.float().permute(1, 0, 2).reshape(d, h * k)
        bias = theta[:, d * k :].float().reshape(-1)
        loss = torch.zeros(h, dtype=torch.float64)
        slope = torch.zeros(h * k, d, dtype=torch.float64)
        bias_slope = torch.zeros(h, k, dtype=torch.float64)
        # blocks of rows whose scores stay in cache: no matrix of n × h·k is ever made
        block = max(256, int(_SCORES_BYTES / (4 * h * k)))
        for start in range(0, n, block):
            part, own = X[start : start + block], y[start : start + block, None]
            here = (torch.arange(len(part))[:, None], torch.arange(h)[None, :], own)
            scores = torch.addmm(bias, part, flat).reshape(-1, h, k)
            lse = torch.logsumexp(scores, dim=2, keepdim=True)
            loss += (lse[:, :, 0] - scores[here]).double().sum(dim=0)
            residual = torch.exp(scores - lse)
            residual[here] -= 1
            # rows · X is three times faster here than X' · rows
            slope += residual.reshape(-1, h * k).T @ part
            bias_slope += residual.double().sum(dim=0)
        strength = penalty[first + which]
        gradient = slope.reshape(h, k, d).transpose(1, 2) + strength[:, None, None] * weight
        value = loss + 0.5 * strength * weight.square().sum(dim=(1, 2))
        return value / n, torch.cat([gradient.reshape(h, -1), bias_slope], dim=1) / n

    for first in range(0, len(values), at_once):
        passes = 0
        start = torch.zeros(len(values[first : first + at_once]), (d + 1) * k, dtype=torch.float64)
        for theta in minimise(
            evaluate,
            start,
            max_iterations=_MAX_ITERATIONS,
            gradient_tolerance=1e-5,
            value_tolerance=1e-7,
        ):
            yield theta[: d * k].reshape(d, k).float(), theta[d * k :].float()


def lda(
    X: torch.Tensor, y: torch.Tensor, k: int, values: Sequence[float], tick: Tick
) -> Iterator[Solution]:
    """Linear discriminant analysis with covariance (1-s)Σ + s·tr(Σ)/d·I, for each shrinkage s.

    Σ is the pooled covariance within classes; priors are the class shares of the rows.

    Source: J. H. Friedman (1989), Regularized discriminant analysis, JASA 84, eq. 18.
    """
    n = len(X)
    means, counts = _class_means(X, y, k)
    centred = X - means[y]
    tick(0.2)
    within = (centred.T @ centred).double() / n
    lam, V = torch.linalg.eigh(within)
    tick(0.8)
    lam = lam.clamp(min=0)
    rotated = V.T @ means.double().T
    prior = torch.log(counts.double() / n).clamp(min=ABSENT)
    for s in values:
        scale = (1 - s) * lam + s * lam.mean()
        # features are standardised: 1e-4 is a floor relative to their total variance
        weight = V @ (rotated / scale.clamp(min=1e-4)[:, None])
        bias = prior - 0.5 * (means.double().T * weight).sum(dim=0)
        yield weight.float(), bias.float()


def ridge(
    X: torch.Tensor, y: torch.Tensor, k: int, values: Sequence[float], tick: Tick
) -> Iterator[Solution]:
    """Least squares on centred one-hot labels, min ‖Y − XW‖² + α‖W‖², for each α.

    Source: A. E. Hoerl and R. W. Kennard (1970), Technometrics 12, 55-67.
    """
    n = len(X)
    means, counts = _class_means(X, y, k)
    share = counts.double() / n
    tick(0.2)
    centre = X.double().mean(dim=0)  # 0 up to the rounding of the standardised rows
    lam, V = torch.linalg.eigh((X.T @ X).double() - n * torch.outer(centre, centre))
    tick(0.8)
    cross = (means.double() - centre).T * counts.double()
    rotated = V.T @ cross
    for alpha in values:
        weight = V @ (rotated / (lam.clamp(min=0) + alpha)[:, None])
        yield weight.float(), share.float()


def nearest_mean(
    X: torch.Tensor, y: torch.Tensor, k: int, values: Sequence[float], tick: Tick
) -> Iterator[Solution]:
    """Nearest class mean: scores −‖x − μ‖² / 2, without the part that all classes share.

    Source: T. Mensink et al. (2013), IEEE TPAMI 35, 2624-2637, eq. 1.
    """
    means, counts = _class_means(X, y, k)
    tick(0.8)
    bias = torch.where(counts > 0, -0.5 * means.square().sum(dim=1), ABSENT)
    for _ in values:
        yield means.T.contiguous(), bias


def _class_means(X: torch.Tensor, y: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [k, d] and count [k] of each class; a class without rows has mean 0."""
    counts = torch.bincount(y, minlength=k)
    sums = torch.zeros(k, X.shape[1], dtype=torch.float64)
    sums.index_add_(0, y, X.double())
    means = sums / counts.clamp(min=1)[:, None]
    return means.float(), counts.double()
