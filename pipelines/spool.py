"""Holds pieces of jobs that arrived early: in memory up to a limit, and beyond it in a temporary file."""

import tempfile
from dataclasses import dataclass
from typing import IO

from schemas.base import Message
from schemas.messages import decode
from schemas.wire import Buffer

HELD_BYTES = 32 << 20  # early pieces that stay in memory


@dataclass(slots=True)
class Piece:
    """A message and its body, in memory or in the file; `decoded` until it has to wait for earlier pieces."""

    body: Buffer | None
    decoded: tuple[Message, list[memoryview]] | None
    nbytes: int
    offset: int = -1


class Spool:
    """Holds the pieces that wait for earlier ones: `put`, `to_disk` while it is full, `take` each once, `close`."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None  # most jobs need none
        self._end = 0
        self._held_bytes = 0

    def put(self, piece: Piece) -> None:
        """Keep a piece in memory."""
        self._held_bytes += piece.nbytes

    @property
    def full(self) -> bool:
        """Whether more than `HELD_BYTES` are in memory."""
        return self._held_bytes > HELD_BYTES

    def to_disk(self, piece: Piece) -> None:
        """Move the body of a piece into the file."""
        assert piece.body is not None
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="rigflow-spool-")  # noqa: SIM115, closed in close()
        self._file.seek(self._end)
        self._file.write(piece.body)
        piece.offset, piece.body = self._end, None
        self._end += piece.nbytes
        self._held_bytes -= piece.nbytes

    def take(self, piece: Piece) -> tuple[Message, list[memoryview]]:
        """The message of a piece and its buffers; the spool holds it no longer."""
        taken = piece.decoded or decode(self._body_of(piece))
        self._held_bytes -= piece.nbytes if piece.offset < 0 else 0
        piece.body = None
        return taken

    def _body_of(self, piece: Piece) -> Buffer:
        if piece.body is not None:
            return piece.body
        assert self._file is not None, "its body is there"
        self._file.seek(piece.offset)
        return self._file.read(piece.nbytes)

    def close(self) -> None:
        """Delete the file."""
        if self._file is not None:
            self._file.close()
