"""Train rows as the heads read them: standardised once, shuffled once, in parts that are held out.

The rows lie in memory where they fit, else in an unnamed file on disk that is read block by block;
both give the same blocks in the same order, so that a model does not depend on it. Rows of one part
(a fold, or what is held out) lie together: to leave a part out costs nothing.
"""

import itertools
import os
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int64

from models.errors import NoRoom
from models.heads.linear import Standardiser
from models.heads.moments import Moments
from models.heads.rows import TrainRows

_READ_ROWS = 8192
_SUM_ROWS = 256  # summed in float32 before float64 takes over
Tick = Callable[[float], None]  # called with the share done; may raise to stop


@dataclass(frozen=True)
class Standard:
    """Mean and scale of each feature over the train rows; scale is 1 for a constant feature.

    Attributes
    ----------
    mean, scale : float64 [d]
    """

    mean: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"]


class TrainMatrix:
    """All train rows, standardised and shuffled, in parts.

    Attributes
    ----------
    y : int64 [n], column of each row's class
    class_ids : int64 [k], class of each column, rising
    order : int64 [n], which of the `TrainRows` lies at each place
    bounds : places at which the parts begin, and n
    standard : by which the features were standardised
    device : where blocks are computed with
    is_in_memory : whether the rows lie in memory
    """

    def __init__(
        self,
        rows: TrainRows,
        part: Int[np.ndarray, " n"],
        *,
        seed: int,
        memory_limit: int | None = None,
        spool: Path | None = None,
        device: torch.device | None = None,
        tick: Tick = lambda _share: None,
    ) -> None:
        """Read the rows.

        Parameters
        ----------
        part
            Part of each row, from 0 without a gap.
        seed
            Of the order within the parts.
        memory_limit
            Bytes that the rows may take in memory; above it they go to disk. None: no limit.
        spool
            Folder on a disk with room; None: the system's folder for such files.

        Raises
        ------
        NoRoom
            Neither memory nor disk holds the rows.
        """
        n, d = rows.features.shape
        self.device = device or torch.device("cpu")
        self.class_ids = rows.class_ids
        rng = np.random.default_rng(seed)
        self.order: Int64[np.ndarray, " n"] = np.lexsort((rng.random(n), part))
        self.bounds = [0, *np.cumsum(np.bincount(part)).tolist()]
        y = np.searchsorted(self.class_ids, rows.labels)[self.order]
        self.y = torch.from_numpy(y).to(self.device)
        self.is_in_memory = memory_limit is None or 4 * n * d <= memory_limit
        self._store: _Memory | _Spool
        try:
            self._store = _Memory(n, d, self.device) if self.is_in_memory else _Spool(n, d, spool)
            self.standard = self._fill(rows, tick)
        except (OSError, MemoryError) as error:
            raise NoRoom(
                f"wanted room for {n:,} rows of {d:,} features ({4 * n * d / 1e9:.1f} GB) "
                f"{'in memory' if self.is_in_memory else 'on disk'}, got: {error}. Free some, or "
                "set GAP_MEMORY to what may be used."
            ) from error

    @property
    def k(self) -> int:
        """Number of classes."""
        return len(self.class_ids)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return self._store.shape

    def part_of(self, parts: Sequence[int]) -> "Part":
        """Return some of the parts together."""
        return Part(self, tuple(parts))

    @cached_property
    def moments(self) -> list[Moments]:
        """Class sums and cross products of each part, from one pass over all rows."""
        return [
            Moments.of(self.part_of([i]).blocks(_READ_ROWS), self.k, self.shape[1], self.device)
            for i in range(len(self.bounds) - 1)
        ]

    def read(self, start: int, stop: int) -> Float32[torch.Tensor, "b d"]:
        """Rows start … stop - 1, on the device; not to be changed."""
        return self._store.read(start, stop).to(self.device)

    def _fill(self, rows: TrainRows, tick: Tick) -> Standard:
        """Put the rows at their shuffled places, then standardise them where they lie."""
        n, d = self.shape
        place = np.empty(n, np.int64)
        place[self.order] = np.arange(n)
        anchor = rows.features[0:1].astype(np.float64)[0].astype(np.float32)
        total, squares = np.zeros(d), np.zeros(d)
        for start in range(0, n, _READ_ROWS):
            block = rows.features[start : min(start + _READ_ROWS, n)]
            self._store.scatter(place[start : start + len(block)], block)
            away = block.astype(np.float32) - anchor
            for first in range(0, len(away), _SUM_ROWS):
                some = away[first : first + _SUM_ROWS]
                total += some.sum(axis=0)
                squares += np.einsum("ij,ij->j", some, some)
            tick(0.7 * start / n)
        mean = anchor + total / n
        scale = np.sqrt(np.maximum(squares / n - (total / n) ** 2, 0))
        # a feature that moves by rounding alone would be blown up to unit variance
        scale = np.where(scale > 1e-7 * np.maximum(np.abs(mean), np.abs(anchor)), scale, 1.0)
        scale = np.maximum(scale, 1e-30)
        standard = Standard(mean, scale)
        standardise = Standardiser(mean, scale)
        for start in range(0, n, _READ_ROWS):
            stop = min(start + _READ_ROWS, n)
            self._store.replace(start, standardise(self._store.read(start, stop)))
            tick(0.7 + 0.3 * start / n)
        return standard


@dataclass(frozen=True)
class Part:
    """Some parts of a matrix: the rows that one fit learns from, or those that were held out."""

    matrix: TrainMatrix
    parts: tuple[int, ...]

    @property
    def n(self) -> int:
        """Number of rows."""
        return sum(stop - start for start, stop in self.ranges)

    @cached_property
    def ranges(self) -> list[tuple[int, int]]:
        """Places of the rows: start and stop, rising, neighbours joined."""
        joined: list[tuple[int, int]] = []
        for i in sorted(self.parts):
            start, stop = self.matrix.bounds[i], self.matrix.bounds[i + 1]
            if joined and joined[-1][1] == start:
                start = joined.pop()[0]
            if stop > start:
                joined.append((start, stop))
        return joined

    @property
    def y(self) -> Int[torch.Tensor, " n"]:
        """Column of each row's class."""
        return torch.cat([self.matrix.y[start:stop] for start, stop in self.ranges])

    @cached_property
    def moments(self) -> Moments:
        """Class sums and cross products of these rows."""
        found = [self.matrix.moments[i] for i in self.parts]
        return sum(found[1:], start=found[0])

    def blocks(
        self, n_rows: int, limit: int | None = None
    ) -> Iterator[tuple[Float32[torch.Tensor, "b d"], Int64[torch.Tensor, " b"]]]:
        """Blocks of rows and their columns, in one fixed order; at most the first `limit` rows."""
        places = self.places(n_rows, limit)
        if self.matrix.is_in_memory:
            for start, stop in places:
                yield self.matrix.read(start, stop), self.matrix.y[start:stop]
            return
        with ThreadPoolExecutor(1) as reader:  # the next block is read while this one is used
            waiting = None
            for start, stop in itertools.chain(places, [(0, 0)]):
                ahead = reader.submit(self.matrix.read, start, stop)
                if waiting is not None:
                    yield waiting[0].result(), self.matrix.y[waiting[1] : waiting[2]]
                waiting = ahead, start, stop

    def first(self, limit: int) -> tuple[Float32[torch.Tensor, "b d"], Int64[torch.Tensor, " b"]]:
        """Return the first rows and their columns: a random sample, for the rows are shuffled."""
        found = list(self.blocks(_READ_ROWS, limit))
        return torch.cat([X for X, _ in found]), torch.cat([y for _, y in found])

    def limited(self, limit: int) -> "Part":
        """Return a part of at most so many rows: a random sample."""
        return _Limited(self.matrix, self.parts, limit)

    def places(self, n_rows: int, limit: int | None = None) -> list[tuple[int, int]]:
        """Start and stop of blocks of about so many rows, in order."""
        left = self.n if limit is None else limit
        places = []
        for start, stop in self.ranges:
            stop = min(stop, start + left)
            left -= stop - start
            # blocks of like size: a short last one would waste a product
            n_blocks = max(1, -(-(stop - start) // n_rows)) if stop > start else 0
            edges = np.linspace(start, stop, n_blocks + 1).round().astype(int).tolist()
            places += list(itertools.pairwise(edges))
        return places


@dataclass(frozen=True)
class _Limited(Part):
    """The first rows of a part."""

    limit: int

    @cached_property
    def ranges(self) -> list[tuple[int, int]]:
        left, kept = self.limit, []
        for start, stop in Part(self.matrix, self.parts).ranges:
            stop = min(stop, start + left)
            left -= stop - start
            if stop > start:
                kept.append((start, stop))
        return kept

    @cached_property
    def moments(self) -> Moments:
        blocks = self.blocks(_READ_ROWS)
        return Moments.of(blocks, self.matrix.k, self.matrix.shape[1], self.matrix.device)


class _Memory:
    """Rows in memory, on the device."""

    def __init__(self, n: int, d: int, device: torch.device) -> None:
        try:
            self._X = torch.empty(n, d, dtype=torch.float32, device=device)
        except RuntimeError as error:  # torch's word for too little memory
            raise MemoryError(str(error).splitlines()[0]) from error
        self.shape = (n, d)

    def scatter(self, places: Int[np.ndarray, " b"], block: np.ndarray) -> None:
        """Put rows at places."""
        values = torch.from_numpy(np.ascontiguousarray(block, np.float32))
        self._X[torch.from_numpy(places).to(self._X.device)] = values.to(self._X.device)

    def replace(self, start: int, block: torch.Tensor) -> None:
        """Put a block in the place of what lies there."""
        self._X[start : start + len(block)] = block.to(self._X.device)

    def read(self, start: int, stop: int) -> torch.Tensor:
        """Rows start … stop - 1."""
        return self._X[start:stop]


class _Spool:
    """Rows in a file without a name, which is gone when the process is, however it ends.

    Read and written, not mapped: mapped pages would count as this process's memory.
    """

    def __init__(self, n: int, d: int, folder: Path | None) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, prefix="gapscope-rows-")  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self.shape = (n, d)
        self._row = 4 * d
        _reserve(self._file.fileno(), n * self._row)

    def scatter(self, places: Int[np.ndarray, " b"], block: np.ndarray) -> None:
        """Put rows at places."""
        rows = np.ascontiguousarray(block, np.float32)
        for place, row in zip(places.tolist(), rows, strict=True):
            _write(self._file.fileno(), row, place * self._row)

    def replace(self, start: int, block: torch.Tensor) -> None:
        """Put a block in the place of what lies there."""
        _write(self._file.fileno(), block.cpu().numpy(), start * self._row)

    def read(self, start: int, stop: int) -> torch.Tensor:
        """Rows start … stop - 1."""
        block = np.empty((stop - start, self.shape[1]), np.float32)
        _read(self._file.fileno(), block, start * self._row)
        return torch.from_numpy(block)


def _reserve(file: int, n_bytes: int) -> None:
    if n_bytes:
        os.posix_fallocate(file, 0, n_bytes)  # a full disk is told here, not in the middle


def _write(file: int, block: np.ndarray, at: int) -> None:
    left: memoryview = np.ascontiguousarray(block).data.cast("B")
    while left:
        done = os.pwrite(file, left, at)
        left, at = left[done:], at + done


def _read(file: int, block: np.ndarray, at: int) -> None:
    left = block.data.cast("B") if block.size else memoryview(b"")
    while left:
        done = os.preadv(file, [left], at)
        if done == 0:
            raise OSError("the file of rows ends too early")
        left, at = left[done:], at + done
