"""What happens to a job, by server-sent events."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Header, Request
from fastapi.responses import StreamingResponse

from gateway.api.views import DoneView, FileView, JobView
from gateway.callers import Caller, Reader
from gateway.fleet import Connected, client_of
from gateway.route import checked_router
from pipelines.job import Job
from pipelines.job_events import Ended, Event, FileMade, PartFailed, PartMade, Progress
from schemas.errors import RigflowError
from schemas.jobs import Key

log = logging.getLogger("rigflow")
_tasks: set[asyncio.Task[Any]] = set()  # so that none is forgotten while it ends
router = checked_router(prefix="/jobs", tags=["jobs"])
SILENT_S = 15.0  # a comment is sent after this time, so that proxies keep the connection
LastEventId = Annotated[int, Header(alias="Last-Event-ID", ge=0, le=1 << 53, description="go on after this event")]
_TEXT = {"type": "string"}
_EVENT = {"type": "object", "properties": {"event": _TEXT, "data": _TEXT, "id": _TEXT}, "required": ["event", "data"]}
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`progress`, `part`, `failure`, `text` and `file` events as they come, and at last `done`",
        "content": {"text/event-stream": {"schema": _EVENT}},
    }
}


@router.get("/{job}/events", response_class=StreamingResponse, responses=EVENTS)
async def events(
    job: str, request: Request, caller: Reader, broker: Connected, last: LastEventId = 0
) -> StreamingResponse:
    """Follow a job, from its first result on, or after the event `Last-Event-ID`; ends with the event `done`."""
    found = await client_of(broker, caller).find(job)
    stopping: asyncio.Event = request.app.state.stopping
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_lines(found, last, stopping, caller), media_type="text/event-stream", headers=headers)


async def _lines(job: Job, after: int, stopping: asyncio.Event, caller: Caller) -> AsyncIterator[str]:
    """Events as lines, and a comment while there are none; ends with the job, when the gateway stops, or when the
    caller's key is revoked.

    The events are read by a task of its own: where the client goes away, this is cancelled at every `await`, and could
    not end the reading.
    """
    coming: asyncio.Queue[Event | None] = asyncio.Queue(1)
    reading = asyncio.create_task(_read(job, after, coming))
    stopped = asyncio.create_task(stopping.wait())
    _tasks.update((reading, stopped))
    reading.add_done_callback(_tasks.discard)
    stopped.add_done_callback(_tasks.discard)
    try:
        while not stopping.is_set() and caller.is_valid():
            getting = asyncio.create_task(coming.get())
            try:
                await asyncio.wait([getting, stopped], timeout=SILENT_S, return_when=asyncio.FIRST_COMPLETED)
                if not getting.done():
                    yield ": \n\n"
                    continue
                event = getting.result()
            finally:
                getting.cancel()
            if event is None:
                return
            yield _line(job.id, event)
    finally:
        reading.cancel()
        stopped.cancel()


async def _read(job: Job, after: int, coming: "asyncio.Queue[Event | None]") -> None:
    """Put all events of a job, then None."""
    try:
        async with aclosing(job.events(after, found_now=True)) as following:
            async for event in following:
                await coming.put(event)
    except RigflowError as error:
        log.warning("the events of job %s end: %s", job.id, error)
    await coming.put(None)


def _line(job: str, event: Event) -> str:
    match event:
        case Progress():
            return _event("progress", JobView.of(event.manifest).model_dump(mode="json"))
        case PartMade():
            made = asdict(event.header)
            del made["generation"]
            return _event("part", made, event.sequence)
        case PartFailed():
            failed = event.failure
            what = {"stage": failed.stage, "error": failed.error, "start_s": failed.start_s, "end_s": failed.end_s}
            return _event("failure", {**_place(failed.key), **what}, event.sequence)
        case FileMade():
            return _event("file", FileView.of(job, event.file).model_dump(mode="json"), event.sequence)
        case Ended():
            return _event("done", DoneView.of(event.done).model_dump(mode="json"), event.sequence)
        case _:
            delta = event.delta
            text = {"row": delta.row, "name": delta.name, "number": delta.number, "text": delta.text}
            return _event("text", {**_place(delta.key), "again": delta.generation, **text})


def _place(key: Key) -> dict[str, Any]:
    return {"segment": key.segment, "part": key.part}


def _event(kind: str, data: dict[str, Any], sequence: int = 0) -> str:
    number = f"id: {sequence}\n" if sequence else ""
    return f"{number}event: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
