"""The job table, and the worker process that empties it.

Jobs live in a SQLite file (WAL) so that they survive the service. One worker process, spawned and
never forked with torch in it, takes the oldest queued job; progress and cancelling go through the
table. A cancelled job that does not come to its next progress call is ended with its worker, and
another worker takes that one's place. A job whose worker died is `interrupted`, never for ever
`running`.
"""

import json
import multiprocessing
import os
import signal
import sqlite3
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.errors import JobDone, NotFound, NotResumable
from service.results import Results

DATABASE = "jobs.sqlite"
OPEN = ("queued", "running", "cancelling")
OVER = ("interrupted", "failed", "cancelled")  # and not done: may be resumed
# a training takes the machine for long: explanations have a queue and a worker of their own
TRAIN, EXPLAIN = "train", "explain"
HYPOTHESIS = "hypothesis"  # kind of a training: a refined head, scored once beside its baseline
SUGGEST = "suggest"  # kind of an explanation: hypotheses from findings on the explore halves
MASK = "mask"  # kind of an explanation: the head fitted again without some features
SELFTEST = "selftest"  # another: how often explanations are wrong
REPORT = "report"  # another: all of it as PDF and HTML
_IN_LANE = {
    TRAIN: "json_extract(request, '$.explain') is null",
    EXPLAIN: "json_extract(request, '$.explain') is not null",
}
_POLL_S = 0.2
_GRACE_S = 1.2  # for a cancelled job to come to its next progress call
_SCHEMA = """
create table if not exists job (
    job text primary key,
    request text not null,
    model text not null,
    state text not null check (state in (
        'queued', 'running', 'done', 'failed', 'cancelling', 'cancelled', 'interrupted')),
    progress real not null default 0,
    message text not null default '',
    error text,
    trace text,
    created_at text not null,
    finished_at text
)
"""
# does a request, and returns what is to be said beside "done"
Run = Callable[[dict[str, Any], Callable[[float, str], None]], str | None]


class Cancelled(Exception):
    """Raised out of a job's progress call when its cancelling was asked for."""


@dataclass(frozen=True)
class Job:
    """One row of the table.

    Attributes
    ----------
    job : its id
    request : what is to be done
    model : name of the model that it will make, or that it explains
    state : queued, running, done, failed, cancelling, cancelled or interrupted
    progress : share done, in [0, 1]
    message : what is going on, in words
    error : why it failed; None elsewhere
    """

    job: str
    request: dict[str, Any]
    model: str
    state: str
    progress: float
    message: str
    error: str | None
    created_at: str
    finished_at: str | None

    @property
    def kind(self) -> str:
        """What it does: train, hypothesis, explain, mask, suggest, selftest or report."""
        for kind in (REPORT, MASK, SUGGEST, SELFTEST, HYPOTHESIS):
            if kind in self.request:
                return kind
        return EXPLAIN if "explain" in self.request else TRAIN


class Jobs:
    """The job table of one data folder."""

    def __init__(self, data: Path) -> None:
        data.mkdir(parents=True, exist_ok=True)
        self._file = data / DATABASE
        with self._connect() as con:
            con.execute("pragma journal_mode = wal")
            con.execute(_SCHEMA)

    def submit(self, request: dict[str, Any], model: str) -> Job:
        """Queue a request."""
        job = uuid.uuid4().hex[:12]
        with self._connect() as con:
            con.execute(
                "insert into job (job, request, model, state, message, created_at) "
                "values (?, ?, ?, 'queued', 'waiting for its turn', ?)",
                (job, json.dumps(request), model, _now()),
            )
        return self.get(job)

    def get(self, job: str) -> Job:
        """Return one job.

        Raises
        ------
        NotFound
        """
        found = self._select("where job = ?", job)
        if not found:
            raise NotFound(f"wanted a job of this service, got {job!r}. GET /jobs lists them.")
        return found[0]

    def all(self) -> list[Job]:
        """Return all jobs, newest first."""
        return self._select("order by created_at desc, rowid desc")

    def open_models(self) -> set[str]:
        """Return the names of the models that queued and running trainings will make."""
        return {job.model for job in self._select(f"where state in {OPEN} and {_IN_LANE[TRAIN]}")}

    def find_open(self, request: dict[str, Any]) -> Job | None:
        """Return the queued or running job of this very request, or None."""
        return next(
            (j for j in self._select(f"where state in {OPEN}") if j.request == request), None
        )

    def has_queued(self, lane: str) -> bool:
        """Whether a job of a lane waits for its turn."""
        return bool(self._select(f"where state = 'queued' and {_IN_LANE[lane]}"))

    def claim(self, lane: str = TRAIN) -> Job | None:
        """Take the oldest queued job of a lane, or None."""
        with self._connect() as con:
            row = con.execute(
                "update job set state = 'running', message = 'started' where job = ("
                f"select job from job where state = 'queued' and {_IN_LANE[lane]} "
                "order by created_at, rowid limit 1) returning job"
            ).fetchone()
        return None if row is None else self.get(row[0])

    def report(self, job: str, progress: float, message: str) -> None:
        """Write how far a job is.

        Raises
        ------
        Cancelled
            Someone asked for it.
        """
        with self._connect() as con:
            con.execute(
                "update job set progress = ?, message = ? where job = ? and state = 'running'",
                (progress, message, job),
            )
        if self.get(job).state == "cancelling":
            raise Cancelled

    def finish(
        self, job: str, state: str, message: str, error: str | None = None, trace: str | None = None
    ) -> None:
        """End a job that is under way; one that is over stays as it is."""
        with self._connect() as con:
            con.execute(
                "update job set state = ?, message = ?, error = ?, trace = ?, finished_at = ?, "
                "progress = case when ? = 'done' then 1 else progress end "
                "where job = ? and state in ('running', 'cancelling')",
                (state, message, error, trace, _now(), state, job),
            )

    def cancel(self, job: str) -> Job:
        """Ask for a job to stop; a queued one stops at once. Asking twice is no error.

        Raises
        ------
        NotFound, JobDone
        """
        with self._connect() as con:
            con.execute(
                "update job set state = case state when 'queued' then 'cancelled' "
                "else 'cancelling' end, message = case state when 'queued' then 'cancelled' "
                "else 'stops within two seconds' end, "
                "finished_at = case state when 'queued' then ? end "
                "where job = ? and state in ('queued', 'running')",
                (_now(), job),
            )
        found = self.get(job)
        if found.state not in ("cancelled", "cancelling"):
            raise JobDone(f"wanted a job that is not over, got one that is {found.state}.")
        return found

    def resume(self, job: str) -> Job:
        """Queue a job again that was interrupted, failed or cancelled, under its id and model.

        Raises
        ------
        NotFound, NotResumable
        """
        with self._connect() as con:
            n = con.execute(
                "update job set state = 'queued', progress = 0, finished_at = null, error = null, "
                f"trace = null, message = 'waiting for its turn' where job = ? and state in {OVER}",
                (job,),
            ).rowcount
        found = self.get(job)
        if not n:
            raise NotResumable(
                f"wanted a job that was {', '.join(OVER[:-1])} or {OVER[-1]}, got one that is "
                f"{found.state}. GET /jobs shows how far it is."
            )
        return found

    def end_running(
        self,
        made: Callable[[Job], bool] = lambda _job: False,
        *,
        lane: str = TRAIN,
        killed: str | None = None,
    ) -> None:
        """End the jobs of a worker that is no more; called where no worker is alive.

        Parameters
        ----------
        made
            Whether the model of a job is there: then it was done when the worker ended.
        killed
            The job that the worker was killed for. Any other had only just begun, and is queued
            again.
        """
        mine = _IN_LANE[lane]
        for job in self._select(f"where state in ('running', 'cancelling') and {mine}"):
            if made(job):
                self.finish(job.job, "done", "done")
        with self._connect() as con:
            if killed is not None:
                con.execute(
                    "update job set state = 'queued', progress = 0, "
                    "message = 'waiting for its turn' "
                    f"where state = 'running' and job != ? and {mine}",
                    (killed,),
                )
            con.execute(
                "update job set state = 'cancelled', message = 'cancelled', finished_at = ? "
                f"where state = 'cancelling' and {mine}",
                (_now(),),
            )
            con.execute(
                "update job set state = 'interrupted', finished_at = ?, "
                "message = 'the worker stopped before the job was done', "
                "error = 'The worker or the service stopped. Go on: POST /jobs/' || job || "
                "'/resume; the same request gives the same answer.' "
                f"where state = 'running' and {mine}",
                (_now(),),
            )

    def cancelling(self, lane: str = TRAIN) -> set[str]:
        """Return the jobs of a lane that were asked to stop and have not yet."""
        return {job.job for job in self._select(f"where state = 'cancelling' and {_IN_LANE[lane]}")}

    def _select(self, where: str, *params: str) -> list[Job]:
        columns = ", ".join(Job.__dataclass_fields__)
        with self._connect() as con:
            rows = con.execute(f"select {columns} from job {where}", params).fetchall()
        return [Job(row[0], json.loads(row[1]), *row[2:]) for row in rows]

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        con = sqlite3.connect(self._file, timeout=30)
        try:
            with con:
                yield con
        finally:
            con.close()


def work_one(
    jobs: Jobs, run: Run, expected: tuple[type[Exception], ...], lane: str = TRAIN
) -> bool:
    """Do the oldest queued job of a lane; False where there is none.

    Parameters
    ----------
    run
        Called with the request and a function for progress; what it returns is said at the end.
    expected
        Errors that speak for themselves; any other is a fault, named with its type.
    """
    job = jobs.claim(lane)
    if job is None:
        return False
    last = 0.0

    def progress(share: float, message: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _POLL_S or share >= 1:
            jobs.report(job.job, share, message)
            last = now

    try:
        said = run(job.request, progress)
    except Cancelled:
        jobs.finish(job.job, "cancelled", "cancelled")
    except expected as error:
        jobs.finish(job.job, "failed", "refused", str(error))
    except Exception as error:  # noqa: BLE001 (the worker must outlive any fault of a job)
        jobs.finish(
            job.job,
            "failed",
            "a fault of Gapscope",
            f"{type(error).__name__}: {error}",
            traceback.format_exc(),
        )
    else:
        jobs.finish(job.job, "done", f"done; {said}" if said else "done")
    return True


def work_on(data: Path, n_threads: int | None, parent: int, lane: str = TRAIN) -> None:
    """Work until the parent process is no more: the main function of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, which ends this one
    import torch

    from etl.errors import LoadRefused
    from models.errors import ModelError
    from service import selftest
    from service.analysis import Analysis, resources_of
    from service.errors import ServiceError
    from service.gap.explaining import Question
    from service.hypotheses.schemas import SuggestIn
    from service.hypotheses.testing import Hypotheses
    from service.report.kept import make_and_keep
    from service.settings import read_settings

    if n_threads:
        torch.set_num_threads(n_threads)
    jobs, analysis = Jobs(data), Analysis(data, resources_of(read_settings()))

    def run(request: dict[str, Any], progress: Callable[[float, str], None]) -> str:
        notes: list[str] = []

        def while_parent_lives(share: float, message: str) -> None:
            if os.getppid() != parent:
                raise SystemExit
            progress(share, message)

        if SUGGEST in request:
            asked = SuggestIn(**request["explain"])
            Hypotheses(analysis).suggest(asked, progress=while_parent_lives)
        elif HYPOTHESIS in request:
            tested = Hypotheses(analysis).test(request[HYPOTHESIS], progress=while_parent_lives)
            if tested.result is not None:
                notes.append(tested.result.sentence)
        elif REPORT in request:
            made = make_and_keep(analysis, request[REPORT], progress=while_parent_lives)
            notes.append(f"report {made.report}")
        elif lane == EXPLAIN:
            question = Question(analysis, **request["explain"])
            if "mask" in request:
                question.mask(request["mask"], progress=while_parent_lives)
            elif SELFTEST in request:
                selftest.run(question, **request[SELFTEST], progress=while_parent_lives)
            else:
                question.compute(progress=while_parent_lives)
        else:
            analysis.train(**request, progress=while_parent_lives, note=notes.append)
        return "; ".join(notes)

    while os.getppid() == parent:
        if not work_one(jobs, run, (LoadRefused, ModelError, ServiceError), lane):
            time.sleep(_POLL_S)


def explain_on(data: Path, n_threads: int | None, parent: int) -> None:
    """Compute explanations until the parent process is no more."""
    work_on(data, n_threads, parent, EXPLAIN)


Main = Callable[[Path, int | None, int], None]


class Worker:
    """The worker process, started anew whenever it dies.

    Parameters
    ----------
    data, n_threads
        The data folder, and how many cores to use.
    main
        What the process runs: called with these two and the id of this process.
    lane
        Whose jobs it does. The process for explanations starts with the first of them.
    """

    def __init__(
        self, data: Path, n_threads: int | None, main: Main = work_on, *, lane: str = TRAIN
    ) -> None:
        self._data, self._n_threads, self._main, self._lane = data, n_threads, main, lane
        self._jobs, self._results = Jobs(data), Results(data)
        self._stop = threading.Event()
        self._process: Any = None
        self._asked: dict[str, float] = {}  # when each cancelling job was first seen so
        self._watch = threading.Thread(target=self._keep_alive, daemon=True)

    def start(self) -> None:
        """Start it; jobs that ran when the last worker died are interrupted first."""
        self._bury()
        if self._lane == TRAIN:
            self._spawn()
        self._watch.start()

    def stop(self) -> None:
        """Stop it; a job under way becomes interrupted."""
        self._stop.set()
        self._watch.join()
        if self._process is None:
            return
        self._process.terminate()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._bury()

    @property
    def is_alive(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and bool(self._process.is_alive())

    def _spawn(self) -> None:
        self._process = multiprocessing.get_context("spawn").Process(
            target=self._main,
            args=(self._data, self._n_threads, os.getpid()),
            name="gapscope-worker",
        )
        self._process.start()

    def _keep_alive(self) -> None:
        while not self._stop.wait(_POLL_S):
            if self._process is None:
                if self._jobs.has_queued(self._lane):
                    self._spawn()
                continue
            late = self._late()
            if late is not None and self._process.is_alive():
                self._process.kill()
                self._process.join()
            if not self._process.is_alive():
                self._bury(killed=late)
                self._spawn()

    def _late(self) -> str | None:
        """Return a job that was asked to stop longer ago than a progress call should take."""
        now = time.monotonic()
        self._asked = {job: self._asked.get(job, now) for job in self._jobs.cancelling(self._lane)}
        return next((job for job, asked in self._asked.items() if now - asked > _GRACE_S), None)

    def _bury(self, killed: str | None = None) -> None:
        """Settle what a worker that is no more was at, and sweep what it left half written."""
        self._jobs.end_running(self._made, lane=self._lane, killed=killed)
        self._results.sweep()

    def _made(self, job: Job) -> bool:
        """Whether a job had stored its model when its worker ended, though it could not say so."""
        if self._lane == EXPLAIN or not self._results.has(job.model):
            return False
        card = self._results.card(job.model)
        asked = {name: job.request.get(name) for name in ("backbone", "head", "seed")}
        return asked == {name: card.get(name) for name in asked} and (
            datetime.fromisoformat(card["created_at"]).replace(tzinfo=UTC)
            >= datetime.fromisoformat(job.created_at)
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
