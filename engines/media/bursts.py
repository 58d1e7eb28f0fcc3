"""Decoders that take many packets in one call, and give up at the first thing that is not as expected."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import av
from av.packet import Packet

from engines.media.windows import MissingFrame
from engines.part import Tick


class IrregularBurst(MissingFrame):
    """Frames that were decoded many at a time are not as expected: decoding them one by one shows what is wrong."""


class BurstDecoder(Protocol):
    """A decoder that takes many packets in one call."""

    def frames(
        self, packets: Sequence["Packet[Any]"], due: Sequence[int] | None, needed: Sequence[bool] | None, tick: Tick
    ) -> Iterator[av.VideoFrame]:
        """Yield the frames of all packets; with `due`, until the last of these times, others for their times alone.

        `needed`: of each packet whether its frame is; others may be skipped. Raises IrregularBurst for any error.
        """
        ...
