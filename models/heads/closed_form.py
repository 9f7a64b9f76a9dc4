"""Heads whose weights follow from the moments of the rows, all values of a parameter at once.

Each function takes the moments of standardised rows and the values to try, and yields
(weight float32 [d, k], bias float32 [k]) in the order of the values.
"""

from collections.abc import Iterator, Sequence

import torch

from models.heads.moments import Moments

Solution = tuple[torch.Tensor, torch.Tensor]
# score of a class without rows: it must not win the rows that were held out of its fold
ABSENT = -1e30


def lda(moments: Moments, values: Sequence[float]) -> Iterator[Solution]:
    """Linear discriminant analysis with covariance (1-s)Σ + s·tr(Σ)/d·I, for each shrinkage s.

    Σ is the pooled covariance within classes; priors are the class shares of the rows. One
    eigendecomposition serves every shrinkage.

    Source: J. H. Friedman (1989), Regularized discriminant analysis, JASA 84, eq. 18.
    """
    spectrum, means = moments.within, moments.means
    rotated = spectrum.vectors.T @ means.T
    prior = torch.log(moments.count / moments.n).clamp(min=ABSENT)
    for s in values:
        scale = (1 - s) * spectrum.values + s * spectrum.values.mean()
        # features are standardised: 1e-4 is a floor relative to their total variance
        weight = spectrum.vectors @ (rotated / scale.clamp(min=1e-4)[:, None])
        bias = prior - 0.5 * (means.T * weight).sum(dim=0)
        yield weight.float(), bias.float()


def ridge(moments: Moments, values: Sequence[float]) -> Iterator[Solution]:
    """Least squares on centred one-hot labels, min ‖Y − XW‖² + α‖W‖², for each α.

    Source: A. E. Hoerl and R. W. Kennard (1970), Technometrics 12, 55-67.
    """
    n, spectrum = moments.n, moments.total
    share = moments.count / n
    centre = moments.sums.sum(dim=0) / n
    cross = moments.sums.T - torch.outer(centre, moments.count)
    rotated = spectrum.vectors.T @ cross
    for alpha in values:
        weight = spectrum.vectors @ (rotated / (n * spectrum.values + alpha)[:, None])
        # at the mean of these rows, which is 0 only over all train rows, the scores are the shares
        yield weight.float(), (share - centre @ weight).float()


def nearest_mean(moments: Moments, values: Sequence[float]) -> Iterator[Solution]:
    """Nearest class mean: scores −‖x − μ‖² / 2, without the part that all classes share.

    Source: T. Mensink et al. (2013), IEEE TPAMI 35, 2624-2637, eq. 1.
    """
    means = moments.means
    half = -0.5 * means.square().sum(dim=1)
    bias = torch.where(moments.count > 0, half, torch.full_like(half, ABSENT))
    for _ in values:
        yield means.T.contiguous().float(), bias.float()
