"""Resumable uploads by the protocol tus 1.0 (https://tus.io): creation, termination, expiration, checksum.

What came is at the broker alone, so that any gateway continues an upload that another one began.
"""

import base64
import binascii
import hashlib
import time
from collections.abc import AsyncIterator
from email.utils import formatdate
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, Header, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect
from starlette.status import HTTP_201_CREATED, HTTP_204_NO_CONTENT

from gateway.api.jobs import IdempotencyKey
from gateway.callers import Caller, Submitter
from gateway.fleet import PATIENCE_S, Connected, client_of
from gateway.problems import HttpError, answer, problem_of
from gateway.route import checked_router
from gateway.uploads import MediaRequest, chosen, safe_type, with_fields
from pipelines.broker import Broker
from pipelines.registry import load_pipeline
from pipelines.resumable import Arrived, Checksum, ChecksumMismatch, UploadMoved, Uploads
from pipelines.sweep import AGE_S
from pipelines.upload_record import Upload
from schemas.errors import UsageError

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,termination,expiration,checksum"
ALGORITHMS = ("sha1", "sha256")
MISMATCH = 460  # the status that tus has for bytes with another checksum
PIECE = "application/offset+octet-stream"  # type of a body that is a part of an upload
_NAMES = {"filename": "name", "type": "filetype"}  # what clients of tus call them
_UNUSED = ("relativePath",)  # what Uppy sends as well
_BINARY = {PIECE: {"schema": {"type": "string", "format": "binary"}}}


async def _speaks(version: Annotated[str, Header(alias="Tus-Resumable", json_schema_extra={"const": VERSION})]) -> None:
    if version != VERSION:
        headers = {"Tus-Version": VERSION}
        raise HttpError(HTTPStatus.PRECONDITION_FAILED, f"this speaks tus {VERSION}", f"send {VERSION}", headers)


router = checked_router(prefix="/uploads", tags=["resumable uploads"])
Speaks = [Depends(_speaks)]
Size = Annotated[int, Header(alias="Upload-Length", ge=1, le=1 << 50, description="bytes of the media")]
Offset = Annotated[int, Header(alias="Upload-Offset", ge=0, le=1 << 50, description="bytes that are there")]
_DIGESTS = "^(sha1 [A-Za-z0-9+/]{27}=|sha256 [A-Za-z0-9+/]{43}=)?$"
Sum = Annotated[
    str,
    Header(
        alias="Upload-Checksum",
        description="sha1 or sha256, and the digest in base64",
        json_schema_extra={"pattern": _DIGESTS},
    ),
]
Metadata = Annotated[str, Header(alias="Upload-Metadata", description="`filename`, `filetype` and parameters, as tus")]


class UploadView(BaseModel):
    """An upload, and how much of it is there. With all of it, it is the job of the same id."""

    id: str
    size: int
    offset: int = Field(description="bytes that are there")
    complete: bool = Field(description="whether it is a job")


@router.options("", include_in_schema=False)
@router.options("/{upload}", include_in_schema=False)
async def options(request: Request) -> Response:
    """What of the protocol there is."""
    headers = {"Tus-Resumable": VERSION, "Tus-Version": VERSION, "Tus-Extension": EXTENSIONS}
    headers["Tus-Checksum-Algorithm"] = ",".join(ALGORITHMS)
    return Response(status_code=HTTP_204_NO_CONTENT, headers=headers)


@router.post("", status_code=HTTP_201_CREATED, dependencies=Speaks, response_class=Response)
async def create(
    request: Request,
    caller: Submitter,
    broker: Connected,
    wanted: Annotated[MediaRequest, Query()],
    size: Size,
    metadata: Metadata = "",
    checksum: Sum = "",
    key: IdempotencyKey = "",
) -> Response:
    """Begin an upload. It becomes a job, whose id is that of the upload, when its last byte is there."""
    if "upload-concat" in request.headers:  # else each piece of a media would be a job
        what = "uploads are not put together: there is no extension concatenation"
        raise HttpError(HTTPStatus.BAD_REQUEST, what, "send the media as one upload")
    caller.check_upload(size)
    wanted_sum = _parse_checksum(checksum)
    fields = _parse_metadata(metadata)
    content_type = fields.pop("filetype", "")
    wanted = with_fields(wanted, [*fields.items()])
    if wanted.url:
        hint = "POST /api/v1/jobs?url=..."
        raise HttpError(HTTPStatus.UNPROCESSABLE_ENTITY, "a url is no upload", hint, param="url")
    pipeline = await chosen(broker, wanted)
    spec = await load_pipeline(broker, pipeline) if isinstance(pipeline, str) else pipeline
    uploads = Uploads(client_of(broker, caller))
    upload = await uploads.create(
        spec.revision,
        not isinstance(pipeline, str),
        size,
        key,
        wanted.priority,
        wanted.name,
        safe_type(content_type),
        PATIENCE_S,
    )
    at = await uploads.arrived(upload)
    if at.size == 0 and request.headers.get("content-type") == PIECE:
        try:
            at = await _append(request, caller, uploads, upload, at, wanted_sum)
        except ChecksumMismatch as error:
            return _mismatch(error, upload)
    response = await _state(uploads, upload, at, HTTP_201_CREATED)
    response.headers["Location"] = f"/api/v1/uploads/{upload.id}"
    return response


@router.head("/{upload}", dependencies=Speaks, include_in_schema=False)
async def head(upload: str, caller: Submitter, broker: Connected) -> Response:
    """How much of an upload is there. One that is entire and no job yet becomes it."""
    uploads, found = await _find(upload, caller, broker)
    return await _state(uploads, found, await uploads.arrived(found), HTTPStatus.OK)


@router.get("/{upload}")
async def show(upload: str, caller: Submitter, broker: Connected) -> UploadView:
    """Show an upload."""
    uploads, found = await _find(upload, caller, broker)
    at = await uploads.arrived(found)
    return UploadView(id=found.id, size=found.size, offset=at.size, complete=found.published)


@router.patch(
    "/{upload}",
    status_code=HTTP_204_NO_CONTENT,
    dependencies=Speaks,
    response_class=Response,
    openapi_extra={"requestBody": {"required": True, "content": _BINARY}},
)
async def append(
    upload: str, request: Request, caller: Submitter, broker: Connected, offset: Offset, checksum: Sum = ""
) -> Response:
    """Add bytes behind those that are there. What came of a request that is cut off stays, unless it has a checksum."""
    wanted = _parse_checksum(checksum)
    if request.headers.get("content-type") != PIECE:
        raise HttpError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body is no part of an upload", f"send {PIECE}")
    uploads, found = await _find(upload, caller, broker)
    at = await uploads.arrived(found)
    if at.size != offset:
        raise UploadMoved(f"{at.size:,} bytes of the upload are there", "go on behind them")
    if at.size < found.size:
        try:
            at = await _append(request, caller, uploads, found, at, wanted)
        except ChecksumMismatch as error:
            return _mismatch(error, found)
    return await _state(uploads, found, at, HTTP_204_NO_CONTENT)


@router.delete("/{upload}", status_code=HTTP_204_NO_CONTENT, dependencies=Speaks)
async def terminate(upload: str, caller: Submitter, broker: Connected) -> Response:
    """Delete an upload and what came of it; a job that it became stays."""
    uploads, found = await _find(upload, caller, broker)
    await uploads.delete(found)
    return Response(status_code=HTTP_204_NO_CONTENT, headers={"Tus-Resumable": VERSION})


async def _find(upload: str, caller: Caller, broker: Broker) -> tuple[Uploads, Upload]:
    uploads = Uploads(client_of(broker, caller))
    return uploads, await uploads.find(upload)


async def _append(
    request: Request, caller: Caller, uploads: Uploads, upload: Upload, at: Arrived, checksum: Checksum | None
) -> Arrived:
    return await uploads.append(upload, at, _until_cut_off(request, caller), PATIENCE_S, checksum)


def _mismatch(error: ChecksumMismatch, upload: Upload) -> Response:
    """The answer of tus to bytes that were damaged on their way; the upload is as it was before."""
    problem, _ = problem_of(error)
    headers = {"Tus-Resumable": VERSION, "Location": f"/api/v1/uploads/{upload.id}"}
    return answer(problem.model_copy(update={"status": MISMATCH, "title": "Checksum Mismatch"}), headers)


def _parse_checksum(given: str) -> Checksum | None:
    """`Upload-Checksum`: an algorithm and a digest in base64. Raises HttpError."""
    if not given:
        return None
    algorithm, _, text = given.partition(" ")
    try:
        digest = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if algorithm not in ALGORITHMS or len(digest) != hashlib.new(algorithm).digest_size:
        what = f"Upload-Checksum: {given[:100]!a} is no checksum"
        raise HttpError(HTTPStatus.BAD_REQUEST, what, f"send {' or '.join(ALGORITHMS)} and the digest in base64")
    return Checksum(algorithm, digest)


async def _until_cut_off(request: Request, caller: Caller) -> AsyncIterator[bytes]:
    """The body as it comes. Where its sender goes away, it ends: what came is kept."""
    try:
        async for piece in request.stream():
            caller.check_upload(0)
            yield piece
    except ClientDisconnect:
        return


async def _state(uploads: Uploads, upload: Upload, at: Arrived, status: int) -> Response:
    """How much is there; an upload that is entire becomes a job before that is said."""
    headers = {"Tus-Resumable": VERSION, "Cache-Control": "no-store"}
    headers |= {"Upload-Offset": str(at.size), "Upload-Length": str(upload.size)}
    if at.size == upload.size:
        job = await uploads.complete(upload, PATIENCE_S)
        headers["Rigflow-Job"] = job.id
    else:
        headers["Upload-Expires"] = formatdate(time.time() + AGE_S, usegmt=True)
    return Response(status_code=status, headers=headers)


def _parse_metadata(metadata: str) -> dict[str, str]:
    """`Upload-Metadata`: names, each with its value in base64, with commas between. Raises UsageError."""
    fields: dict[str, str] = {}
    for pair in filter(None, metadata.split(",")):
        name, _, value = pair.strip().partition(" ")
        try:
            decoded = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, ValueError) as error:
            raise UsageError(f"Upload-Metadata: {name[:100]!a} has no value in base64", "see tus.io") from error
        if name not in _UNUSED:
            fields[_NAMES.get(name, name)] = decoded
    return fields
