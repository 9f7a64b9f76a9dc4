"""What other models say of the same images: difficulty that needs no label."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

TWINS = 0.95  # share of images with the same prediction above which two models count as one
FEWEST = 3  # other models below which agreement says little


def without_near_twins(
    predicted: Int[np.ndarray, " n"],
    others: Mapping[str, Int[np.ndarray, " n"]],
    *,
    twins: float = TWINS,
) -> tuple[dict[str, Int[np.ndarray, " n"]], dict[str, str | None]]:
    """Split other models in those that judge for themselves and near twins.

    A near twin of the model itself (another head on the same features, say) agrees with it whether
    an image is easy or not; near twins of each other would count twice. Of such a group the first
    name stays. No label takes part.

    Parameters
    ----------
    predicted
        Class ids that the model predicts, for all images of both sets.
    others
        The same of each other model.
    twins
        Models that agree on more than this share of images are near twins; 1 keeps all.

    Returns
    -------
    kept : the others that stay, by name
    left_out : name of each near twin, and of whom: None for the model itself

    Examples
    --------
    >>> mine = np.array([0, 1, 2, 3])
    >>> kept, out = without_near_twins(mine, {"a": mine, "b": mine[::-1], "c": mine[::-1]})
    >>> list(kept), out
    (['b'], {'a': None, 'c': 'b'})
    """
    kept: dict[str, np.ndarray] = {}
    left_out: dict[str, str | None] = {}
    for name in sorted(others):
        said = others[name]
        if np.mean(said == predicted) > twins:
            left_out[name] = None
            continue
        twin = next((one for one, its in kept.items() if np.mean(said == its) > twins), None)
        if twin is None:
            kept[name] = said
        else:
            left_out[name] = twin
    return kept, left_out


def agreement(
    classes: Int[np.ndarray, " n"], others: Mapping[str, Int[np.ndarray, " n"]]
) -> Float[np.ndarray, " n"]:
    """Share of other models that predict the given class, image by image.

    With the model's own predictions as classes no label is used; with labels it is the share of
    others that are right, and wrong labels make all models wrong at once.

    Examples
    --------
    >>> agreement(np.array([0, 1]), {"a": np.array([0, 0]), "b": np.array([0, 1])}).tolist()
    [1.0, 0.5]
    """
    total = np.zeros(len(classes))
    for said in others.values():
        total += said == classes
    return np.asarray(total / len(others))
