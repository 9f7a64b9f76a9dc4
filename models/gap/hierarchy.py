"""Gaps of superclasses: groups of classes that belong together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from models.estimate import Estimate
from models.gap.classes import common_gap
from models.gap.difference import newcombe
from models.gap.excess import benjamini_hochberg, excess_p_values


@dataclass(frozen=True)
class SuperclassGap:
    """One group of classes on both sets, all its images taken together.

    Attributes
    ----------
    name : of the group
    n_classes : classes in it that either set has images of
    n_reference, n_target : its images
    accuracy_reference, accuracy_target : shares of 1; None without images
    gap : reference minus target (Newcombe)
    excess : gap minus the common gap of all classes; None where gap is null
    q_value : test that the gap is the common gap, adjusted for looking at all groups; None with
        excess
    """

    name: str
    n_classes: int
    n_reference: int
    n_target: int
    accuracy_reference: float | None
    accuracy_target: float | None
    gap: Estimate
    excess: float | None
    q_value: float | None


def superclass_gaps(
    names: Sequence[str | None],
    k1: Int[np.ndarray, " k"],
    n1: Int[np.ndarray, " k"],
    k2: Int[np.ndarray, " k"],
    n2: Int[np.ndarray, " k"],
) -> list[SuperclassGap]:
    """Gap of each superclass, largest first.

    The test is that of `models.gap.excess.excess_p_values` on the group's sums. It takes a group's
    images as one sample: where its classes differ in difficulty and both sets are drawn class by
    class, it is cautious.

    Parameters
    ----------
    names
        Superclass of each class; None where it has none. Those classes count in the common gap
        alone.
    k1, n1, k2, n2
        Images right and in all, on the reference and on the target, per class.

    Examples
    --------
    >>> ten = np.full(3, 10)
    >>> found = superclass_gaps(
    ...     ["dog", "cat", "dog"], np.array([9, 9, 9]), ten, np.array([5, 9, 7]), ten)
    >>> [(one.name, one.n_classes, round(one.gap.estimate, 2)) for one in found]
    [('dog', 2, 0.3), ('cat', 1, 0.0)]
    """
    groups = sorted({name for name in names if name is not None})
    place = {name: i for i, name in enumerate(groups)}
    named = np.array([name is not None for name in names], bool) & (n1 + n2 > 0)
    group = np.array([place.get(name, 0) if name else 0 for name in names], int)
    sums = [
        np.bincount(group[named], column[named], len(groups)).round().astype(int)
        for column in (np.ones_like(k1), k1, n1, k2, n2)
    ]
    n_classes, right1, all1, right2, all2 = sums
    common = common_gap(k1, n1, k2, n2)
    tested = (all1 > 0) & (all2 > 0)
    q = np.ones(len(groups))
    if common is not None and -1 < common < 1 and tested.any():
        counts = (column[tested] for column in (right1, all1, right2, all2))
        q[tested] = benjamini_hochberg(excess_p_values(*counts, gap=common))
    found = []
    for name, i in place.items():
        if not n_classes[i]:
            continue
        k, n, k_, n_ = (int(column[i]) for column in (right1, all1, right2, all2))
        gap = newcombe(k, n, k_, n_)
        known = gap.estimate is not None and common is not None
        found.append(
            SuperclassGap(
                name,
                int(n_classes[i]),
                n,
                n_,
                k / n if n else None,
                k_ / n_ if n_ else None,
                gap,
                gap.estimate - common if known else None,  # type: ignore[operator]
                float(q[i]) if known else None,
            )
        )

    def largest_first(one: SuperclassGap) -> tuple[bool, float, str]:
        value = one.gap.estimate
        return value is None, 0.0 if value is None else -value, one.name

    return sorted(found, key=largest_first)
