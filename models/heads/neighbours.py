"""k nearest neighbours: cosine similarity to the train rows, votes weighted by it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
import torch
from jaxtyping import Float, Float16, Float32, Int, Int64

from models.heads.linear import Standardiser
from models.heads.matrix import Part
from models.heads.task import Fit, Fitted

_QUERIES = 1024
_BANK_ROWS = 8192
# share of the votes that all classes get: one without a neighbour is unlikely, not impossible
_FLOOR = 1e-4


def nearest(
    queries: Float32[torch.Tensor, "q d"], bank: Float[torch.Tensor, "n d"], n_nearest: int
) -> tuple[Float32[torch.Tensor, "q m"], Int64[torch.Tensor, "q m"]]:
    """Inner products with the nearest rows of a bank, falling, and which rows they are.

    Exact, in float32, block by block: no matrix of q × n is made.

    Examples
    --------
    >>> bank = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> nearest(torch.tensor([[0.6, 0.8]]), bank, 1)
    (tensor([[0.8000]]), tensor([[1]]))
    """
    m = min(n_nearest, len(bank))
    best = torch.full((len(queries), m), -torch.inf, device=queries.device)
    where = torch.zeros(len(queries), m, dtype=torch.int64, device=queries.device)
    room = torch.empty(min(_QUERIES, len(queries)) * _BANK_ROWS, device=queries.device)
    for first in range(0, len(bank), _BANK_ROWS):
        rows = bank[first : first + _BANK_ROWS].float().T
        for start in range(0, len(queries), _QUERIES):
            here = slice(start, start + _QUERIES)
            some = queries[here]
            similar = room[: len(some) * rows.shape[1]].view(len(some), rows.shape[1])
            torch.mm(some, rows, out=similar)
            _merge(similar, first, best[here], where[here])
    order = torch.argsort(best, dim=1, descending=True, stable=True)
    return best.gather(1, order), where.gather(1, order)


def _merge(
    similar: Float32[torch.Tensor, "q b"],
    first: int,
    best: Float32[torch.Tensor, "q m"],
    where: Int64[torch.Tensor, "q m"],
) -> None:
    """Put what beats the worst of the best so far in its place."""
    m = best.shape[1]
    # after the first blocks few queries find anything nearer: only those are sorted
    touched = torch.nonzero(similar.amax(dim=1) > best.amin(dim=1)).flatten()
    if len(touched) == 0:
        return
    values, places = similar[touched].topk(min(m, similar.shape[1]), dim=1)
    values = torch.cat([best[touched], values], dim=1)
    places = torch.cat([where[touched], places + first], dim=1)
    kept, order = values.topk(m, dim=1)
    best[touched] = kept
    where[touched] = places.gather(1, order)


@dataclass(frozen=True)
class NeighbourHead:
    """Scores: log of each class's share of the votes of the nearest train rows, exp(cos / τ) each.

    Attributes
    ----------
    mean, scale : float64 [d], of the train rows
    bank : float16 [n, d], the standardised train rows at length 1
    columns : int64 [n], column of each row's class
    weights : float64 [d], see `feature_weights`
    class_ids : int64 [k]
    n_nearest : neighbours that vote
    vote_temperature : τ
    temperature : by which the scores are divided

    Source: Z. Wu et al. (2018), Unsupervised feature learning via non-parametric instance
    discrimination, CVPR, section 3.4.
    """

    mean: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"]
    bank: Float16[np.ndarray, "n d"]
    columns: Int[np.ndarray, " n"]
    weights: Float[np.ndarray, " d"]
    class_ids: Int[np.ndarray, " k"]
    n_nearest: int
    vote_temperature: float
    temperature: float = 1.0

    @property
    def n_features(self) -> int:
        """Length of the vectors that it reads."""
        return len(self.mean)

    def block_scores(self, X: Float[torch.Tensor, "n d"]) -> Float[torch.Tensor, "n k"]:
        """Scores of one block of finite float32 features."""
        return self.standard_scores(Standardiser(self.mean, self.scale)(X))

    def standard_scores(self, X: Float[torch.Tensor, "n d"]) -> Float[torch.Tensor, "n k"]:
        """Scores of standardised rows."""
        similar, where = nearest(unit(X), self._bank, self.n_nearest)
        return self.vote(similar, where)

    def vote(
        self, similar: Float[torch.Tensor, "q m"], where: Int[torch.Tensor, "q m"]
    ) -> Float[torch.Tensor, "q k"]:
        """Scores from the nearest rows, of which the first `n_nearest` vote."""
        m = self.n_nearest
        columns = self._columns[where[:, :m]]
        found = votes(similar[:, :m], columns, len(self.class_ids), self.vote_temperature)
        divided: torch.Tensor = found / self.temperature
        return divided

    def with_temperature(self, temperature: float) -> "NeighbourHead":
        """Return the head with its scores divided by a temperature."""
        return replace(
            self,
            temperature=self.temperature * temperature,
            weights=self.weights / temperature,
        )

    def feature_weights(self) -> Float[np.ndarray, " d"]:
        """How much each feature moves the scores apart, by the best linear approximation."""
        return self.weights

    @cached_property
    def _bank(self) -> torch.Tensor:
        return torch.from_numpy(self.bank)

    @cached_property
    def _columns(self) -> torch.Tensor:
        return torch.from_numpy(self.columns)


def unit(X: Float[torch.Tensor, "n d"]) -> Float[torch.Tensor, "n d"]:
    """Rows at length 1; a row of zeros stays."""
    length: torch.Tensor = X.norm(dim=1, keepdim=True).clamp(min=1e-30)
    return X / length


def votes(
    similar: Float[torch.Tensor, "q m"],
    columns: Int[torch.Tensor, "q m"],
    k: int,
    temperature: float,
) -> Float[torch.Tensor, "q k"]:
    """Log shares of the votes of m neighbours, each worth exp(similarity / temperature).

    Examples
    --------
    >>> found = votes(torch.tensor([[1.0, 1.0, 1.0]]), torch.tensor([[0, 0, 1]]), 2, 0.1)
    >>> found.exp().round(decimals=2)
    tensor([[0.6700, 0.3300]])
    """
    weight = torch.exp((similar - similar.amax(dim=1, keepdim=True)) / temperature)
    total = torch.zeros(len(similar), k, device=similar.device).scatter_add_(1, columns, weight)
    share = total / total.sum(dim=1, keepdim=True)
    logs: torch.Tensor = torch.log((1 - _FLOOR) * share + _FLOOR / k)
    return logs


def fit(task: Fit) -> Iterator[Fitted]:
    """Keep the rows; each candidate is a number of neighbours and a temperature of their votes."""
    matrix = task.part.matrix
    bank = np.empty((task.part.n, matrix.shape[1]), np.float16)
    start = 0
    for X, _ in task.part.blocks(_BANK_ROWS):
        bank[start : start + len(X)] = unit(X).cpu().numpy()
        start += len(X)
    columns = task.part.y.cpu().numpy()
    rows = torch.from_numpy(bank)
    most = max(candidate["k"] for candidate in task.candidates)

    @cache  # all candidates look at the same neighbours
    def found(held: Part) -> tuple[torch.Tensor, torch.Tensor]:
        parts, seen = [], 0
        for X, _ in held.blocks(_QUERIES):
            parts.append(nearest(unit(X).cpu(), rows, most))
            seen += len(X)
            task.tick(min(0.99, seen / held.n))
        return torch.cat([s for s, _ in parts]), torch.cat([w for _, w in parts])

    for candidate in task.candidates:
        head = NeighbourHead(
            matrix.standard.mean, matrix.standard.scale, bank, columns,
            np.zeros(matrix.shape[1]), matrix.class_ids,
            min(candidate["k"], len(bank)), candidate["temperature"],
        )  # fmt: skip

        def held_scores(held: Part, head: NeighbourHead = head) -> torch.Tensor:
            return head.vote(*found(held))

        yield Fitted(head, held_scores=held_scores)
