"""Internal validation: which train rows are held out, how candidates did there, which one is best.

From 50,000 rows on one twentieth is held out to judge by (in two halves), and another twentieth, of
at most 10,000 rows, to stop iterations early; below that five folds are held out in turn. What is
reported of a choice comes from rows that took no part in it: for each part the choice is made anew
on the other parts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

from models.estimate import wilson
from models.heads.judging import best_temperature, nll_at
from models.heads.matrix import Part, TrainMatrix

# from here on one held-out twentieth is large enough to choose by; below, every row is held out
HOLDOUT_FROM_ROWS = 50_000
N_FOLDS = 5
NEVER_HELD = 255
_WORSE_LOSS = 1.05  # times the best's loss: beyond, a candidate is clearly worse
_MONITOR_MOST = 10_000
_HALVES, _MONITOR, _REST = (0, 1), 2, 3


@dataclass(frozen=True)
class Round:
    """One fit of the internal validation: rows to learn from, rows to judge by, rows to stop by."""

    fit: Part
    held: Part
    monitor: Part | None


@dataclass(frozen=True)
class Candidate:
    """One setting of a head's parameters, and how it did on rows that it was not fitted on.

    Attributes
    ----------
    head : kind of head
    params : its parameters
    top1 : share of the held-out rows that are right
    nll : mean −log probability of their labels in nats, each part scaled by the temperature that
        is best on the others
    temperature : best on all of them
    n_fit : rows that it was fitted on; fewer than the others where it was tried on a sample
    note : what users should know of the fit, "" where there is nothing
    """

    head: str
    params: dict[str, Any]
    top1: float
    nll: float
    temperature: float
    n_fit: int
    note: str = ""


@dataclass
class Board:
    """What the candidates of one head said of the held-out rows.

    Scores are kept of those alone that are best for some choice: on all parts, or on all but one.

    Attributes
    ----------
    y : int64 [n], columns of the held-out rows' classes
    part : int64 [n], the part of each row, 0 … p-1
    tried : candidates on a sample of the rows, of which some were carried on to all rows
    candidates : in the order in which they were judged, weakest regularisation first
    correct : bool [n] for each candidate
    temperatures : [p + 1] for each candidate: best without part 0 … p-1, and on all
    kept : scores, float32 [n, k], by candidate
    found : what the fit of each candidate found
    """

    y: Int[torch.Tensor, " n"]
    part: Int[np.ndarray, " n"]
    tried: list[Candidate] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    correct: list[Bool[np.ndarray, " n"]] = field(default_factory=list)
    temperatures: list[list[float]] = field(default_factory=list)
    kept: dict[int, torch.Tensor] = field(default_factory=dict)
    found: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def n_parts(self) -> int:
        """Number of parts."""
        return int(self.part.max()) + 1

    def judge(
        self,
        head: str,
        params: dict[str, Any],
        scores: Float[torch.Tensor, "n k"],
        *,
        n_fit: int,
        note: str = "",
        found: Mapping[str, Any] | None = None,
    ) -> None:
        """Judge one more candidate by its scores of the held-out rows."""
        correct = (scores.argmax(dim=1) == self.y).cpu().numpy()
        temperatures, nll = [], 0.0
        for p in range(self.n_parts):
            mine = torch.from_numpy(self.part == p).to(scores.device)
            temperatures.append(best_temperature(scores[~mine], self.y[~mine]))
            nll += nll_at(scores[mine], self.y[mine], temperatures[-1]) * float(mine.sum())
        temperatures.append(best_temperature(scores, self.y))
        self.candidates.append(
            Candidate(
                head,
                params,
                float(correct.mean()),
                nll / len(correct),
                temperatures[-1],
                n_fit,
                note,
            )
        )
        self.correct.append(correct)
        self.temperatures.append(temperatures)
        self.found.append(found or {})
        self.kept[len(self.candidates) - 1] = scores
        wanted = {self.best(p) for p in (None, *range(self.n_parts))}
        self.kept = {i: kept for i, kept in self.kept.items() if i in wanted}

    def best(self, without: int | None = None) -> int:
        """Candidate that is best on all held-out rows, or on those outside one part."""
        rows = np.ones(len(self.part), bool) if without is None else self.part != without
        top1 = [float(correct[rows].mean()) for correct in self.correct]
        # losses are scaled by temperatures that saw the other parts: they may not decide for one
        nll = [c.nll if without is None else 0.0 for c in self.candidates]
        return choose(top1, nll, int(rows.sum()))

    def is_past_its_best(self) -> bool:
        """Whether the last two candidates are both clearly worse than the best, in both measures.

        Clearly: by a standard error in accuracy, and in loss. Along one path of regularisation
        what comes after them is worse still.
        """
        if len(self.candidates) < 3:
            return False
        top = max(c.top1 for c in self.candidates)
        least = min(c.nll for c in self.candidates)
        error = math.sqrt(max(top * (1 - top), 1e-12) / len(self.part))
        return all(c.top1 < top - error and c.nll > least for c in self.candidates[-2:])

    def calibrated(self, without: int | None = None) -> Float[torch.Tensor, "n k"]:
        """Scores, by temperature, of the candidate that is best on all rows or outside a part."""
        i = self.best(without)
        return self.kept[i] / self.temperatures[i][-1 if without is None else without]

    def right(self) -> Bool[np.ndarray, " n"]:
        """Which rows are right where each part's candidate was chosen on the other parts."""
        found = np.zeros(len(self.part), bool)
        for p in range(self.n_parts):
            mine = self.part == p
            found[mine] = self.correct[self.best(p)][mine]
        return found


def choose(top1: Sequence[float], nll: Sequence[float], n: int) -> int:
    """Index of the best candidate; they run from weak to strong regularisation.

    The best accuracy wins, ties go to the lower loss, then to the stronger regularisation; with at
    least 50,000 rows the strongest wins that is within one standard error of the best in accuracy,
    and whose loss is not more than a twentieth above the best's.

    Examples
    --------
    >>> choose([0.80, 0.81, 0.81], [0.9, 0.6, 0.6], n=1000)
    2
    >>> choose([0.80, 0.799], [0.5, 0.9], n=50_000)
    0
    """
    best = min(range(len(top1)), key=lambda i: (-top1[i], round(nll[i], 4), -i))
    if n < HOLDOUT_FROM_ROWS:
        return best
    low, high = wilson(round(top1[best] * n), n, level=0.6827)
    within = top1[best] - (high - low) / 2
    most = nll[best] * _WORSE_LOSS  # accuracy alone does not see probabilities that fade
    return max(i for i, share in enumerate(top1) if share >= within and nll[i] <= most)


def parts_of(y: Int[np.ndarray, " n"], *, seed: int) -> Int[np.ndarray, " n"]:
    """Part of each row, stratified: every class is dealt out over the parts in turn.

    Below 50,000 rows: five folds. From there on: two halves of a twentieth (0 and 1), rows to stop
    by (2), all others (3).
    """
    rng = np.random.default_rng(seed)
    is_large = len(y) >= HOLDOUT_FROM_ROWS
    dealt = _dealt(y, 40 if is_large else N_FOLDS, rng)
    if not is_large:
        return dealt
    monitor = np.flatnonzero((dealt == 2) | (dealt == 3))
    part = np.where(dealt < 2, dealt, _REST)
    part[rng.permutation(monitor)[:_MONITOR_MOST]] = _MONITOR
    return part


def _dealt(
    y: Int[np.ndarray, " n"], n_parts: int, rng: np.random.Generator
) -> Int[np.ndarray, " n"]:
    """Deal the rows out like cards, class after class."""
    order = np.lexsort((rng.random(len(y)), y))
    part = np.empty(len(y), np.int64)
    part[order] = (np.arange(len(y)) + rng.integers(n_parts)) % n_parts
    # fewer rows than parts: those that got one are numbered without a gap
    return np.unique(part, return_inverse=True)[1]


def rounds_of(matrix: TrainMatrix) -> list[Round]:
    """Return the rounds over a matrix whose parts are those of `parts_of`."""
    if is_holdout(matrix.shape[0]):
        parts = matrix.part_of
        return [Round(parts([_REST]), parts(_HALVES), parts([_MONITOR]))]
    folds = range(len(matrix.bounds) - 1)
    return [
        Round(matrix.part_of([j for j in folds if j != i]), matrix.part_of([i]), None)
        for i in folds
    ]


def is_holdout(n: int) -> bool:
    """Whether one twentieth of so many rows is held out, not every row in turn."""
    return n >= HOLDOUT_FROM_ROWS


def judged_parts(n: int) -> Sequence[int]:
    """Return the parts that candidates are judged by."""
    return _HALVES if is_holdout(n) else range(N_FOLDS)


def held_in(part: Int[np.ndarray, " n"]) -> UInt8[np.ndarray, " n"]:
    """Which rows were held out together, uint8 [n]; 255 for rows that were always learnt from."""
    if is_holdout(len(part)):
        return np.where(part == _REST, NEVER_HELD, part).astype(np.uint8)
    return part.astype(np.uint8)


def in_words(n: int, n_held: int, seed: int) -> str:
    """How the candidates were judged."""
    if is_holdout(n):
        return f"held-out twentieth of the train rows ({n_held:,} rows), stratified, seed {seed}"
    return f"{N_FOLDS}-fold cross-validation on the train rows, stratified, seed {seed}"
