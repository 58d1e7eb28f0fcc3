"""Compiles C files of rigflow by the C compiler of the machine, and keeps the libraries.

`make kernels` compiles them ahead of time, beside their sources; otherwise the first process that needs one does, and
keeps it in the cache folder. Without a compiler there is none, and its callers work in another way.
"""

import ctypes
import hashlib
import logging
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from engines.files import atomic_write

log = logging.getLogger("rigflow")

# sums and products are rounded one by one, as NumPy does it
_FLAGS = ("-O3", "-ffp-contract=off", "-shared", "-fPIC")
_kept: list[Path] = []  # the cache folder of this process, once it is known


class NoCompiler(Exception):
    """A C file cannot be compiled here; the text says why."""


def keep_in(folder: Path) -> None:
    """Keep what `loaded` compiles in a cache folder from now on."""
    _kept[:] = [folder]


@cache
def loaded(source: Path, slower: str) -> ctypes.CDLL | None:
    """Return the library of a C file; None where there is none, with a line in the log that begins with `slower`."""
    try:
        if _kept:
            return ctypes.CDLL(str(library_of(source, _kept[0])))
        with tempfile.TemporaryDirectory() as folder:
            return ctypes.CDLL(str(library_of(source, Path(folder))))
    except (NoCompiler, OSError) as error:
        log.info("%s: %s", slower, error)
        return None


def library_of(source: Path, cache_folder: Path) -> Path:
    """Return the library of a C file: precompiled, cached, or compiled now. Raises NoCompiler and OSError."""
    name = name_of(source)
    for path in (source.with_name(name), cache_folder / "kernels" / name):
        if path.exists():
            return path
    atomic_write(path, _compiled(source))
    return path


def name_of(source: Path) -> str:
    """Return the name of the file of a library."""
    return f"{source.stem}-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}-{platform.machine()}.so"


def _compiled(source: Path) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "made.so"
        for compiler in _compilers():
            command = [compiler, *_FLAGS, "-o", str(out), str(source)]
            if subprocess.run(command, capture_output=True).returncode == 0:
                return out.read_bytes()
    raise NoCompiler(f"no C compiler here (cc, gcc or clang) compiles {source.name}")


def _compilers() -> Iterator[str]:
    yield from filter(None, map(shutil.which, ("cc", "gcc", "clang")))


def precompile() -> list[Path]:
    """Compile all beside their sources. Raises NoCompiler."""
    made = []
    for source in sorted(Path(__file__).parent.rglob("*.c")):
        made.append(source.with_name(name_of(source)))
        made[-1].write_bytes(_compiled(source))
    return made


if __name__ == "__main__":
    try:
        print(*precompile(), sep="\n")
    except NoCompiler as error:
        print(error)
