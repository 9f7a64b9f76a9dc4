"""Pairs of sets made of one set, whose gap and its cause are known: placebos and plantings.

A placebo is two random halves: every finding on it is a false one. A planting takes two such sets
and does one thing to the second, as strongly as a wanted gap needs. What is planted is a drop of
the model's accuracy; the chance of the halving lies on top of it, and is what intervals are for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import beta, rankdata

from models.estimate import TAILS

_DRAWS = 32  # of a selection, over which its drop is averaged
_STEPS = 16  # of the bisection
_NEAR = 0.005  # of accuracy: how far from the wanted gap a planted one may be
_FEATURE_LARGEST, _SELECTION_LARGEST = 32.0, 64.0


@dataclass(frozen=True)
class Planted:
    """The second set of a pair, changed.

    Attributes
    ----------
    rows : places of its images, int64 [n]; a place may come twice
    correct : whether the model is right on them after the change, bool [n]
    labels : class ids after the change, int64 [n]; None where they stay
    features : after the change, float32 [n, d]; None where they stay
    points : accuracy that the change takes, a fraction: the planted gap
    strength : of the change, in its own unit
    """

    rows: Int[np.ndarray, " n"]
    correct: Bool[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"] | None = None
    features: Float[np.ndarray, "n d"] | None = None
    points: float = 0.0
    strength: float = 0.0


@runtime_checkable
class Planting(Protocol):
    """A change of the second set that has a strength."""

    largest: float

    def drop(self, strength: float) -> float:
        """Accuracy that it takes, a fraction."""

    def at(self, strength: float) -> Planted:
        """Return the set, changed."""


class Unreachable(Exception):
    """No strength of a change makes the gap that is wanted."""


def exact_interval(k: int, n: int) -> tuple[float, float]:
    """Exact binomial interval of a share of k in n (95 %).

    Source: C. J. Clopper and E. S. Pearson (1934), Biometrika 26, 404-413.

    Examples
    --------
    >>> exact_interval(0, 1)
    (0.0, 0.975)
    """
    low = float(beta.ppf(TAILS[0], k, n - k + 1)) if k else 0.0
    high = float(beta.ppf(TAILS[1], k + 1, n - k)) if k < n else 1.0
    return low, high


def two_sets(
    labels: Int[np.ndarray, " n"],
    shares: tuple[float, float],
    *,
    largest: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[Int[np.ndarray, " n1"], Int[np.ndarray, " n2"]]:
    """Places of two sets without a common image, drawn within class.

    Parameters
    ----------
    labels
        Class ids of all images.
    shares
        Of each class that either set gets; they sum to 1 at most.
    largest
        Images that either set may have.

    Examples
    --------
    >>> first, second = two_sets(np.repeat([0, 1], 4), (0.5, 0.25), largest=(9, 9),
    ...                          rng=np.random.default_rng(0))
    >>> len(first), len(second), len(np.union1d(first, second))
    (4, 2, 6)
    """
    n = len(labels)
    wanted = [min(share, most / n) for share, most in zip(shares, largest, strict=True)]
    order = np.lexsort((rng.random(n), labels))
    _, start, counts = np.unique(labels[order], return_index=True, return_counts=True)
    # how many of a class: rounded so that odd classes are no rounder than the whole
    steps = [np.diff(np.floor(np.cumsum(counts) * share + 0.5), prepend=0) for share in wanted]
    if wanted[0] == wanted[1]:
        # placebos: the odd image of a class goes to neither, else the mix of classes would shift
        steps = [np.minimum(one, counts // 2) for one in steps]
    first = np.minimum(steps[0], counts)
    second = np.minimum(steps[1], counts - first)
    place = np.arange(n) - np.repeat(start, counts)
    of_first = place < np.repeat(first, counts)
    of_second = ~of_first & (place < np.repeat(first + second, counts))
    return np.sort(order[of_first]), np.sort(order[of_second])


def plant(planting: Planting, wanted: float) -> Planted:
    """Return the second set, changed as strongly as takes a wanted part of its accuracy.

    The strength is doubled until it takes enough, then found by bisection.

    Parameters
    ----------
    wanted
        Gap, a fraction of accuracy above 0.

    Raises
    ------
    Unreachable
    """
    weak, strong = 0.0, planting.largest / 256
    drop = planting.drop(strong)
    while drop < wanted and strong < planting.largest:
        weak, strong = strong, 2 * strong
        drop = planting.drop(strong)
    if drop < wanted - _NEAR:
        raise Unreachable(f"at its strongest it takes {drop * 100:.1f} points")
    for _ in range(_STEPS):
        middle = (weak + strong) / 2
        if planting.drop(middle) < wanted:
            weak = middle
        else:
            strong = middle
    strength = min((weak, strong), key=lambda s: abs(planting.drop(s) - wanted))
    drop = planting.drop(strength)
    if abs(drop - wanted) > _NEAR:
        raise Unreachable(f"with so few images it takes {drop * 100:.1f} points or none near")
    found = planting.at(strength)
    return Planted(found.rows, found.correct, found.labels, found.features, drop, strength)


class Selection:
    """Images are drawn by a covariate: those that the model gets wrong more often come more often.

    Within each class as many as in an even draw, with weights e^(strength · r), r the rank of the
    covariate among the candidates in [0, 1], turned so that accuracy falls. Images without a value
    have the middle rank. The drop is the mean over draws.
    """

    largest = _SELECTION_LARGEST

    def __init__(
        self,
        candidates: Int[np.ndarray, " m"],
        n: int,
        labels: Int[np.ndarray, " m"],
        correct: Bool[np.ndarray, " m"],
        values: Float[np.ndarray, " m"],
        *,
        rng: np.random.Generator,
    ) -> None:
        """Take candidates, all arrays in their order, and how many to draw."""
        self._candidates, self._correct = candidates, correct
        known = np.isfinite(values)
        rank = np.full(len(values), 0.5)
        if known.any():
            rank[known] = (rankdata(values[known]) - 0.5) / known.sum()
        falls = float(rank[correct].mean() - rank[~correct].mean()) if 0 < correct.sum() < len(
            correct
        ) else 0.0  # fmt: skip
        self._rank = 1 - rank if falls > 0 else rank
        self._ids, self._column, counts = np.unique(labels, return_inverse=True, return_counts=True)
        self._start = np.cumsum(counts) - counts
        total = np.cumsum(counts) * (n / max(1, len(labels)))
        self._wanted = np.diff(np.floor(total + 0.5), prepend=0)
        self._draws = rng.exponential(size=(_DRAWS + 1, len(labels)))

    def drop(self, strength: float) -> float:
        """Accuracy of the candidates minus that of the drawn, mean over draws."""
        drawn = [self._correct[self._drawn(strength, i)].mean() for i in range(1, _DRAWS + 1)]
        return float(self._correct.mean() - np.mean(drawn))

    def at(self, strength: float) -> Planted:
        """Return one more draw."""
        chosen = self._drawn(strength, 0)
        return Planted(self._candidates[chosen], self._correct[chosen])

    def _drawn(self, strength: float, draw: int) -> np.ndarray:
        # the smallest of exponential times over weights: a weighted draw without replacement
        log_time = np.log(self._draws[draw]) - strength * self._rank
        order = np.lexsort((log_time, self._column))
        column = self._column[order]
        place = np.arange(len(order)) - self._start[column]
        return np.sort(order[place < self._wanted[column]])


class _OtherLabels:
    """Each image has another label ready, and takes it from some strength on."""

    largest = 1.0

    def __init__(
        self,
        rows: Int[np.ndarray, " n"],
        labels: Int[np.ndarray, " n"],
        predicted: Int[np.ndarray, " n"],
        other: Int[np.ndarray, " n"],
        rng: np.random.Generator,
    ) -> None:
        self._rows, self._labels, self._predicted, self._other = rows, labels, predicted, other
        self._when = rng.random(len(labels))

    def drop(self, strength: float) -> float:
        """Accuracy before minus after."""
        return _drop(self._labels == self._predicted, self.at(strength).correct)

    def at(self, strength: float) -> Planted:
        """Return the images, this share of them with the other label where they have one."""
        labels = np.where(self._when < strength, self._other, self._labels)
        return Planted(self._rows, labels == self._predicted, labels)


class LabelNoise(_OtherLabels):
    """A share of the images gets the label of another class, drawn evenly.

    Examples
    --------
    >>> noise = LabelNoise(np.arange(4), np.array([0, 1, 0, 1]), np.array([0, 1, 0, 0]),
    ...                    rng=np.random.default_rng(0))
    >>> noise.drop(1.0)  # three right ones become wrong, the wrong one right
    0.5
    """

    def __init__(
        self,
        rows: Int[np.ndarray, " n"],
        labels: Int[np.ndarray, " n"],
        predicted: Int[np.ndarray, " n"],
        *,
        rng: np.random.Generator,
    ) -> None:
        """Take the images of the set, with their labels and what the model says."""
        ids, column = np.unique(labels, return_inverse=True)
        step = rng.integers(1, max(2, len(ids)), len(labels))
        super().__init__(rows, labels, predicted, ids[(column + step) % len(ids)], rng)


class Relabelling(_OtherLabels):
    """Images of a few classes get the label of one other class each, with some probability.

    Attributes
    ----------
    classes : ids of the classes that lose images, and of those that get them
    """

    def __init__(
        self,
        rows: Int[np.ndarray, " n"],
        labels: Int[np.ndarray, " n"],
        predicted: Int[np.ndarray, " n"],
        *,
        rng: np.random.Generator,
    ) -> None:
        """Take the images of the set; a fifth of the classes is chosen, at least one."""
        ids = rng.permutation(np.unique(labels))
        n = max(1, len(ids) // 5)
        old, new = ids[:n], np.resize(ids[n:], n) if len(ids) > n else ids[:n]
        self.classes = np.concatenate([old, new])
        order = np.argsort(old)
        place = order[np.minimum(np.searchsorted(old[order], labels), n - 1)]
        other = np.where(old[place] == labels, new[place], labels)
        super().__init__(rows, labels, predicted, other, rng)


class Duplicates:
    """A share of the right images is replaced by copies of wrong ones of the same class."""

    largest = 1.0

    def __init__(
        self,
        rows: Int[np.ndarray, " n"],
        labels: Int[np.ndarray, " n"],
        correct: Bool[np.ndarray, " n"],
        *,
        rng: np.random.Generator,
    ) -> None:
        """Take the images of the set; classes without a wrong image stay as they are."""
        self._rows, self._correct = rows, correct
        wrong = np.flatnonzero(~correct)
        wrong = wrong[np.argsort(labels[wrong], kind="stable")]
        first = np.searchsorted(labels[wrong], labels)
        n = np.searchsorted(labels[wrong], labels, side="right") - first
        there = correct & (n > 0)
        copied = first + np.floor(rng.random(len(rows)) * n).astype(np.int64)
        self._copy = np.arange(len(rows))
        self._copy[there] = wrong[copied[there]]
        self._when = np.where(there, rng.random(len(rows)), np.inf)

    def drop(self, strength: float) -> float:
        """Accuracy before minus after."""
        return _drop(self._correct, self.at(strength).correct)

    def at(self, strength: float) -> Planted:
        """Return the images, this share of the right ones replaced."""
        place = np.where(self._when < strength, self._copy, np.arange(len(self._rows)))
        return Planted(self._rows[place], self._correct[place])


class FeatureShift:
    """Some features of all images are moved by the same number of train standard deviations."""

    largest = _FEATURE_LARGEST

    def __init__(
        self,
        rows: Int[np.ndarray, " n"],
        labels: Int[np.ndarray, " n"],
        features: Float[np.ndarray, "n d"],
        moved: Int[np.ndarray, " q"],
        train_sd: Float[np.ndarray, " d"],
        predict: Callable[[Float[np.ndarray, "n d"]], Int[np.ndarray, " n"]],
        *,
        rng: np.random.Generator,
    ) -> None:
        """Take the images of the set.

        Parameters
        ----------
        moved
            Columns of the features that move, each up or down by a coin.
        predict
            What the model says of features.
        """
        self._rows, self._labels, self._features = rows, labels, features
        self._moved, self._predict = moved, predict
        self._step = (train_sd[moved] * rng.choice([-1.0, 1.0], len(moved))).astype(np.float32)
        self._before = predict(features) == labels

    def drop(self, strength: float) -> float:
        """Accuracy before minus after."""
        return _drop(self._before, self.at(strength).correct)

    def at(self, strength: float) -> Planted:
        """Return the images, moved by so many standard deviations."""
        features = self._features.copy()
        features[:, self._moved] += np.float32(strength) * self._step
        correct = self._predict(features) == self._labels
        return Planted(self._rows, correct, features=features)


def _drop(before: np.ndarray, after: np.ndarray) -> float:
    return float(before.mean() - after.mean())
