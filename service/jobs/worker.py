"""Keeps the worker processes alive: starts them, watches their heartbeat, settles what they left.

A worker beats from a thread of its own into memory that it shares with the service: a beat needs
neither a disk with room nor a clock that nobody sets. A worker that gives none for LEASE_S is
killed; in any case its job is settled within seconds. A job that was told to stop and does not
come to its next progress call is ended with its worker, and another worker takes that one's place.
"""

import logging
import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.errors import DamagedModel
from service.jobs.table import EXPLAIN, TRAIN, Job, Jobs
from service.jobs.work import work_on
from service.results import Results

LEASE_S = 30.0  # without a heartbeat, until a worker is taken for dead
_START_S = 60.0  # to import what a worker needs, before its first heartbeat
_BEAT_S = 1.0
_POLL_S = 0.2
_GRACE_S = 1.2  # for a cancelled job to come to its next progress call
_NICE = 10  # who waits for an answer comes before what takes minutes anyway
_DRAIN_S = 6.0  # for a worker that is to stop to do so
_log = logging.getLogger("gapscope.jobs")
Main = Callable[[Path, int | None, int], None]


class Worker:
    """The worker process of one lane, started anew whenever it dies.

    Parameters
    ----------
    data, n_threads
        The data folder, and how many cores to use.
    main
        What the process runs: called with these two and the id of this process.
    lane
        Whose jobs it does. The process for explanations starts with the first of them.
    lease_s
        Without a heartbeat, until the process is taken for dead.
    """

    def __init__(
        self,
        data: Path,
        n_threads: int | None,
        main: Main = work_on,
        *,
        lane: str = TRAIN,
        lease_s: float = LEASE_S,
    ) -> None:
        self._data, self._n_threads, self._main, self._lane = data, n_threads, main, lane
        self._lease_s = lease_s
        self.n_deaths = 0  # since the service started
        self._jobs, self._results = Jobs(data), Results(data)
        self._stop = threading.Event()
        self._process: Any = None
        self._beat: Any = None
        self._asked: dict[str, float] = {}  # when each cancelling job was first seen so
        self._watch = threading.Thread(target=self._keep_alive, daemon=True)

    def start(self) -> None:
        """Start it; jobs that ran when the last worker died are settled first."""
        self._bury("The service stopped.")
        if self._lane == TRAIN:
            self._spawn()
        self._watch.start()

    def ask_to_stop(self) -> None:
        """Ask it to stop at the next progress call of what it does, and wait for nothing."""
        self._stop.set()
        self._watch.join()
        if self._process is not None:
            self._process.terminate()

    def stop(self) -> None:
        """Stop it; a job under way is queued again, and goes on at the next start."""
        self.ask_to_stop()
        if self._process is None:
            return
        self._process.join(_DRAIN_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._bury("The service stopped.", is_planned=True)

    @property
    def is_alive(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and bool(self._process.is_alive())

    @property
    def is_well(self) -> bool:
        """Whether the process is there and gives signs of life."""
        age_s = self.beat_age_s
        return age_s is not None and age_s < self._lease_s

    @property
    def pid(self) -> int | None:
        """Id of the process; None where there is none."""
        return self._process.pid if self.is_alive else None

    @property
    def beat_age_s(self) -> float | None:
        """How long ago the process gave its last sign; None where there is none."""
        return max(0.0, time.monotonic() - self._beat.value) if self.is_alive else None

    def _spawn(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        # monotonic time is one for all processes of a machine
        self._beat = spawn.Value("d", time.monotonic() + _START_S, lock=False)
        self._process = spawn.Process(
            target=_work,
            args=(self._main, self._data, self._n_threads, os.getpid(), self._beat),
            name="gapscope-worker",
        )
        self._process.start()

    def _keep_alive(self) -> None:
        while not self._stop.wait(_POLL_S):
            try:
                self._look()
            except sqlite3.Error as error:  # a full disk, say: the next look may find room
                _log.error("the job table could not be read or written: %s", error)
            except Exception:  # noqa: BLE001 (no room for a process or a file: there may be soon)
                _log.exception("the worker could not be looked after")

    def _look(self) -> None:
        if self._process is None:
            if self._jobs.has_queued(self._lane):
                self._spawn()
            return
        why = None
        late = self._late()
        silent_s = self.beat_age_s or 0
        if late is not None:
            self._kill()
        elif silent_s > self._lease_s:
            why = f"The worker gave no sign of life for {silent_s:.0f} seconds, and was ended."
            _log.error("%s", why)
            self._kill()
        if not self._process.is_alive():
            self.n_deaths += 1
            self._bury(why or _cause(self._process.exitcode), killed_for=late)
            self._spawn()

    def _kill(self) -> None:
        self._process.kill()
        self._process.join()

    def _late(self) -> str | None:
        """Return a job that was asked to stop longer ago than a progress call should take."""
        now = time.monotonic()
        self._asked = {job: self._asked.get(job, now) for job in self._jobs.cancelling(self._lane)}
        return next((job for job, asked in self._asked.items() if now - asked > _GRACE_S), None)

    def _bury(self, why: str, *, killed_for: str | None = None, is_planned: bool = False) -> None:
        """Settle what a worker that is no more was at, and sweep what it left half written."""
        self._jobs.end_running(
            self._made, lane=self._lane, why=why, killed_for=killed_for, is_planned=is_planned
        )
        self._results.sweep()

    def _made(self, job: Job) -> bool:
        """Whether a job had stored its model when its worker ended, though it could not say so."""
        if self._lane == EXPLAIN or not self._results.has(job.model):
            return False
        try:
            card = self._results.card(job.model)
        except DamagedModel:
            return False
        asked = {name: job.request.get(name) for name in ("backbone", "head", "seed")}
        return asked == {name: card.get(name) for name in asked} and (
            datetime.fromisoformat(card["created_at"]).replace(tzinfo=UTC)
            >= datetime.fromisoformat(job.created_at)
        )


def stop_all(workers: Collection[Worker]) -> None:
    """Stop workers side by side: together they take no longer than one."""
    for worker in workers:
        worker.ask_to_stop()
    for worker in workers:
        worker.stop()


def _work(main: Main, data: Path, n_threads: int | None, parent: int, beat: Any) -> None:
    """Run a worker with its heartbeat; what outlives the service ends within seconds."""

    def keep_beating() -> None:
        while os.getppid() == parent:
            beat.value = time.monotonic()
            time.sleep(_BEAT_S)
        os._exit(1)  # its lease is nobody's: whatever it does, nobody would take it

    threading.Thread(target=keep_beating, daemon=True).start()
    os.nice(_NICE)
    main(data, n_threads, parent)


def _cause(exit_code: int | None) -> str:
    """Say how a process ended.

    Examples
    --------
    >>> _cause(-9)
    'The worker was ended by SIGKILL: by hand, or because the machine ran out of memory.'
    >>> _cause(3)
    'The worker ended with code 3.'
    """
    if exit_code is None or exit_code >= 0:
        return f"The worker ended with code {exit_code}."
    name = signal.Signals(-exit_code).name
    often = ": by hand, or because the machine ran out of memory" if name == "SIGKILL" else ""
    return f"The worker was ended by {name}{often}."
