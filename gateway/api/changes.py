"""That jobs have changed, by server-sent events: a page that lists them reads the list again then, and not before."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse

from gateway.callers import Caller, Reader
from gateway.fleet import KnownJobs
from gateway.route import checked_router
from pipelines.job_index import JobIndex
from schemas.errors import RigflowError

router = checked_router(tags=["jobs"])
SILENT_S = 15.0  # a comment is sent after this time, so that proxies keep the connection
APART_S = 1.0  # between two looks at the jobs: changes within this time are one event
_EVENT = {"type": "object", "properties": {"event": {"type": "string"}, "data": {"type": "string"}}}
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "An event `jobs` at first, and when jobs were created, changed or deleted; at most one a second",
        "content": {"text/event-stream": {"schema": _EVENT}},
    }
}


@router.get("/changes", response_class=StreamingResponse, responses=EVENTS)
async def changes(request: Request, caller: Reader, jobs: KnownJobs) -> StreamingResponse:
    """Follow the list of jobs, until the client goes away. Its `data` is empty: read the list again."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    lines = _lines(jobs, caller, request.app.state.stopping)
    return StreamingResponse(lines, media_type="text/event-stream", headers=headers)


async def _lines(jobs: JobIndex, caller: Caller, stopping: asyncio.Event) -> AsyncIterator[str]:
    known, said_s = (-1, -1), time.monotonic()
    while not stopping.is_set() and caller.is_valid():
        version = known
        with suppress(RigflowError):  # the broker is away: there is nothing new until it is back
            version = await jobs.version(caller.tenant)
        if version != known:
            known, said_s = version, time.monotonic()
            yield "event: jobs\ndata: {}\n\n"
        elif time.monotonic() - said_s >= SILENT_S:
            said_s = time.monotonic()
            yield ": \n\n"
        with suppress(TimeoutError):
            async with asyncio.timeout(APART_S):
                await stopping.wait()
