"""Makes a zip archive of files as they are read, without a file of its own. Media do not get smaller: it is stored."""

import zipfile
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from engines.outputs.names import clean
from pipelines.job_files import JobFile

MADE = (1980, 1, 1, 0, 0, 0)  # of every file, so that the same files make the same archive


class _Written:
    """What a ZipFile writes, until it is taken. It has no `seek`, so sizes come behind the files."""

    def __init__(self) -> None:
        self._pieces = bytearray()

    def write(self, data: bytes, /) -> int:
        self._pieces += data
        return len(data)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        taken = bytes(self._pieces)
        self._pieces.clear()
        return taken


async def zipped(files: Sequence[JobFile]) -> AsyncIterator[bytes]:
    """The bytes of an archive of these files, in pieces. Raises StoreError when one is gone."""
    written = _Written()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for file in files:
            info = zipfile.ZipInfo(clean(file.name), MADE)
            info.external_attr = 0o644 << 16
            with archive.open(info, "w", force_zip64=True) as entry:
                async with aclosing(file.chunks()) as chunks:
                    async for chunk in chunks:
                        entry.write(chunk)
                        yield written.take()
    yield written.take()
