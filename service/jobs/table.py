"""The job table: one SQLite file (WAL), so that jobs survive the service.

A job is `queued`, then `running` under a lease: whoever claims it gets a word of its own, and only
with that word is its progress or its end written. So a worker that was taken for dead and comes
back can no longer write into a job that another one does by now.

    queued ──> running ──> done, failed
      │  ↑        │ ├─────> interrupted, or queued again: its worker died
      │  │        ↓ │
      │  │   cancelling ──> cancelled (done, failed: it ended before it heard)
      ↓  └──── resumed: interrupted, failed, cancelled
    cancelled
"""

import hashlib
import json
import logging
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.errors import JobDone, KeyReused, NotFound, NotResumable, QueueFull

DATABASE = "jobs.sqlite"
OPEN = ("queued", "running", "cancelling")
OVER = ("interrupted", "failed", "cancelled")  # and not done: may be resumed
STATES = (*OPEN, "done", *OVER)
# a training takes the machine for long: explanations have a queue and a worker of their own
TRAIN, EXPLAIN = "train", "explain"
LANES = (TRAIN, EXPLAIN)
HYPOTHESIS = "hypothesis"  # kind of a training: a refined head, scored once beside its baseline
SUGGEST = "suggest"  # kind of an explanation: hypotheses from findings on the explore halves
MASK = "mask"  # kind of an explanation: the head fitted again without some features
SELFTEST = "selftest"  # another: how often explanations are wrong
REPORT = "report"  # another: all of it as PDF and HTML
MAX_QUEUED = 100  # of a lane: whoever sends more has a loop without an end
RESUMES = 2  # how often a job whose worker died goes on by itself
_IN_LANE = {
    TRAIN: "json_extract(request, '$.explain') is null",
    EXPLAIN: "json_extract(request, '$.explain') is not null",
}
_WAITING = "waiting for its turn"
_GOES_ON = "its worker stopped; it goes on from its last checkpoint"
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
# since the first version: added to tables of before, too
_COLUMNS = {
    "lease": "text",  # word of the worker that does it
    "resumes": "integer not null default 0",  # how often it may still go on by itself
    "key": "text",  # of the client, so that a request sent twice is one job
    "asked": "text",  # digest of what was sent under that key
    "changed": "integer not null default 0",  # grows with each change of any job
}
_COUNT_CHANGE = "begin update job set changed = (select max(changed) + 1 from job) " \
    "where job = new.job; end"  # fmt: skip
_INDEXES = (
    "create unique index if not exists job_key on job (key)",
    "create index if not exists job_changed on job (changed)",
    "create index if not exists job_state on job (state)",
    f"create trigger if not exists job_made after insert on job {_COUNT_CHANGE}",
    "create trigger if not exists job_moved after update of state, progress, message on job "
    + _COUNT_CHANGE,
)
_log = logging.getLogger("gapscope.jobs")


class Cancelled(Exception):
    """Raised out of a job's progress call when its cancelling was asked for."""


class LeaseLost(Exception):
    """Raised out of a job's progress call when it is another worker's by now, or over."""


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
    lease : word of the worker that does it; None where none does
    changed : grows with each change of any job
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
    lease: str | None
    changed: int

    @property
    def kind(self) -> str:
        """What it does: train, hypothesis, explain, mask, suggest, selftest or report."""
        for kind in (REPORT, MASK, SUGGEST, SELFTEST, HYPOTHESIS):
            if kind in self.request:
                return kind
        return EXPLAIN if "explain" in self.request else TRAIN

    @property
    def lane(self) -> str:
        """Whose queue it stands in: train or explain."""
        return EXPLAIN if "explain" in self.request else TRAIN


class Jobs:
    """The job table of one data folder."""

    def __init__(self, data: Path) -> None:
        data.mkdir(parents=True, exist_ok=True)
        self._file = data / DATABASE
        with self._connect() as con:
            con.execute("pragma journal_mode = wal")
            con.execute("begin immediate")
            con.execute(_SCHEMA)
            there = {row[1] for row in con.execute("pragma table_info(job)")}
            for name, kind in _COLUMNS.items():
                if name not in there:
                    con.execute(f"alter table job add column {name} {kind}")
            for statement in _INDEXES:
                con.execute(statement)

    def submit(
        self,
        request: dict[str, Any],
        model: str,
        *,
        resumes: int = RESUMES,
        key: str | None = None,
        asked: object = None,
    ) -> Job:
        """Queue a request.

        Parameters
        ----------
        resumes
            How often it goes on by itself when its worker dies.
        key, asked
            The client's word for this request, and what it sent: see `sent_before`.

        Raises
        ------
        QueueFull
        """
        job = uuid.uuid4().hex[:12]
        lane = EXPLAIN if "explain" in request else TRAIN
        with self._connect() as con:
            con.execute("begin immediate")  # two at once must not both take the last place
            self._check_room(con, lane)
            con.execute(
                "insert into job (job, request, model, state, message, created_at, resumes, key, "
                "asked) values (?, ?, ?, 'queued', ?, ?, ?, ?, ?)",
                (job, json.dumps(request), model, _WAITING, _now(), resumes, key, _digest(asked)),
            )
        _log.info("queued: %s for %s", lane, model, extra={"fields": {"job": job}})
        return self.get(job)

    def sent_before(self, key: str | None, asked: object) -> Job | None:
        """Return the job that was queued under a client's key, or None.

        Raises
        ------
        KeyReused
            Something else was sent under that key.
        """
        if key is None:
            return None
        with self._connect() as con:
            row = con.execute("select job, asked from job where key = ?", (key,)).fetchone()
        if row is None:
            return None
        if row[1] != _digest(asked):
            raise KeyReused(
                f"wanted one request under an Idempotency-Key, got another one than that of job "
                f"{row[0]}. Send a key of its own with each request."
            )
        return self.get(row[0])

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

    def all(self, limit: int = -1) -> list[Job]:
        """Return the jobs, newest first: at most `limit` of them, -1 for all."""
        return self._select("order by created_at desc, rowid desc limit ?", limit)

    def open(self) -> list[Job]:
        """Return the jobs that are not over, newest first."""
        return self._select(f"where state in {OPEN} order by created_at desc, rowid desc")

    def changed_since(self, change: int) -> list[Job]:
        """Return the jobs that changed since a job's `changed`, in the order in which they did."""
        return self._select("where changed > ? order by changed", change)

    def counts(self) -> dict[tuple[str, str], int]:
        """Return how many jobs there are of each lane and state, zeros too."""
        found = dict.fromkeys(((lane, state) for lane in LANES for state in STATES), 0)
        with self._connect() as con:
            for lane, condition in _IN_LANE.items():
                for state, n in con.execute(
                    f"select state, count(*) from job where {condition} group by state"
                ):
                    found[lane, state] = n
        return found

    def open_models(self) -> set[str]:
        """Return the names of the models that queued and running trainings will make."""
        return {job.model for job in self._select(f"where state in {OPEN} and {_IN_LANE[TRAIN]}")}

    def find_open(self, request: dict[str, Any]) -> Job | None:
        """Return the queued or running job of this very request, or None."""
        return next((job for job in self.open() if job.request == request), None)

    def has_queued(self, lane: str) -> bool:
        """Whether a job of a lane waits for its turn."""
        return bool(self._select(f"where state = 'queued' and {_IN_LANE[lane]} limit 1"))

    def claim(self, lane: str = TRAIN) -> Job | None:
        """Take the oldest queued job of a lane under a lease of one's own, or None."""
        with self._connect() as con:
            row = con.execute(
                "update job set state = 'running', message = 'started', lease = ? where job = ("
                f"select job from job where state = 'queued' and {_IN_LANE[lane]} "
                "order by created_at, rowid limit 1) returning job",
                (uuid.uuid4().hex,),
            ).fetchone()
        return None if row is None else self.get(row[0])

    def report(self, job: Job, progress: float, message: str) -> None:
        """Write how far a claimed job is, where there is room for it on the disk.

        Raises
        ------
        Cancelled
            Someone asked for it.
        LeaseLost
            It is no longer this claim's.
        """
        with suppress(sqlite3.OperationalError), self._connect() as con:
            con.execute(
                "update job set progress = ?, message = ? "
                "where job = ? and lease = ? and state = 'running'",
                (progress, message, job.job, job.lease),
            )
        now = self.get(job.job)
        if now.lease != job.lease:
            raise LeaseLost
        if now.state == "cancelling":
            raise Cancelled

    def finish(
        self, job: Job, state: str, message: str, error: str | None = None, trace: str | None = None
    ) -> None:
        """End a claimed job; one that is over, or another claim's, stays as it is."""
        with self._connect() as con:
            con.execute(
                "update job set state = ?, message = ?, error = ?, trace = ?, finished_at = ?, "
                "lease = null, progress = case when ? = 'done' then 1 else progress end "
                "where job = ? and lease = ? and state in ('running', 'cancelling')",
                (state, message, error, trace, _now(), state, job.job, job.lease),
            )

    def cancel(self, job: str) -> Job:
        """Ask for a job to stop; one that nobody does stops at once. Asking twice is no error.

        Raises
        ------
        NotFound, JobDone
        """
        with self._connect() as con:
            con.execute(
                "update job set state = case state when 'running' then 'cancelling' "
                "else 'cancelled' end, message = case state when 'running' then "
                "'stops within two seconds' else 'cancelled' end, "
                "error = null, finished_at = case state when 'running' then null else ? end "
                "where job = ? and state in ('queued', 'running', 'interrupted')",
                (_now(), job),
            )
        found = self.get(job)
        if found.state not in ("cancelled", "cancelling"):
            raise JobDone(f"wanted a job that is not over, got one that is {found.state}.")
        _log.info("asked to stop: it is %s", found.state, extra={"fields": {"job": job}})
        return found

    def resume(self, job: str) -> Job:
        """Queue a job again that was interrupted, failed or cancelled, under its id and model.

        Raises
        ------
        NotFound, NotResumable, QueueFull
        """
        found = self.get(job)
        with self._connect() as con:
            con.execute("begin immediate")
            self._check_room(con, found.lane)
            n = con.execute(
                "update job set state = 'queued', progress = 0, finished_at = null, error = null, "
                f"trace = null, message = ? where job = ? and state in {OVER}",
                (_WAITING, job),
            ).rowcount
        found = self.get(job)
        if not n:
            raise NotResumable(
                f"wanted a job that was {', '.join(OVER[:-1])} or {OVER[-1]}, got one that is "
                f"{found.state}. GET /jobs shows how far it is."
            )
        _log.info("resumed: queued again", extra={"fields": {"job": job}})
        return found

    def end_running(
        self,
        made: Callable[[Job], bool] = lambda _job: False,
        *,
        lane: str = TRAIN,
        why: str = "The worker or the service stopped.",
        killed_for: str | None = None,
        is_planned: bool = False,
    ) -> None:
        """Settle the jobs of a worker that is no more; called where no worker is alive.

        A job that may go on by itself is queued again; else it is `interrupted`.

        Parameters
        ----------
        made
            Whether the model of a job is there: then it was done when the worker ended.
        why
            What became of the worker, as a sentence.
        killed_for
            The job that the worker was killed for. Any other had only just begun, and is queued
            again in any case.
        is_planned
            Whether the worker was told to stop: that uses up none of a job's resumes.
        """
        for job in self._select(f"where state in ('running', 'cancelling') and {_IN_LANE[lane]}"):
            just_begun = killed_for not in (None, job.job)
            if made(job):
                self.finish(job, "done", "done")
            elif job.state == "cancelling":
                self.finish(job, "cancelled", "cancelled")
            elif self._goes_on(job, used=not (is_planned or just_begun), anyway=just_begun):
                level = logging.INFO if is_planned else logging.WARNING
                _log.log(level, "queued again: %s", why, extra={"fields": {"job": job.job}})
            else:
                self.finish(
                    job,
                    "interrupted",
                    "the worker stopped before the job was done",
                    f"{why} Go on: POST /jobs/{job.job}/resume; the same request gives the same "
                    "answer.",
                )
                _log.warning("interrupted: %s", why, extra={"fields": {"job": job.job}})

    def _goes_on(self, job: Job, *, used: bool, anyway: bool) -> bool:
        """Queue a claimed job again where it may go on by itself."""
        with self._connect() as con:
            n = con.execute(
                "update job set state = 'queued', message = ?, lease = null, resumes = resumes - ? "
                "where job = ? and lease = ? and state = 'running' and (resumes > 0 or ?)",
                (_GOES_ON, used, job.job, job.lease, anyway),
            ).rowcount
        return bool(n)

    def cancelling(self, lane: str = TRAIN) -> set[str]:
        """Return the jobs of a lane that were asked to stop and have not yet."""
        return {job.job for job in self._select(f"where state = 'cancelling' and {_IN_LANE[lane]}")}

    def _check_room(self, con: sqlite3.Connection, lane: str) -> None:
        (n,) = con.execute(
            f"select count(*) from job where state = 'queued' and {_IN_LANE[lane]}"
        ).fetchone()
        if n >= MAX_QUEUED:
            raise QueueFull(
                f"wanted a queue with room, got one where {n} jobs wait. Try again when some are "
                "over: GET /jobs shows them, DELETE /jobs/{job} cancels one."
            )

    def _select(self, where: str, *params: str | int) -> list[Job]:
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


def _digest(asked: object) -> str | None:
    if asked is None:
        return None
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
