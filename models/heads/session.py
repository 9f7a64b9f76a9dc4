"""One train set under internal validation: heads are swept over it and fitted on it in turn."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.errors import NoTrainRows
from models.heads.checkpoint import Checkpoint
from models.heads.kinds import Kind, kind_of
from models.heads.linear import LinearHead, linear_approximation
from models.heads.matrix import Part, TrainMatrix
from models.heads.rows import TrainRows
from models.heads.task import Fit, Fitted, Params, TrainedHead
from models.heads.validation import (
    Board,
    Candidate,
    Round,
    held_in,
    judged_parts,
    parts_of,
    rounds_of,
)

# a head that passes over the rows again and again is swept on a sample of a train set this large
SAMPLE_FROM_ROWS = 100_000
SAMPLE_ROWS = 50_000
_CARRIED = 3  # candidates that go from the sample to all rows
_BLOCK_ROWS = 4096
_APPROXIMATED_ROWS = 2000
Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Curve:
    """How one fit went.

    Attributes
    ----------
    head, params : what was fitted
    stage : on which rows, in words
    loss : after each step, the mean loss of the rows with the penalty, in nats
    monitored : after each step, the NLL of the rows that it may be stopped by; None: none
    """

    head: str
    params: Params
    stage: str
    loss: list[float]
    monitored: list[float | None]


@dataclass(frozen=True)
class Resources:
    """What a training may use.

    Attributes
    ----------
    memory_limit : bytes that the rows may take in memory; above it they go to disk; None: no limit
    spool : folder on a disk with room for them; None: the system's
    device : "cpu", "cuda", or None: CUDA where there is one
    """

    memory_limit: int | None = None
    spool: Path | None = None
    device: str | None = None

    def chosen_device(self) -> torch.device:
        """Return the device that blocks are computed with."""
        if self.device is not None:
            return torch.device(self.device)
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Session:
    """One train set under internal validation: heads are swept and fitted on it in turn."""

    def __init__(
        self,
        rows: TrainRows,
        *,
        seed: int,
        progress: Progress,
        checkpoint: Checkpoint,
        resources: Resources,
    ) -> None:
        if len(rows.class_ids) < 2:
            raise NoTrainRows(
                f"wanted train rows of at least two classes, got {len(rows.class_ids)}."
            )
        self.seed, self._checkpoint = seed, checkpoint
        self._span, self._done = (0.0, 0.05), 0.0
        self._progress, self._message = progress, "reading the train rows"
        y = np.searchsorted(rows.class_ids, rows.labels)
        part = parts_of(y, seed=seed)
        self.fold = held_in(part)
        self.matrix = TrainMatrix(
            rows,
            part,
            seed=seed,
            memory_limit=resources.memory_limit,
            spool=resources.spool,
            device=resources.chosen_device(),
            tick=self.tick,
        )
        self.rounds = rounds_of(self.matrix)
        self.everything = self.matrix.part_of(range(len(self.matrix.bounds) - 1))
        judged = [p for p in judged_parts(len(y)) if p < len(self.matrix.bounds) - 1]
        self.held = self.matrix.part_of(judged)
        sizes = [self.matrix.bounds[p + 1] - self.matrix.bounds[p] for p in judged]
        self.held_part = np.repeat(np.arange(len(judged)), sizes)
        self.low_precision = has_fast_bfloat16(self.matrix.device)
        self.curves: list[Curve] = []
        self.notes: list[str] = []

    def span(self, start: float, stop: float, message: str) -> None:
        """Say which share of the whole the next fits take, and what they are."""
        self._span, self._message = (start, stop), message
        self.tick(0.0)

    def tick(self, done: float) -> None:
        """Report the share of the present span that is done; may raise to stop."""
        start, stop = self._span
        self._done = max(self._done, start + min(1.0, done) * (stop - start))
        self._progress(self._done, self._message)

    def board(self) -> Board:
        """Return a leaderboard without candidates yet."""
        return Board(self.held.y, self.held_part)

    def by_row(self, right: np.ndarray) -> np.ndarray:
        """Return what is known of held-out rows in the order of the `TrainRows`, -1 elsewhere."""
        found = np.full(len(self.fold), -1, np.int8)
        places = np.concatenate([np.arange(start, stop) for start, stop in self.held.ranges])
        found[self.matrix.order[places]] = right
        return found

    def sweep(self, name: str, candidates: list[Params]) -> Board:
        """Judge candidates of a head; kept, so that a training that was killed need not again."""
        kind = kind_of(name)
        key = f"sweep-{name}-{_digest(candidates)}"
        stored = self._checkpoint.get(key)
        if stored is not None:
            return self._restored(stored)
        board = self.board()
        fit = self.rounds[0].fit
        start, stop = self._span
        if kind.is_iterative and fit.n > SAMPLE_FROM_ROWS and len(candidates) > _CARRIED:
            tried = self.board()
            self._span = (start, start + (stop - start) / 2)
            sample = replace(self.rounds[0], fit=fit.limited(SAMPLE_ROWS))
            self._judge(tried, name, kind, candidates, [sample], "a sample of the train rows")
            candidates = _around(candidates, tried.best(), _CARRIED)
            self._span = (start + (stop - start) / 2, stop)
            board.tried = tried.candidates
        self._judge(board, name, kind, candidates, self.rounds, "")
        self._checkpoint.put(key, self._stored(board))
        return board

    def fit_all(self, name: str, params: Params, found: Mapping[str, Any]) -> TrainedHead:
        """Fit one candidate on all train rows."""
        (fitted,) = self._fits(
            name, kind_of(name), [params], self.everything, None, "all", "all train rows", [found]
        )
        return self.with_weights(fitted.head)

    def with_weights(self, head: TrainedHead) -> TrainedHead:
        """Return the head with the weights of its linear approximation, where it needs them."""
        if isinstance(head, LinearHead) or not hasattr(head, "weights"):
            return head
        X, _ = self.everything.first(_APPROXIMATED_ROWS)
        scores = head.standard_scores(X).cpu().numpy()
        return replace(head, weights=linear_approximation(scores, X.cpu().numpy()))  # type: ignore[type-var]

    def _judge(
        self,
        board: Board,
        name: str,
        kind: Kind,
        candidates: list[Params],
        rounds: Sequence[Round],
        rows: str,
    ) -> None:
        start, stop = self._span
        n, k = self.held.n, self.matrix.k
        n_fit = round(sum(r.fit.n for r in rounds) / len(rounds))
        if len(rounds) == 1:
            stage = rows or "all rows but those held out"
            fits = self._fits(
                name, kind, candidates, rounds[0].fit, rounds[0].monitor, "held", stage
            )
            for params, fitted in zip(candidates, fits, strict=False):
                scores = self._held_scores(fitted, rounds[0].held)
                board.judge(name, params, scores, n_fit=n_fit, note=fitted.note, found=fitted.found)
                left = len(candidates) - len(board.candidates)
                if kind.is_iterative and left and board.is_past_its_best():
                    self.notes.append(
                        f"{name}: the last {left} of {len(candidates)} settings were not tried, "
                        "for two in a row before them were clearly worse than the best"
                    )
                    return
            return
        scores = torch.empty(len(candidates), n, k, device=self.matrix.device)
        notes = [""] * len(candidates)
        first = 0
        for i, one in enumerate(rounds):
            self._span = (
                start + (stop - start) * i / len(rounds),
                start + (stop - start) * (i + 1) / len(rounds),
            )
            here = slice(first, first + one.held.n)
            stage = f"fold {i + 1} of {len(rounds)} held out"
            fits = self._fits(name, kind, candidates, one.fit, one.monitor, f"fold{i}", stage)
            for c, fitted in enumerate(fits):
                scores[c, here] = self._held_scores(fitted, one.held)
                notes[c] = notes[c] or fitted.note
            first = here.stop
        for c, params in enumerate(candidates):
            board.judge(name, params, scores[c].clone(), n_fit=n_fit, note=notes[c])
        self._span = (start, stop)

    def _fits(
        self,
        name: str,
        kind: Kind,
        candidates: list[Params],
        part: Part,
        monitor: Part | None,
        key: str,
        stage: str,
        found: Sequence[Mapping[str, Any]] | None = None,
    ) -> Iterator[Fitted]:
        task = Fit(
            part,
            candidates,
            seed=self.seed,
            monitor=monitor,
            found=found,
            low_precision=self.low_precision,
            tick=self.tick,
            checkpoint=self._checkpoint,
            key=f"{name}-{_digest(candidates)}-{key}-{part.n}",
        )
        for params, fitted in zip(candidates, kind.fit(task), strict=True):
            if fitted.curve:
                losses = [loss for loss, _ in fitted.curve]
                monitored = [nll for _, nll in fitted.curve]
                self.curves.append(Curve(name, params, stage, losses, monitored))
            yield fitted

    def _held_scores(self, fitted: Fitted, held: Part) -> torch.Tensor:
        if fitted.held_scores is not None:
            return fitted.held_scores(held).to(self.matrix.device)
        found = []
        for X, _ in held.blocks(_BLOCK_ROWS):
            found.append(fitted.head.standard_scores(X))
            self.tick(0.0)
        return torch.cat(found)

    def _stored(self, board: Board) -> dict[str, np.ndarray]:
        what = {
            "candidates": [asdict(c) for c in board.candidates],
            "tried": [asdict(c) for c in board.tried],
            "notes": self.notes,
            "temperatures": board.temperatures,
            "found": [dict(f) for f in board.found],
            "curves": [asdict(c) for c in self.curves],
            "kept": list(board.kept),
        }
        arrays = {f"kept{i}": s.cpu().numpy() for i, s in board.kept.items()}
        return arrays | {
            "correct": np.array(board.correct),
            "what": np.frombuffer(json.dumps(what).encode(), np.uint8),
        }

    def _restored(self, arrays: Mapping[str, np.ndarray]) -> Board:
        what = json.loads(arrays["what"].tobytes())
        self.curves = [Curve(**curve) for curve in what["curves"]]
        self.notes = what["notes"]
        board = self.board()
        board.candidates = [Candidate(**c) for c in what["candidates"]]
        board.tried = [Candidate(**c) for c in what["tried"]]
        board.temperatures, board.found = what["temperatures"], what["found"]
        board.correct = list(arrays["correct"])
        device = self.matrix.device
        board.kept = {i: torch.from_numpy(arrays[f"kept{i}"]).to(device) for i in what["kept"]}
        return board


def _around(candidates: list[Params], best: int, n: int) -> list[Params]:
    """So many neighbours in a row with the best among them."""
    first = max(0, min(best - n // 2, len(candidates) - n))
    return candidates[first : first + n]


def _digest(candidates: Sequence[Params]) -> str:
    text = json.dumps(list(candidates), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether products of bfloat16 are much faster here: tensor cores, AMX tiles, AMD's AVX-512.

    By what the machine says of itself, never by a stop-watch. Measured against float32: AMD's
    avx512_bf16 took half the time, another maker's, without tiles, twice the time.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    can = torch.cpu.get_capabilities()
    by_vectors = can.get("avx512_bf16", False) and "AMD" in str(can.get("cpu_name", ""))
    return bool(can.get("amx_bf16", False) or by_vectors)
