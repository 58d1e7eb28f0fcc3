"""The file of a library's table: arrays, and texts as bytes between zeros."""

import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from engines.files import atomic_write
from engines.library.spaces import Space, Stored, Table
from engines.part import Array

LOCK = "lock"
_TABLE = "table.npz"
_VERSION = 1
_ARRAYS = ("media", "times", "live", "starts")  # of a space


def write_table(table: Table) -> None:
    """Write the table, and delete files of vectors that it does not name. Raises OSError."""
    arrays: dict[str, Array] = {"version": np.array(_VERSION), "spaces": _texts(table.spaces)}
    for number, space in enumerate(table.spaces.values()):
        arrays[f"{number}.about"] = _texts([space.model, space.file, str(space.width)])
        arrays[f"{number}.names"] = _texts(space.names)
        for name in _ARRAYS:
            arrays[f"{number}.{name}"] = getattr(space, name)
    identities = {identity: number for number, identity in enumerate(table.spaces)}
    arrays["files"] = _texts(table.files)
    arrays["stored"] = np.array(
        [(*each.stamp, identities.get(each.space, -1), each.first, each.count) for each in table.files.values()],
        np.int64,
    ).reshape(-1, 5)
    body = BytesIO()
    np.savez(body, **arrays)  # type: ignore[arg-type]
    atomic_write(table.folder / _TABLE, body.getbuffer())
    kept = {_TABLE, LOCK} | {space.file for space in table.spaces.values()}
    for path in table.folder.iterdir():
        if path.name not in kept and path.with_suffix(".f32").name not in kept and path.is_file():
            path.unlink(missing_ok=True)


def read_table(folder: Path) -> Table:
    """The table of an earlier search; an empty one if there is none, or it is damaged."""
    table = Table(folder)
    try:
        with np.load(folder / _TABLE, allow_pickle=False) as file:
            if int(file["version"]) != _VERSION:
                return table
            for number, identity in enumerate(_split(file["spaces"])):
                model, name, width = _split(file[f"{number}.about"])
                space = Space(model, Path(name).name, int(width), _split(file[f"{number}.names"]))
                for each in _ARRAYS:
                    setattr(space, each, file[f"{number}.{each}"])
                if (folder / space.file).stat().st_size < space.rows * space.width * 4:
                    return Table(folder)
                table.spaces[identity] = space
            identities = [*table.spaces, ""]
            for name, row in zip(_split(file["files"]), file["stored"].tolist(), strict=True):
                table.files[name] = Stored((row[0], row[1]), identities[row[2]], row[3], row[4])
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile):
        return Table(folder)
    return table


def _texts(texts: Any) -> Array:
    return np.frombuffer("\0".join(texts).encode("utf-8", "surrogateescape"), np.uint8)


def _split(array: Array) -> list[str]:
    text = array.tobytes().decode("utf-8", "surrogateescape")
    return text.split("\0") if text else []
