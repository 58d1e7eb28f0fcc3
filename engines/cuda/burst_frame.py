"""A frame of the GPU's decoder as numbers: what its conversion depends on, without the frame."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import av

from engines.media.bursts import IrregularBurst

_BITS = 40  # of an offset in what a symbol stands for


class _Format(NamedTuple):
    name: str


class BurstFrame:
    """A frame whose planes are symbols; `facts` are those of `burst.c`, and `name` gives pixel formats their names."""

    pts = None
    is_corrupt = False

    def __init__(self, facts: Sequence[int], name: Callable[[int], str]) -> None:
        interlaced, format_, sw_format, self.width, self.height, self.color_range, self.colorspace, *self._lines = facts
        self.interlaced_frame = interlaced != 0
        self.format = _Format(name(format_))
        self.sw_format = _Format(name(sw_format)) if sw_format >= 0 else None

    def in_memory(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the symbols of its planes, and the bytes of their lines."""
        return tuple(symbol(number) for number in range(3)), tuple(self._lines)

    @property
    def planes(self) -> Any:
        """Raise IrregularBurst: the host must read the frame, for which PyAV decodes it."""
        raise IrregularBurst(None)

    def reformat(self, **_: Any) -> av.VideoFrame:
        """Raise IrregularBurst."""
        raise IrregularBurst(None)


def symbol(source: int) -> int:
    """Return the address that stands for a plane or, behind them, for a row of a recipe."""
    return (source + 1) << _BITS


def source_of(address: int) -> tuple[int, int]:
    """Return the source that a symbol stands for, and the offset in it."""
    source, offset = divmod(address, 1 << _BITS)
    return source - 1, offset
