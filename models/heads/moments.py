"""Sums over rows from which every closed-form head follows; those of two sets of rows add up."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Float32, Int64

_CARRY_ROWS = 65_536  # summed in float32 before float64 takes over


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues, rising, and eigenvectors of a covariance, float64 [d] and [d, d]."""

    values: Float[torch.Tensor, " d"]
    vectors: Float[torch.Tensor, "d d"]


@dataclass(frozen=True)
class Moments:
    """Counts, sums and cross products of standardised rows.

    Attributes
    ----------
    count : rows of each class, float64 [k]
    sums : of the rows of each class, float64 [k, d]
    cross : X'X, float64 [d, d]
    """

    count: Float[torch.Tensor, " k"]
    sums: Float[torch.Tensor, "k d"]
    cross: Float[torch.Tensor, "d d"]

    @classmethod
    def of(
        cls,
        blocks: Iterable[tuple[Float32[torch.Tensor, "_ d"], Int64[torch.Tensor, " _"]]],
        k: int,
        d: int,
        device: torch.device,
    ) -> "Moments":
        """Take the sums over blocks of rows and their columns.

        Examples
        --------
        >>> X, y = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 1, 1])
        >>> found = Moments.of([(X, y)], 2, 1, torch.device("cpu"))
        >>> found.count.tolist(), found.sums.tolist(), found.cross.tolist()
        ([1.0, 2.0], [[1.0], [6.0]], [[21.0]])
        """
        total = cls(
            torch.zeros(k, dtype=torch.float64, device=device),
            torch.zeros(k, d, dtype=torch.float64, device=device),
            torch.zeros(d, d, dtype=torch.float64, device=device),
        )
        sums = torch.zeros(k, d, device=device)
        cross = torch.zeros(d, d, device=device)
        carried = 0
        for X, y in blocks:
            cross.addmm_(X.T, X)
            sums.index_add_(0, y, X)
            total.count.add_(torch.bincount(y, minlength=k))
            carried += len(X)
            if carried >= _CARRY_ROWS:
                total.cross.add_(cross)
                total.sums.add_(sums)
                cross.zero_()
                sums.zero_()
                carried = 0
        total.cross.add_(cross)
        total.sums.add_(sums)
        return total

    def __add__(self, other: "Moments") -> "Moments":
        """Moments of both sets of rows together."""
        return Moments(self.count + other.count, self.sums + other.sums, self.cross + other.cross)

    @property
    def n(self) -> float:
        """Number of rows."""
        return float(self.count.sum())

    @cached_property
    def means(self) -> Float[torch.Tensor, "k d"]:
        """Mean of each class; 0 for a class without rows."""
        return self.sums / self.count.clamp(min=1)[:, None]

    @cached_property
    def within(self) -> Spectrum:
        """Of the pooled covariance within classes."""
        # X'X less what the class means make of it: features have unit variance, so little cancels
        return _spectrum((self.cross - self.means.T @ self.sums) / self.n)

    @cached_property
    def total(self) -> Spectrum:
        """Of the covariance of all rows."""
        centre = self.sums.sum(dim=0) / self.n
        return _spectrum(self.cross / self.n - torch.outer(centre, centre))


def _spectrum(covariance: Float[torch.Tensor, "d d"]) -> Spectrum:
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    return Spectrum(values.clamp(min=0), vectors)
