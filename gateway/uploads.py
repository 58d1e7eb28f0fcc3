"""Media in the body of a request -> a job: nothing is in memory or on a disk here as a whole."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from fastapi import Request
from pydantic import BaseModel, Field, ValidationError
from python_multipart.multipart import parse_options_header

from gateway.callers import Caller
from gateway.fetching import ENTIRE_S, MOST_URL, Fetched, fetched
from gateway.fleet import PATIENCE_S, client_of
from gateway.invalid import no_file
from gateway.leaving import while_there
from gateway.multipart import ORDER, Form
from gateway.problems import HttpError
from gateway.route import unknown
from pipelines.broker import Broker
from pipelines.job import Job
from pipelines.registry import load_pipeline
from pipelines.variants import variant
from schemas.errors import PipelineUnknown, UsageError, format_field_error
from schemas.fields import GivenName
from schemas.given_fields import parse_fields
from schemas.jobs import Priority
from schemas.pipeline import PipelineSpec

_CONTENT_TYPE = re.compile(r"[\x20-\x7e]{1,200}")
_MEDIA = {"type": "string", "format": "binary"}
BODY: dict[str, Any] = {  # of the request, for its description
    "requestBody": {
        "required": False,
        "content": {
            "application/octet-stream": {"schema": _MEDIA},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "pipeline": {"type": "string"},
                        "name": {"type": "string"},
                        "model": {"type": "string"},
                        "set": {"type": "array", "items": {"type": "string"}},
                        "stream": {"type": "integer"},
                        "priority": {"enum": list(Priority)},
                        "url": {"type": "string"},
                        "file": _MEDIA,
                    },
                    "additionalProperties": False,
                }
            },
        },
    }
}


class MediaRequest(BaseModel):
    """What is to be done with a media."""

    pipeline: str = Field(default="", description="name of a pipeline of the fleet", max_length=64)
    name: GivenName = Field(default="", description="the media's name, for the names of results")
    model: str | None = Field(default=None, description="a model of the fleet in place of the pipeline's own")
    set: list[str] = Field(default=[], description="STAGE.FIELD=VALUE, as encode.crf=16", max_length=64)
    stream: int | None = Field(default=None, ge=0, le=10_000, description="index of the video stream")
    priority: Priority = Field(default=Priority.INTERACTIVE, description="before the fleet's bulk work, or with it")
    url: str = Field(default="", description="where the media is, in place of a body", max_length=MOST_URL)


async def submit_body(request: Request, caller: Caller, broker: Broker, wanted: MediaRequest, key: str) -> Job:
    """Create a job of the media in a request's body.

    Raises as `Client.submit`, and HttpError for a body that is too large, or a form that cannot be read.
    """
    if wanted.url and not _size_of(request) and "transfer-encoding" not in request.headers:
        return await _submit_url(request, caller, broker, wanted, key)
    size, body = _size_of(request), counted(request, caller)
    content_type = request.headers.get("content-type", "")
    kind, options = parse_options_header(content_type)
    if kind == b"multipart/form-data":
        form = Form(options.get(b"boundary", b""), body)
        fields, file = await form.read_fields()
        if any(name == "file" for name, _ in fields):
            what, _, hint = no_file("file").partition(": ")
            raise HttpError(HTTPStatus.UNPROCESSABLE_ENTITY, f"the field file {what}", hint)
        wanted = with_fields(wanted, fields)
        if file is None:
            if not wanted.url:
                raise HttpError(HTTPStatus.UNPROCESSABLE_ENTITY, "the form has no file", ORDER)
            return await _submit_url(request, caller, broker, wanted, key)
        _check_no_url(wanted)
        return await _submit(
            broker, caller, wanted, key, Fetched(file.filename, file.content_type, None, form.chunks()), size
        )
    _check_no_url(wanted)
    return await _submit(broker, caller, wanted, key, Fetched("", content_type, size, body))


async def _submit(
    broker: Broker, caller: Caller, wanted: MediaRequest, key: str, media: Fetched, at_most: int | None = None
) -> Job:
    return await client_of(broker, caller).submit(
        await chosen(broker, wanted),
        media.chunks,
        job=key,
        name=wanted.name or media.name,
        content_type=safe_type(media.content_type),
        priority=wanted.priority,
        size=media.size,
        at_most=at_most,
        patience_s=PATIENCE_S,
    )


async def _submit_url(request: Request, caller: Caller, broker: Broker, wanted: MediaRequest, key: str) -> Job:
    """The same of a media that is fetched. A caller that goes away ends it."""
    async with fetched(wanted.url, broker.settings.url_hosts) as media:
        caller.check_upload(media.size or 0)
        limited = replace(media, chunks=_within(media.chunks, caller))
        return await while_there(request, _submit(broker, caller, wanted, key, limited), ENTIRE_S)


async def _within(chunks: AsyncIterator[bytes], caller: Caller) -> AsyncIterator[bytes]:
    """Chunks as they come. Raises HttpError when they are more than the caller may send."""
    total = 0
    async for chunk in chunks:
        total += len(chunk)
        caller.check_upload(total)
        yield chunk


def _check_no_url(wanted: MediaRequest) -> None:
    if wanted.url:
        what = "there is a url and a body"
        raise HttpError(HTTPStatus.UNPROCESSABLE_ENTITY, what, "send one of them", param="url")


async def chosen(broker: Broker, wanted: MediaRequest) -> PipelineSpec | str:
    """The pipeline by its name, or the revision that it is with other options. Raises UsageError."""
    if not wanted.pipeline:
        raise PipelineUnknown(
            "no pipeline is given",
            "give ?pipeline=NAME, or a form's field in front of its file; GET /api/v1/pipelines lists them",
        )
    if not (wanted.model or wanted.set or wanted.stream is not None):
        return wanted.pipeline
    fields = parse_fields(wanted.set, "set", "encode.crf=16")
    return await variant(broker, await load_pipeline(broker, wanted.pipeline), fields, wanted.model, wanted.stream)


def safe_type(content_type: str) -> str:
    """A content type that may be a header of a message; any other is left out."""
    return content_type if _CONTENT_TYPE.fullmatch(content_type) else ""


def _size_of(request: Request) -> int | None:
    """How many bytes the body has, if its sender says it."""
    given = request.headers.get("content-length", "")
    return int(given) if given.isascii() and given.isdigit() else None


async def counted(request: Request, caller: Caller) -> AsyncIterator[bytes]:
    """The body of a request as it comes. Raises HttpError when it is larger than the caller may send."""
    caller.check_upload(_size_of(request) or 0)
    total = 0
    async for piece in request.stream():
        total += len(piece)
        caller.check_upload(total)
        if piece:
            yield piece


def with_fields(wanted: MediaRequest, fields: list[tuple[str, str]]) -> MediaRequest:
    """What is wanted, with parameters that a form or metadata has. Raises UsageError."""
    for name, _ in fields:
        if name not in MediaRequest.model_fields:
            raise unknown("parameter", name, MediaRequest.model_fields)
    given: dict[str, Any] = dict(fields) | {"set": [*wanted.set, *(value for name, value in fields if name == "set")]}
    try:
        return MediaRequest.model_validate(wanted.model_dump() | given)
    except ValidationError as error:
        raise UsageError(f"parameter {format_field_error(error.errors()[0])}", "see its description") from error
