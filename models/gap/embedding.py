"""A map of images: the two directions in which train rows spread most, or a picture by UMAP."""

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

N_AXES = 2
_NEIGHBOURS = 15
MAIN_AXES = 50  # directions that UMAP and clusters read; beyond them lies mostly noise
_EPOCHS = 200  # its default for large sets: of small ones 500 look alike and take longer
FEWEST_FOR_UMAP = 200  # rows, below which fifteen neighbours are no neighbourhood


@dataclass(frozen=True)
class Axes:
    """Principal axes of train rows, and the way there from features.

    Attributes
    ----------
    directions : orthonormal, longest spread first, float64 [a, d]
    mean, scale : of the features that vary among the train rows
    kept : which features these are
    shares : part of the variance of the standardised train rows along each, in [0, 1]
    """

    directions: Float[np.ndarray, "a d"]
    mean: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"]
    kept: Int[np.ndarray, " d"]
    shares: Float[np.ndarray, " a"]

    def of(self, features: Float[np.ndarray, "n e"]) -> Float[np.ndarray, "n a"]:
        """Return where rows lie along the axes, in train standard deviations."""
        rows = (features[:, self.kept] - self.mean) / self.scale
        return np.asarray(rows @ self.directions.T)

    def heading(self, features: Float[np.ndarray, "n e"]) -> Float[np.ndarray, "n a"]:
        """Return in which direction along the axes rows lie from the middle of train, length 1."""
        rows = self.of(features)
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def principal_axes(train: Float[np.ndarray, "n d"], n_axes: int = N_AXES) -> Axes | None:
    """Directions in which train rows spread most, each feature in its own standard deviations.

    Test rows take no part: where they lie elsewhere, the map shows it and does not turn for it.
    An axis points to where its heaviest feature is larger, so that the map is never mirrored.

    Parameters
    ----------
    train
        Features of train rows.
    n_axes
        Wanted; fewer where fewer features vary, or fewer rows are there.

    Returns
    -------
    None where fewer than two features vary among the rows.

    Source: K. Pearson (1901), On lines and planes of closest fit to systems of points in space,
    Philosophical Magazine 2, 559-572.

    Examples
    --------
    >>> found = principal_axes(np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]))
    >>> found.shares.round(3).tolist(), found.of(np.array([[1.5, 1.5]])).round(3).tolist()
    ([1.0, 0.0], [[0.0, 0.0]])
    """
    sd = train.std(axis=0, ddof=1, dtype=float) if len(train) > 1 else np.zeros(train.shape[1])
    kept = np.flatnonzero(sd > 0)
    if len(kept) < N_AXES:
        return None
    mean = train[:, kept].mean(axis=0, dtype=float)
    scale = sd[kept]
    rows = (train[:, kept] - mean) / scale
    # of n rows and d features the smaller matrix of products is taken apart
    if len(rows) < len(kept):
        values, left = np.linalg.eigh(rows @ rows.T)
        order = np.argsort(values)[::-1][:n_axes]
        directions = (rows.T @ left[:, order]).T
        length = np.linalg.norm(directions, axis=1, keepdims=True)
        there = length[:, 0] > 1e-9 * length.max()
        values, directions = values[order][there], directions[there] / length[there]
    else:
        values, vectors = np.linalg.eigh(rows.T @ rows)
        order = np.argsort(values)[::-1][:n_axes]
        values, directions = values[order], vectors[:, order].T
    heaviest = np.abs(directions).argmax(axis=1)
    directions = directions * np.sign(directions[np.arange(len(directions)), heaviest])[:, None]
    shares = np.maximum(values, 0) / np.square(rows).sum()
    return Axes(directions, mean, scale, kept, np.asarray(shares))


def umap_of(
    train: Float[np.ndarray, "n d"], tests: Float[np.ndarray, "m d"], *, seed: int
) -> Float[np.ndarray, "rows 2"]:
    """Picture that keeps near rows near: of train and test rows together, train first.

    All rows take part, without their labels, so that nothing that is scored may read it. Distances
    between groups, and their sizes, mean little in it.

    Parameters
    ----------
    train, tests
        Features; they are standardised by the train rows and read along their first 50 axes.
    seed
        Of the start and the draws.

    Raises
    ------
    ImportError
        umap-learn is not installed.

    Source: L. McInnes, J. Healy and J. Melville (2018), UMAP: Uniform Manifold Approximation and
    Projection for Dimension Reduction, arXiv:1802.03426.
    """
    axes = principal_axes(train, MAIN_AXES)
    rows = np.concatenate([train, tests])
    standard = rows if axes is None else axes.of(rows)
    with warnings.catch_warnings():
        # what it says of its own parts and of a fixed seed on one core is nothing to act on
        warnings.simplefilter("ignore")
        from umap import UMAP

        fit = UMAP(n_neighbors=_NEIGHBOURS, n_epochs=_EPOCHS, random_state=seed, n_jobs=1)
        return np.asarray(fit.fit_transform(np.asarray(standard, np.float32)), float)
