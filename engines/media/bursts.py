"""Decoders that decode and convert a part in one call, and give up at the first thing that is not as expected."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from engines.media.uniform import Uniform
from engines.media.windows import MissingFrame
from engines.part import Array, Tick
from schemas.wire import Buffer


class IrregularBurst(MissingFrame):
    """Frames that were decoded many at a time are not as expected: decoding them one by one shows what is wrong."""


@dataclass(frozen=True, slots=True)
class Expected:
    """The frames that must come out of a segment, all as ascending int64 of its clock.

    `due`: the times of those that must come, `wanted [due] uint8`: whether each is converted. With `skips`, others may
    be left out by the decoder; without, no other may come. `since`: earlier ones are ignored, and those that are
    `hidden`. `ranks`: frames take these times as they come; None: they have times of their own, and are runs between
    `entries`. `owned`: those that are counted.
    """

    due: Array
    wanted: Array
    skips: bool
    since: int
    hidden: Array
    ranks: Array | None
    entries: Array
    owned: Array


class PartDecoder(Protocol):
    """A decoder that takes the packets of a segment in one piece."""

    def begin(self, table: Buffer, data: Buffer, expected: Expected, uniform: Uniform, orientation: int) -> None:
        """Take a segment: its table of packets, and their bytes (`engines.media.packets`)."""
        ...

    def rows(self, goal: int, tick: Tick) -> Sequence[dict[str, Array]]:
        """Return the arrays of the next frames that are wanted, until `goal` of those that are due came.

        If that is all of them, the rest of the packets is decoded as well. Raises IrregularBurst, and DeviceLost.
        """
        ...

    def seen(self) -> Sequence[int]:
        """Return the times of `owned` that came since the last call."""
        ...

    def end(self) -> None:
        """Release all frames; called once a segment has ended in any way."""
        ...


def ascending(times: Iterable[int]) -> Array:
    """Return times in order."""
    return np.array(sorted(times), np.int64)
