"""How far the jobs are, as server-sent events."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi.concurrency import run_in_threadpool

from service.jobs import OPEN, Job, Jobs
from service.queueing import job_out

_POLL_S = 0.5
_RETRY_MS = 1000


async def events(jobs: Jobs, is_gone: Callable[[], Awaitable[bool]]) -> AsyncIterator[str]:
    """Events `jobs` whenever something changed, and `idle` once nothing is under way.

    Parameters
    ----------
    is_gone
        Whether the client has gone away.
    """
    yield f"retry: {_RETRY_MS}\n\n"
    shown: dict[str, str] = {}
    while not await is_gone():
        found = await run_in_threadpool(jobs.all)
        under_way = {job.job: _line(job) for job in found if job.state in OPEN}
        # those that were under way when last told: how they ended is told once
        ended = {job.job: _line(job) for job in found if job.job in shown} | under_way
        if ended != shown:
            yield f"event: jobs\ndata: [{','.join(ended.values())}]\n\n"
        if not under_way:
            yield "event: idle\ndata: {}\n\n"
            return
        shown = under_way
        await asyncio.sleep(_POLL_S)


def _line(job: Job) -> str:
    return json.dumps(job_out(job).model_dump(mode="json"))
