"""Jobs as answers: what several routes say of them, and how a request finds its own."""

import time
from collections.abc import Callable
from threading import BoundedSemaphore
from typing import Annotated, Any

from fastapi import Header, Request
from fastapi.responses import JSONResponse

from service.door.limits import AT_ONCE
from service.errors import NotReady, TooManyWait
from service.jobs import OPEN, Job, Jobs
from service.schemas import JobOut

IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=r"^[!-~]{1,200}$",
        description="A word of your own for this request, such as a UUID: sent again under it, "
        "the request is answered with the job that it made, and queues no second one.",
    ),
]

_POLL_S = 0.1
# of the door's places, half: those that wait for a job leave room for those that do not
_WAITING = {
    "GET": BoundedSemaphore(AT_ONCE["read"] // 2),
    "POST": BoundedSemaphore(AT_ONCE["work"] // 2),
}


def job_out(job: Job) -> JobOut:
    """Return a job as it is shown."""
    return JobOut(**{name: getattr(job, name) for name in JobOut.model_fields})


def accepted(job: Job, shown: JobOut | None = None) -> JSONResponse:
    """202 and the job, with where to ask for it; `shown` where more is to be said of it."""
    headers = {"Location": f"/jobs/{job.job}", "Retry-After": "1"}
    return JSONResponse((shown or job_out(job)).model_dump(mode="json"), 202, headers)


def queued(request: Request, asked: dict[str, Any], model: str, key: str | None = None) -> Job:
    """Return the job sent under this key before, or the open one of what is asked, or a new one.

    Raises
    ------
    KeyReused, QueueFull
    """
    jobs: Jobs = request.app.state.jobs
    with request.app.state.naming:  # two requests at once must not queue it twice
        return (
            jobs.sent_before(key, asked)
            or jobs.find_open(asked)
            or jobs.submit(asked, model, key=key, asked=asked)
        )


def waited_for(request: Request, job: Job, is_there: Callable[[], bool] = lambda: False) -> Job:
    """Hold a request until a job is over, or what is wanted of it is there: the job as it is then.

    Raises
    ------
    TooManyWait
    """
    jobs: Jobs = request.app.state.jobs
    places = _WAITING[request.method]
    if not places.acquire(blocking=False):
        raise TooManyWait(
            "wanted a place to wait for a job, got none: all are taken. Ask without `wait`, and "
            "again when the job is done, or in five seconds."
        )
    try:
        while job.state in OPEN and not is_there():
            time.sleep(_POLL_S)
            job = jobs.get(job.job)
    finally:
        places.release()
    return job


def not_ready(what: str, job: Job) -> NotReady:
    """Say that a job did not bring what is wanted of it."""
    return NotReady(
        f"wanted {what}, but its job {job.job} is {job.state}: {job.error or job.message}"
    )
