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
    caller.check_upload(size)
    return size


async def pieces(file: UploadFile) -> AsyncIterator[bytes]:
    """The bytes of a file."""
    while piece := await file.read(PIECE_BYTES):
        yield piece
