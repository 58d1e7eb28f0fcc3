"""Bytes that are too many for memory: in a file without a name, mapped into memory, which goes with its reader."""

import io
import mmap
import tempfile
from types import TracebackType
from typing import Self

from schemas.wire import Buffer

MAPPED_BYTES = 16 << 20  # larger bodies are kept in a file


class MappedWriter:
    """Takes bytes piece by piece, then gives all of them as one buffer. Its file is in the folder TMPDIR."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="rigflow-")  # noqa: SIM115 - `__exit__` closes it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._file.close()  # a mapping keeps the bytes

    def write(self, piece: Buffer) -> None:
        """Append bytes. Raises OSError when the disk is full."""
        self._file.write(piece)

    def view(self) -> memoryview:
        """All bytes. Their memory is the system's cache of the file, which it takes back when it needs it."""
        self._file.flush()
        return memoryview(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ))


def joined(*pieces: Buffer) -> Buffer:
    """All pieces as one buffer; if they are large, in a file. Raises OSError when the disk is full."""
    if sum(map(len, pieces)) <= MAPPED_BYTES:
        return b"".join(pieces)
    with MappedWriter() as writer:
        for piece in pieces:
            writer.write(piece)
        return writer.view()


class BufferReader(io.RawIOBase):
    """Reads a buffer as a file, without a copy of all of it; `io.BytesIO` copies every buffer but bytes."""

    def __init__(self, source: Buffer) -> None:
        super().__init__()
        self._view = memoryview(source)
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: "Buffer | mmap.mmap") -> int:  # type: ignore[override]
        """Read the next bytes into a buffer; how many there were."""
        piece = self._view[self._at : self._at + len(buffer)]
        memoryview(buffer)[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to an offset, which may be behind the end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._view)}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """Return the offset."""
        return self._at
