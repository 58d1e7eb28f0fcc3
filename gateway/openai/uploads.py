"""A file of a form -> its bytes as they are read again; Starlette keeps a large one in a temporary file meanwhile."""

from collections.abc import AsyncIterator
from http import HTTPStatus

from starlette.datastructures import UploadFile

from gateway.callers import Caller
from gateway.problems import HttpError

PIECE_BYTES = 1 << 18


def check_size(file: UploadFile, caller: Caller) -> int:
    """The size of a file. Raises HttpError when it has nothing, or more than the caller may send."""
    size = file.size or 0
    if not size:
        raise HttpError(HTTPStatus.BAD_REQUEST, "the file is empty", "send a media")
    if caller.upload_bytes and size > caller.upload_bytes:
        what = f"the file has {size:,} bytes, and the key allows {caller.upload_bytes:,}"
        raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, what, "send less, or use another key")
    return size


async def pieces(file: UploadFile) -> AsyncIterator[bytes]:
    """The bytes of a file."""
    while piece := await file.read(PIECE_BYTES):
        yield piece
