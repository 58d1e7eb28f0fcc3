"""The bodies of requests, in memory and compressed or not, within a limit of all that are there at a time."""

import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus

from fastapi import Request

from engines.archive import NPZ_BYTES
from gateway.problems import HttpError
from schemas.errors import UsageError

MOST_BYTES = NPZ_BYTES  # of a request, without compression
ALL_BYTES = 512 << 20  # of all requests that are being answered; copies of them take a few times as much
JSON_LENGTH = "Inference-Header-Content-Length"
_CODINGS = {"gzip": 31, "deflate": 15}  # window bits of zlib
_AT_A_TIME = 1 << 20
_COMPRESS_BYTES = 1024  # what is smaller goes as it is


class Room:
    """Counts the bytes of the requests that are being answered."""

    def __init__(self, most: int = ALL_BYTES) -> None:
        self._free = most

    def take(self, nbytes: int) -> None:
        """Take space for so many bytes. Raises HttpError when there is none."""
        if nbytes > self._free:
            full = "the requests of others fill this gateway's memory"
            raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, full, "send it again in a while")
        self._free -= nbytes

    def give_back(self, nbytes: int) -> None:
        """Give space back."""
        self._free += nbytes


@asynccontextmanager
async def body_of(request: Request, room: Room, *allowed: int) -> AsyncIterator[bytearray]:
    """The body of a request, without compression, for a block. `allowed`: most bytes of it; 0: no such limit.

    Raises UsageError, HttpError when it is too large.
    """
    most = min([MOST_BYTES, *filter(None, allowed)])
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", *_CODINGS):
        raise HttpError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Encoding {coding[:40]!a}", "use gzip or deflate")
    unpacker = zlib.decompressobj(_CODINGS[coding]) if coding in _CODINGS else None
    body, taken = bytearray(), 0
    try:
        async for piece in request.stream():
            for made in [piece] if unpacker is None else _unpacked(unpacker, piece):
                if len(body) + len(made) > most:
                    too_large = f"a request has at most {most:,} bytes"
                    raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, too_large, "send fewer rows")
                room.take(len(made))
                taken += len(made)
                body += made
        if unpacker is not None and not unpacker.eof:
            raise UsageError(f"the body ends within its {coding}")
        yield body
    finally:
        room.give_back(taken)


def _unpacked(unpacker: "zlib._Decompress", piece: bytes) -> Iterator[bytes]:
    """Yield what a compressed piece holds, up to 1 MiB at a time. Raises UsageError."""
    while True:
        try:
            made = unpacker.decompress(piece, _AT_A_TIME)
        except zlib.error as error:
            raise UsageError(f"the body cannot be decompressed: {error}") from error
        if unpacker.unused_data:
            raise UsageError("bytes follow the compressed body")
        piece = unpacker.unconsumed_tail
        yield made
        if not piece and len(made) < _AT_A_TIME:
            return


def json_length(headers: Mapping[str, str]) -> int | None:
    """Return how many bytes of a body are JSON; None: all. Raises UsageError."""
    given = headers.get(JSON_LENGTH.lower())
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and len(given) < 19):
        raise UsageError(f"{JSON_LENGTH} is {given[:40]!a}", "it is the number of bytes of the JSON")
    return int(given)


def compressed(body: bytes, accepted: str) -> tuple[bytes, dict[str, str]]:
    """Return a body as its reader accepts it, and the headers that say so."""
    tokens = (each.strip().partition(";") for each in accepted.lower().split(","))
    wanted = [name.strip() for name, _, weight in tokens if weight.replace(" ", "") not in ("q=0", "q=0.0")]
    coding = next((name for name in wanted if name in _CODINGS), "")
    if not coding or len(body) < _COMPRESS_BYTES:
        return body, {}
    packer = zlib.compressobj(1, zlib.DEFLATED, _CODINGS[coding])
    return packer.compress(body) + packer.flush(), {"Content-Encoding": coding, "Vary": "Accept-Encoding"}
