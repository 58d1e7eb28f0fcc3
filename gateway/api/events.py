"""What happens to a job, by server-sent events."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Header, Request
from fastapi.responses import StreamingResponse

from gateway.api.views import DoneView, FileView, JobView
from gateway.callers import Caller, Reader
from gateway.feeds import Behind, Feeds
from gateway.fleet import Connected, client_of
from gateway.route import checked_router
from pipelines.job import Job
from pipelines.job_events import Ended, Event, FileMade, PartFailed, PartMade, Progress
from schemas.jobs import Key

router = checked_router(prefix="/jobs", tags=["jobs"])
SILENT_S = 15.0  # a comment is sent after this time, so that proxies keep the connection
LOOK_S = 1.0  # between two looks whether the caller's key is still valid, while nothing comes
LastEventId = Annotated[int, Header(alias="Last-Event-ID", ge=0, le=1 << 53, description="go on after this event")]
_TEXT = {"type": "string"}
_EVENT = {"type": "object", "properties": {"event": _TEXT, "data": _TEXT, "id": _TEXT}, "required": ["event", "data"]}
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`progress`, `part`, `failure`, `text` and `file` events as they come, and at last `done`, or "
        "`behind` where the client is too slow",
        "content": {"text/event-stream": {"schema": _EVENT}},
    }
}


@router.get("/{job}/events", response_class=StreamingResponse, responses=EVENTS)
async def events(
    job: str, request: Request, caller: Reader, broker: Connected, last: LastEventId = 0
) -> StreamingResponse:
    """Follow a job, from its first result on, or after the event `Last-Event-ID`; ends with the event `done`."""
    found = await client_of(broker, caller).find(job)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    lines = _lines(request.app.state.feeds, found, last, request.app.state.stopping, caller)
    return StreamingResponse(lines, media_type="text/event-stream", headers=headers)


async def _lines(feeds: Feeds, job: Job, after: int, stopping: asyncio.Event, caller: Caller) -> AsyncIterator[bytes]:
    """Events as lines, and a comment while there are none; ends with the job, when the gateway stops, or when the
    caller's key is revoked.
    """
    stream, silent_s = feeds.join(job, after), 0.0
    try:
        while not stopping.is_set() and caller.is_valid():
            if lines := stream.take():
                silent_s = 0.0
                yield lines
            elif stream.is_over:
                return
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await stream.more.wait()
                        continue
                silent_s += LOOK_S
                if silent_s >= SILENT_S:
                    silent_s = 0.0
                    yield b": \n\n"
    except Behind:
        yield BEHIND
    finally:
        stream.leave()


def line_of(job: str, event: Event) -> bytes:
    """An event of a job as lines of `text/event-stream`."""
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


def _event(kind: str, data: dict[str, Any], sequence: int = 0) -> bytes:
    number = f"id: {sequence}\n" if sequence else ""
    return f"{number}event: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


_SLOW = {
    "detail": "this client reads more slowly than others: events that it has not read are gone",
    "hint": "send the request again with the last id as Last-Event-ID",
}
BEHIND = _event("behind", _SLOW)
