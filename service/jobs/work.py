"""What a worker process does: one job after the other, until it is to stop."""

import logging
import os
import signal
import sqlite3
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service import logs
from service.jobs.table import (
    EXPLAIN,
    HYPOTHESIS,
    MASK,
    REPORT,
    SELFTEST,
    SUGGEST,
    TRAIN,
    Cancelled,
    Jobs,
    LeaseLost,
)

Progress = Callable[[float, str], None]
# does a request, and returns what is to be said beside "done"
Run = Callable[[dict[str, Any], Progress], str | None]
_POLL_S = 0.2
_RETRY_S = 1.0
_log = logging.getLogger("gapscope.jobs")


class Stopped(BaseException):
    """Raised out of a job's progress call when its worker is to stop: no job may catch it."""


def work_one(
    jobs: Jobs,
    run: Run,
    expected: tuple[type[Exception], ...],
    lane: str = TRAIN,
    *,
    must_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Do the oldest queued job of a lane; False where there is none.

    Parameters
    ----------
    run
        Called with the request and a function for progress; what it returns is said at the end.
    expected
        Errors that speak for themselves; any other is a fault, named with its type.
    must_stop
        Whether the worker is to stop: then the job is left at its next progress call.
    """
    job = jobs.claim(lane)
    if job is None:
        return False
    last, began = 0.0, time.monotonic()

    def progress(share: float, message: str) -> None:
        nonlocal last
        if must_stop():
            raise Stopped
        now = time.monotonic()
        if now - last >= _POLL_S or share >= 1:
            jobs.report(job, share, message)
            last = now

    def finish(*end: str) -> None:
        _until_written(lambda: jobs.finish(job, *end), must_stop)
        took_ms = round(1000 * (time.monotonic() - began))
        state, message, *_ = end
        said = state if message in (state, "") else f"{state}: {message}"
        _log.info("%s", said, extra={"fields": {"model": job.model, "duration_ms": took_ms}})

    with logs.about(job=job.job):
        _log.info("started: %s for %s", job.kind, job.model)
        _do_to_its_end(lambda: run(job.request, progress), expected, finish)
    return True


def _do_to_its_end(
    do: Callable[[], str | None],
    expected: tuple[type[Exception], ...],
    finish: Callable[..., None],
) -> None:
    """Do a job, and say how it ended."""
    try:
        said = do()
    except Cancelled:
        finish("cancelled", "cancelled")
    except LeaseLost:
        _log.warning("lost to another worker")
    except Stopped:  # whoever stops the worker settles what it was at
        _log.info("stopped before its end")
    except expected as error:
        finish("failed", "refused", str(error))
    except Exception as error:  # noqa: BLE001 (the worker must outlive any fault of a job)
        _log.exception("a fault of Gapscope")
        finish(
            "failed",
            "a fault of Gapscope",
            f"{type(error).__name__}: {error}",
            traceback.format_exc(),
        )
    else:
        finish("done", f"done; {said}" if said else "done")


def _until_written(write: Callable[[], None], must_stop: Callable[[], bool]) -> None:
    """Write how a job ended, however long the disk is full; whoever stops leaves it as it is."""
    while not must_stop():
        try:
            return write()
        except sqlite3.OperationalError as error:
            _log.error("the end of a job could not be written yet: %s", error)
            time.sleep(_RETRY_S)
    return None


def work_on(data: Path, n_threads: int | None, parent: int, lane: str = TRAIN) -> None:
    """Work until the parent process is no more, or SIGTERM: the main function of a worker."""
    told: list[int] = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, which ends this one
    signal.signal(signal.SIGTERM, lambda number, _frame: told.append(number))

    def must_stop() -> bool:
        return bool(told) or os.getppid() != parent

    import torch

    from etl.errors import LoadRefused
    from models.errors import ModelError
    from service.analysis import Analysis, resources_of
    from service.disk import refusing_disk_faults
    from service.errors import ServiceError
    from service.settings import read_settings

    if n_threads:
        torch.set_num_threads(n_threads)
    settings = read_settings()
    logs.configure(settings.log)
    jobs, analysis = Jobs(data), Analysis(data, resources_of(settings))

    def run(request: dict[str, Any], progress: Progress) -> str:
        with refusing_disk_faults(data):
            return _do(analysis, request, progress)

    while not must_stop():
        try:
            did_one = work_one(
                jobs, run, (LoadRefused, ModelError, ServiceError), lane, must_stop=must_stop
            )
        except sqlite3.OperationalError as error:  # no room to claim one
            _log.error("the job table could not be written: %s", error)
            did_one = False
        if not did_one:
            time.sleep(_POLL_S)


def explain_on(data: Path, n_threads: int | None, parent: int) -> None:
    """Compute explanations until the parent process is no more, or SIGTERM."""
    work_on(data, n_threads, parent, EXPLAIN)


def _do(analysis: Any, request: dict[str, Any], progress: Progress) -> str:
    """Do a request of any kind; return what is to be said of it beside "done"."""
    from service import selftest
    from service.gap.explaining import Question
    from service.hypotheses.schemas import SuggestIn
    from service.hypotheses.testing import Hypotheses
    from service.report.kept import make_and_keep

    notes: list[str] = []
    if SUGGEST in request:
        asked = SuggestIn(**request["explain"])
        Hypotheses(analysis).suggest(asked, progress=progress)
    elif HYPOTHESIS in request:
        tested = Hypotheses(analysis).test(request[HYPOTHESIS], progress=progress)
        if tested.result is not None:
            notes.append(tested.result.sentence)
    elif REPORT in request:
        made = make_and_keep(analysis, request[REPORT], progress=progress)
        notes.append(f"report {made.report}")
    elif "explain" in request:
        question = Question(analysis, **request["explain"])
        if MASK in request:
            question.mask(request[MASK], progress=progress)
        elif SELFTEST in request:
            selftest.run(question, **request[SELFTEST], progress=progress)
        else:
            question.compute(progress=progress)
    else:
        analysis.train(**request, progress=progress, note=notes.append)
    return "; ".join(notes)
