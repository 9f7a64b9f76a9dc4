"""How one feature is distributed, from its quantiles or from its values, on bins that all share."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

N_BINS = 30
_TAIL = 0.01  # of each set that may lie outside of the bins at either end
_ROOM = 0.05  # of their span beyond the tails


def share_below(
    at: Float[np.ndarray, " m"],
    probabilities: Float[np.ndarray, " q"],
    values: Float[np.ndarray, " q"],
) -> Float[np.ndarray, " m"]:
    """Share of images at or below each value, from a set's quantiles.

    Between two quantiles images are taken to be spread evenly. Where several quantiles are one
    value, as where a network gives 0 for many images, the share jumps there.

    Parameters
    ----------
    at
        Where it is asked.
    probabilities, values
        Of the quantiles, both rising, q ≥ 1; the smallest value has probability 0 and the largest 1
        where they are known.

    Examples
    --------
    >>> share_below(np.array([-1.0, 0.0, 1.0, 2.0]), np.array([0.0, 0.5, 1.0]),
    ...             np.array([0.0, 0.0, 2.0])).tolist()
    [0.0, 0.5, 0.75, 1.0]
    """
    # the last of equal quantiles counts, so that the share at a value includes the value
    after = np.searchsorted(values, at, side="right")
    low, high = np.maximum(after - 1, 0), np.minimum(after, len(values) - 1)
    width = values[high] - values[low]
    way = np.divide(at - values[low], width, out=np.zeros(len(at)), where=width > 0)
    found = probabilities[low] + way * (probabilities[high] - probabilities[low])
    return np.asarray(np.where(after == 0, 0.0, np.where(after == len(values), 1.0, found)))


def shared_bins(
    quantiles: Sequence[tuple[Float[np.ndarray, " q"], Float[np.ndarray, " q"]]],
    n_bins: int = N_BINS,
) -> Float[np.ndarray, " b"]:
    """Return edges of bins of one width that hold all but the outermost hundredth of each set.

    A far outlier would leave nothing else to see.

    Parameters
    ----------
    quantiles
        Probabilities and values of each set.
    n_bins
        How many.

    Examples
    --------
    >>> one = (np.array([0.0, 1.0]), np.array([0.0, 2.0]))
    >>> shared_bins([one], 2).round(2).tolist()
    [-0.08, 1.0, 2.08]
    """
    ends = [np.interp([_TAIL, 1 - _TAIL], p, v) for p, v in quantiles]
    low, high = min(float(end[0]) for end in ends), max(float(end[1]) for end in ends)
    # a feature of one value alone has a bin around it
    room = _ROOM * (high - low) or max(abs(low), 1.0) * _ROOM
    return np.linspace(low - room, high + room, n_bins + 1)


def density_of_quantiles(
    edges: Float[np.ndarray, " b"],
    probabilities: Float[np.ndarray, " q"],
    values: Float[np.ndarray, " q"],
) -> tuple[Float[np.ndarray, " bins"], float, float]:
    """Density of a set in each bin from its quantiles, and the shares below and above all bins.

    Returns
    -------
    density : share of the images in each bin over its width
    below, above : shares outside; with Σ density · width they sum to 1

    Examples
    --------
    >>> density, below, above = density_of_quantiles(
    ...     np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0]), np.array([0.0, 4.0]))
    >>> density.tolist(), below, above
    ([0.25, 0.25], 0.0, 0.5)
    """
    share = share_below(edges, probabilities, values)
    return np.diff(share) / np.diff(edges), float(share[0]), float(1 - share[-1])


def density_of_values(
    edges: Float[np.ndarray, " b"], values: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " bins"], float, float]:
    """Return the same as `density_of_quantiles` from all values of a set, n ≥ 1.

    Examples
    --------
    >>> density, below, above = density_of_values(
    ...     np.array([0.0, 1.0, 2.0]), np.array([0.5, 1.5, 1.5, 9.0]))
    >>> density.tolist(), below, above
    ([0.25, 0.5], 0.0, 0.25)
    """
    # bins are open below and closed above, as the shares of quantiles are
    counted = np.searchsorted(np.sort(values), edges, side="right") / len(values)
    return np.diff(counted) / np.diff(edges), float(counted[0]), float(1 - counted[-1])
