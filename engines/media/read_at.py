"""Reads pieces of a file or of memory by their offset."""

import os
from collections.abc import Callable
from typing import TypeAlias

from schemas.wire import Buffer

ReadAt: TypeAlias = Callable[[int, int], bytes]  # offset and number of bytes -> those that are there


def reader(source: int | Buffer) -> ReadAt:
    """Reads from an open file or from memory."""
    if isinstance(source, int):
        return lambda at, size: os.pread(source, size, at)
    return lambda at, size: bytes(source[at : at + size])
