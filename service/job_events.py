"""How far the jobs are, as server-sent events."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi.concurrency import run_in_threadpool

from service.jobs import Job, Jobs
from service.queueing import job_out

_POLL_S = 0.5
_RETRY_MS = 1000


async def events(
    jobs: Jobs, is_over: Callable[[], Awaitable[bool]], last: int | None = None
) -> AsyncIterator[str]:
    """Events `jobs` whenever something changed, and `idle` once nothing is under way.

    Nothing is kept for a client: one that reads slowly gets fewer events, each up to date.

    Parameters
    ----------
    is_over
        Whether the client has gone away, or the service stops.
    last
        Id of the last event that the client got: it begins with what changed since. Default: with
        all that is under way.
    """
    yield f"retry: {_RETRY_MS}\n\n"
    while not await is_over():
        under_way, changed = await run_in_threadpool(_news, jobs, last)
        if changed:
            last = max(job.changed for job in changed)
            lines = ",".join(job_out(job).model_dump_json() for job in changed)
            yield f"id: {last}\nevent: jobs\ndata: [{lines}]\n\n"
        if not under_way:
            yield "event: idle\ndata: {}\n\n"
            return
        await asyncio.sleep(_POLL_S)


def _news(jobs: Jobs, last: int | None) -> tuple[list[Job], list[Job]]:
    """Return what is under way and what changed: in this order, no end goes untold."""
    under_way = jobs.open()
    return under_way, under_way if last is None else jobs.changed_since(last)
