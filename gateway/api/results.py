"""The finished files of jobs: listed, and downloaded entirely, in part, or all in one archive."""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Header, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.status import HTTP_206_PARTIAL_CONTENT, HTTP_304_NOT_MODIFIED

from gateway.api.views import FileView
from gateway.callers import Caller, Reader
from gateway.fleet import Connected, client_of
from gateway.problems import HttpError
from gateway.route import checked_router
from gateway.zipping import zipped
from pipelines.broker import Broker
from pipelines.job_files import JobFile
from schemas.errors import NotFound

Place = Annotated[int, Query(ge=0, le=1 << 53, description="its place, as its `url` has it: then it is found at once")]
IfNoneMatch = Annotated[str, Header(alias="If-None-Match", description="tags of what the caller has")]
router = checked_router(prefix="/jobs", tags=["results"])
_RANGE = re.compile("bytes=([0-9]*)-([0-9]*)", re.IGNORECASE)
_NOT_PLAIN = re.compile(r'[^\x20-\x7e]|["\\%/]')  # RFC 6266, appendix D: clients read these in different ways
_DIGITS = 19  # of a number of bytes, at most: Python refuses to read very long ones
_FILE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file", "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}},
    206: {"description": "A part of the file"},
    304: {"description": "The file is the one of `If-None-Match`"},
    416: {"description": "The file has no such part"},
}


class FileList(BaseModel):
    """Files of a job, in the order in which they came; `next` is the cursor of the following page."""

    files: list[FileView]
    next: int | None = None


@router.get("/{job}/results")
async def list_(
    job: str,
    caller: Reader,
    broker: Connected,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    cursor: Annotated[int, Query(ge=0, le=1 << 53, description="`next` of the page before")] = 0,
) -> FileList:
    """List the finished files of a job; there are none before its end."""
    found = await client_of(broker, caller).find(job)
    page: list[JobFile] = []
    async with aclosing(found.files(cursor)) as files:
        async for file in files:
            if len(page) == limit:
                return FileList(files=[FileView.of(found.id, each) for each in page], next=page[-1].sequence)
            page.append(file)
    return FileList(files=[FileView.of(found.id, each) for each in page])


@router.get("/{job}/results.zip", response_class=StreamingResponse, responses={200: _FILE[200]})
async def archive(job: str, caller: Reader, broker: Connected) -> StreamingResponse:
    """Download all files of a job as one zip, made as it is sent."""
    found = await client_of(broker, caller).find(job)
    files = [file async for file in found.files()]
    if not files:
        raise NotFound(f"job {job} has no files", f"GET /api/v1/jobs/{job} says whether it has ended, and what failed")
    headers = {"Content-Disposition": attachment(f"{found.id}.zip")}
    return StreamingResponse(zipped(files), media_type="application/zip", headers=headers)


@router.head("/{job}/results/{name:path}", include_in_schema=False)
async def head(
    job: str, name: str, caller: Reader, broker: Connected, at: Place = 0, if_none_match: IfNoneMatch = ""
) -> Response:
    """The size and the tag of a file."""
    file = await _find(broker, caller, job, name, at)
    headers = _headers(file)
    if _is_known(file, if_none_match):
        return Response(status_code=HTTP_304_NOT_MODIFIED, headers=headers)
    return Response(headers={**headers, "Content-Length": str(file.size)}, media_type=file.content_type)


@router.get("/{job}/results/{name:path}", response_class=StreamingResponse, responses=_FILE)
async def download(
    job: str,
    name: str,
    caller: Reader,
    broker: Connected,
    at: Place = 0,
    wanted: Annotated[str, Header(alias="Range", description="bytes=FIRST-LAST")] = "",
    if_range: Annotated[str, Header(alias="If-Range")] = "",
    if_none_match: IfNoneMatch = "",
) -> Response:
    """Download a file, or a range of its bytes."""
    file = await _find(broker, caller, job, name, at)
    headers = _headers(file)
    if _is_known(file, if_none_match):
        return Response(status_code=HTTP_304_NOT_MODIFIED, headers=headers)
    span = _span(wanted, file.size) if not if_range or if_range == headers["ETag"] else None
    start, end = span or (0, file.size)
    chunks = await _begun(file.chunks(start, end))
    headers["Content-Length"] = str(end - start)
    if span is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
    status = 200 if span is None else HTTP_206_PARTIAL_CONTENT
    return StreamingResponse(chunks, status, headers, file.content_type)


async def _find(broker: Broker, caller: Caller, job: str, name: str, place: int) -> JobFile:
    found = await client_of(broker, caller).find(job)
    file = await found.file(name, place)
    if file is None:
        raise NotFound(f"job {job} has no file {name[:100]!a}", f"GET /api/v1/jobs/{job}/results lists them")
    return file


def _is_known(file: JobFile, if_none_match: str) -> bool:
    """Whether the caller has the file."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return if_none_match == "*" or f'"{file.tag}"' in tags


def _headers(file: JobFile) -> dict[str, str]:
    """Headers of a file; a browser does not show it as a page of this gateway."""
    return {
        "ETag": f'"{file.tag}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": attachment(file.name),
        "X-Content-Type-Options": "nosniff",
    }


def attachment(name: str) -> str:
    """The value of `Content-Disposition` for a file of this name: RFC 6266, and RFC 8187 for any name but a plain one.

    Clients that do not know `filename*` get the name with `_` for each other character.
    """
    plain = _NOT_PLAIN.sub("_", name)
    encoded = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'attachment; filename="{plain}"{encoded}'


def _span(wanted: str, size: int) -> tuple[int, int] | None:
    """The bytes of one range; None where all of them are to be sent, as for several ranges. Raises HttpError."""
    match = _RANGE.fullmatch(wanted.strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = (each and (each.lstrip("0")[:_DIGITS] or "0") for each in match.groups())
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if first and last and int(last) < start:
        return None
    if start >= size or (not first and int(last) == 0):
        what = f"the file has {size:,} bytes"
        headers = {"Content-Range": f"bytes */{size}"}
        raise HttpError(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, what, "ask for bytes that it has", headers)
    return start, end


async def _begun(chunks: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    """The same chunks, of which the first is here already: its error is the answer of the request."""
    first = await anext(chunks, b"")

    async def all_of_them() -> AsyncIterator[bytes]:
        async with aclosing(chunks):
            yield first
            async for chunk in chunks:
                yield chunk

    return all_of_them()
