"""Bootstrap weights that every explainer of a gap shares: one column a replicate."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from models.estimate import Estimate, Z

N_REPLICATES = 200
_LEAST = 3  # images that a stratum needs: with fewer the weights below do not exist


@dataclass(frozen=True)
class Replicates:
    """What a number is in the sample, and in each bootstrap replicate of it.

    Statistics of both sets are computed for all columns at once; the first column is the sample
    itself (weights of one), so that a number and its replicates come from the same lines of code.

    Attributes
    ----------
    reference : weights of the reference's images, float32 [n1, 1 + m]
    target : weights of the target's images, float32 [n2, 1 + m]
    seed : of the draws
    """

    reference: Float[np.ndarray, "n1 m"]
    target: Float[np.ndarray, "n2 m"]
    seed: int

    @property
    def n(self) -> dict[str, int]:
        """Images of each set."""
        return {"reference": len(self.reference), "target": len(self.target)}

    @property
    def both(self) -> Float[np.ndarray, "n m"]:
        """Weights of the reference's images, then of the target's."""
        return np.concatenate([self.reference, self.target])

    def estimate(self, values: Float[np.ndarray, " m"], *, unit: str = "fraction") -> Estimate:
        """Return the sample's value with the normal interval of its replicates.

        Not their percentiles: what is refitted in every replicate (a domain classifier, say) is
        noisier there than in the sample, which moves the replicates' middle, not their spread.
        """
        spread = float(np.std(values[1:], ddof=1))
        value = float(values[0])
        return Estimate(
            value,
            value - Z * spread,
            value + Z * spread,
            f"bootstrap within classes, normal, {len(values) - 1} replicates",
            self.n,
            unit,
            seed=self.seed,
        )

    def errors_and_p_values(
        self, values: Float[np.ndarray, "m q"]
    ) -> tuple[Float[np.ndarray, " q"], Float[np.ndarray, " q"]]:
        """Return each column's standard error, and the p-value that it is 0, adjusted for all.

        (1 + replicates whose largest |t|, taken around the sample, reaches this column's |t|) /
        (1 + replicates). A replicate's t is divided by the spread of the others, as the sample's
        own is by that of replicates without it: a spread that knows the replicate keeps its t
        small, and over a thousand columns that makes findings of chance. NaN (both) in columns
        that are not known in the sample; p is 1 where nothing spreads.

        Source: P. H. Westfall and S. S. Young (1993), Resampling-Based Multiple Testing,
        algorithm 2.5 (single step).
        """
        known = np.isfinite(values[0])
        errors = np.std(values[1:], axis=0, ddof=1)
        moves = known & (errors > 1e-12 * np.abs(values[0]))
        spread = np.where(moves, errors, np.inf)
        m = len(values) - 1
        squares = np.square(values[1:] - values[1:].mean(axis=0))
        # variance of all replicates but this one
        without = (squares.sum(axis=0) - m / (m - 1) * squares) / max(m - 2, 1)
        own = np.sqrt(np.where(moves, np.maximum(without, 1e-24 * errors**2), np.inf))
        largest = np.nan_to_num(np.abs(values[1:] - values[0]) / own).max(axis=1, initial=0.0)
        t = np.nan_to_num(np.abs(values[0]) / spread)
        reached = (largest[:, None] >= t[None, :] * (1 - 1e-9)).sum(axis=0)
        p_values = (1 + reached) / len(values)
        return np.where(known, errors, np.nan), np.where(known, p_values, np.nan)


def weighted_sums(
    columns: Float[np.ndarray, "n q"], weights: Float[np.ndarray, "n m"]
) -> Float[np.ndarray, "m q"]:
    """Σ weight × column for each replicate, float64; the first, of weights 1, summed in float64."""
    found = (weights.T @ columns.astype(np.float32, copy=False)).astype(np.float64)
    found[0] = columns.sum(axis=0, dtype=np.float64)
    return np.asarray(found)


def replicates(
    reference_labels: Int[np.ndarray, " n1"],
    target_labels: Int[np.ndarray, " n2"],
    *,
    seed: int,
    m: int = N_REPLICATES,
) -> Replicates:
    """Weights of a bootstrap that resamples the images of each class within each set.

    A Bayesian bootstrap: in a class of n images the weights are n times a draw from a Dirichlet
    distribution with all parameters (n − 2) / n, so that the variance of the class's weighted mean
    is s² / n with the unbiased s². Resampling n images of n understates it by (n − 1) / n, a tenth
    where a class has ten. Weights do not tie images to be copies, and no class dies out. Classes
    of fewer than three images are drawn as one.

    Parameters
    ----------
    reference_labels, target_labels
        Class ids of the images.
    seed
        Of the draws; each set has its own.
    m
        Number of replicates.

    Source: D. B. Rubin (1981), The Annals of Statistics 9, 130-134; the parameters are ours.

    Examples
    --------
    >>> drawn = replicates(np.repeat([0, 1], 5), np.repeat([0, 1], 3), seed=0, m=2)
    >>> drawn.reference[:, 0].tolist() == [1.0] * 10
    True
    >>> drawn.reference[:5].sum(axis=0).round(3).tolist()
    [5.0, 5.0, 5.0]
    """
    first, second = np.random.SeedSequence(seed).spawn(2)
    return Replicates(
        _weights(reference_labels, np.random.default_rng(first), m),
        _weights(target_labels, np.random.default_rng(second), m),
        seed,
    )


def _weights(labels: np.ndarray, rng: np.random.Generator, m: int) -> np.ndarray:
    stratum, n = _strata(labels)
    shape = np.maximum(n - 2, 0.1) / n
    drawn = rng.standard_gamma(
        shape[stratum][:, None].astype(np.float32), (len(labels), m), np.float32
    )
    order = np.argsort(stratum, kind="stable")
    totals = np.add.reduceat(drawn[order], np.cumsum(n) - n, axis=0, dtype=np.float64)
    drawn *= (n[:, None] / np.maximum(totals, 1e-30))[stratum].astype(np.float32)
    return np.concatenate([np.ones((len(labels), 1), np.float32), drawn], axis=1)


def _strata(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the class number of each image, small classes as one, and the images in each."""
    _, stratum, n = np.unique(labels, return_inverse=True, return_counts=True)
    small = n < _LEAST
    if small.any():
        host = len(n) if n[small].sum() >= _LEAST or small.all() else int(np.argmax(n))
        stratum = np.where(small[stratum], host, stratum)
        _, stratum, n = np.unique(stratum, return_inverse=True, return_counts=True)
    return stratum, n


def weighted_accuracy(
    correct: Bool[np.ndarray, " n"], weights: Float[np.ndarray, "n m"]
) -> Float[np.ndarray, " m"]:
    """Share of weight on images that are right, in each column.

    Examples
    --------
    >>> weighted_accuracy(np.array([True, False]), np.array([[1.0, 3.0], [1.0, 1.0]])).tolist()
    [0.5, 0.75]
    """
    total = weights.sum(axis=0, dtype=np.float64)
    return np.asarray(weights[correct].sum(axis=0, dtype=np.float64) / total)
