"""Jobs as answers: what several routes say of them, and how a request finds its own."""

from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

from service.errors import NotReady
from service.jobs import Job, Jobs
from service.schemas import JobOut


def job_out(job: Job) -> JobOut:
    """Return a job as it is shown."""
    return JobOut(**{name: getattr(job, name) for name in JobOut.model_fields})


def accepted(job: Job, shown: JobOut | None = None) -> JSONResponse:
    """202 and the job, with where to ask for it; `shown` where more is to be said of it."""
    headers = {"Location": f"/jobs/{job.job}", "Retry-After": "1"}
    return JSONResponse((shown or job_out(job)).model_dump(mode="json"), 202, headers)


def queued(request: Request, asked: dict[str, Any], model: str) -> Job:
    """Return the open job of what is asked, queued now where there is none."""
    jobs: Jobs = request.app.state.jobs
    with request.app.state.naming:  # two requests at once must not queue it twice
        return jobs.find_open(asked) or jobs.submit(asked, model)


def not_ready(what: str, job: Job) -> NotReady:
    """Say that a job did not bring what is wanted of it."""
    return NotReady(
        f"wanted {what}, but its job {job.job} is {job.state}: {job.error or job.message}"
    )
