"""Reads one result of the format embeddings: its vectors, and which picture of which media each is of."""

import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engines.part import Array

_NEEDED = ("embedding", "identities", "models", "sources")


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors `[N, D]` float32 of one result file, made by one model.

    `media`: the path of the media of each row, or its name where the path is not known. `times [N]` float64: seconds
    from the first frame; NaN for images.
    """

    model: str
    identity: str
    vectors: Array
    media: Sequence[str]
    times: Array


def read_embedded(path: Path) -> Embedded | None:
    """Read a result; None if the file is no result of embeddings by one model, or cannot be read."""
    try:
        # opened here, because np.load does not close a file that it cannot read
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            if any(name not in file for name in _NEEDED):
                return None
            arrays = {name: file[name] for name in (*_NEEDED, "times", "names") if name in file}
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile):  # all that np.load raises
        return None
    vectors, rows = arrays["embedding"], len(arrays["embedding"]) if arrays["embedding"].ndim == 2 else -1
    timed = "names" not in arrays
    times = arrays.get("times") if timed else np.full(max(rows, 0), math.nan)
    sources = arrays["sources"].tolist()
    if len(arrays["identities"]) != 1 or times is None or times.shape != (rows,) or vectors.dtype.kind != "f":
        return None
    if len(sources) != (1 if timed else rows):
        return None
    names = [path.name] if timed else arrays["names"].tolist()
    media = [source or f"{path}:{name}" for source, name in zip(sources, names, strict=True)]
    model, identity = str(arrays["models"][0]), str(arrays["identities"][0])
    return Embedded(model, identity, vectors.astype(np.float32), media * rows if timed else media, times)
