"""The files of a model in the body of a request: one, several in a form, or an archive; into a temporary folder.

Names are relative paths of plain characters, so that nothing is written outside of the folder.
"""

import asyncio
import re
import stat
import zipfile
import zlib
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path

from fastapi import Request
from python_multipart.multipart import parse_options_header

from gateway.callers import Caller
from gateway.multipart import Form
from gateway.problems import HttpError
from gateway.uploads import counted
from schemas.errors import UsageError

MOST_FILES, MOST_DEPTH = 1000, 4
_PART = re.compile(r"[A-Za-z0-9_+@=-][A-Za-z0-9_.+@=, -]{0,120}")
_ARCHIVE = b"PK\x03\x04"
_AT_A_TIME = 1 << 20
_LEFT_OUT = ("__MACOSX",)  # of archives, and names that begin with a dot
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)


async def received(request: Request, caller: Caller, folder: Path, name: str, most: int) -> Path:
    """Write the files of a request into a folder, at most `most` bytes; the model's file, or the folder of several.

    Raises HttpError, UsageError.
    """
    space = _Space(most)
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    body = counted(request, caller)
    if kind == b"multipart/form-data":
        return await _of_form(Form(options.get(b"boundary", b""), body), folder / name, space)
    path = folder / f"{name}.onnx"
    await _write(body, path, space)
    with path.open("rb") as file:
        is_archive = file.read(len(_ARCHIVE)) == _ARCHIVE
    return path if not is_archive else await asyncio.to_thread(_unpacked, path, folder / name, _Space(most))


class _Space:
    """Counts the bytes and files of a model."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most
        self._names: set[str] = set()

    def take(self, nbytes: int) -> None:
        """Count bytes. Raises HttpError when there are too many."""
        self._left -= nbytes
        if self._left < 0:
            what = f"a model has at most {self._most:,} bytes"
            hint = "send a smaller one, or raise the setting models_bytes"
            raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, what, hint)

    def file(self, folder: Path, given: str) -> Path:
        """Where a file of this name is to be written. Raises UsageError for a name that is not allowed."""
        parts = given.split("/")
        if len(parts) > MOST_DEPTH or not all(_PART.fullmatch(part) for part in parts):
            what = f"a file of the model is called {given[:100]!a}"
            raise UsageError(what, f"give relative paths of letters, digits and ._-, at most {MOST_DEPTH} parts")
        if given.casefold() in self._names or len(self._names) == MOST_FILES:
            twice = given.casefold() in self._names
            what = f"two files are called {given[:100]}" if twice else "there are too many files"
            raise UsageError(what, f"send at most {MOST_FILES} files, of different names")
        self._names.add(given.casefold())
        path = folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


async def _of_form(form: Form, folder: Path, space: _Space) -> Path:
    folder.mkdir()
    paths = []
    async for head, chunks in form.files():
        paths.append(space.file(folder, head.filename))
        await _write(chunks, paths[-1], space)
    if not paths:
        raise UsageError("the form has no file", "send one part with a filename for each file of the model")
    return paths[0] if len(paths) == 1 else folder


async def _write(chunks: AsyncIterator[bytes], path: Path, space: _Space) -> None:
    with path.open("xb") as file:
        async for chunk in chunks:
            space.take(len(chunk))
            await asyncio.to_thread(file.write, chunk)


def _unpacked(archive: Path, folder: Path, space: _Space) -> Path:
    """The folder of an archive's files; of one that has one folder at its top, that folder. Raises UsageError."""
    folder.mkdir()
    try:
        with zipfile.ZipFile(archive) as opened:
            for entry in opened.infolist():
                if entry.is_dir() or _is_left_out(entry.filename):
                    continue
                if stat.S_ISLNK(entry.external_attr >> 16):
                    raise UsageError(f"{entry.filename[:100]!a} is a link", "pack the files themselves")
                path = space.file(folder, entry.filename)
                with opened.open(entry) as source, path.open("xb") as target:
                    while piece := source.read(_AT_A_TIME):
                        space.take(len(piece))
                        target.write(piece)
    except _DAMAGED as error:
        if isinstance(error, UsageError | HttpError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"the archive cannot be read: {reason}", "pack it again") from error
    archive.unlink()
    top = list(folder.iterdir())
    if not top:
        raise UsageError("the archive has no file", "pack the files of the model")
    return top[0] if len(top) == 1 else folder


def _is_left_out(name: str) -> bool:
    return any(part in _LEFT_OUT or (part.startswith(".") and part not in (".", "..")) for part in name.split("/"))
