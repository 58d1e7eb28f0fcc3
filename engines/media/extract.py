"""What a message carried, as files that other programs open: for a person who asks what is wrong with it."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engines.part import unpack_arrays
from schemas.messages import PartMessage, Segment
from schemas.wire import Buffer

SUFFIXES = {"mp4": ".mp4", "matroska": ".mkv", "nut": ".nut"}


def files_of(message: Segment | PartMessage, buffers: Sequence[memoryview]) -> dict[str, Buffer]:
    """File name -> content: a segment's video or images as they were cut, a part's arrays as `.npz`.

    The media itself is copied bit for bit, damage and all. Images that travelled as paths are where those point.
    """
    stem = f"{message.key.job.id}-{message.key.segment}"
    if isinstance(message, PartMessage):
        archive = io.BytesIO()
        np.savez(archive, **unpack_arrays(message.arrays, list(buffers)))  # type: ignore[arg-type]
        return {f"{stem}-{message.key.part}.npz": archive.getvalue()}
    if message.media.kind == "video":
        return {stem + SUFFIXES.get(message.container, ""): buffers[0]}
    return {
        f"{number}-{Path(item.name).name}": buffer
        for number, (item, buffer) in enumerate(zip(message.items, buffers, strict=False))
    }
