"""Groups items into segments, because the cost of a message is larger than that of a small item."""

from collections.abc import Iterable, Iterator

from engines.media.last import marked_last
from engines.media.segment_data import SegmentData
from schemas.media import Item, MediaInfo
from schemas.wire import Buffer

ALBUM_ITEMS = 64
ALBUM_BYTES = 4 << 20


def albums(items: Iterable[tuple[Item, Buffer]]) -> Iterator[tuple[list[Item], list[Buffer]]]:
    """Yield items in groups of up to 64 or 4 MB, and their bytes. An item with a `path` travels without bytes.

    A group has paths or bytes, never both.
    """
    group: list[Item] = []
    buffers: list[Buffer] = []
    size = 0
    for item, data in items:
        by_path = bool(item.path)
        full = len(group) == ALBUM_ITEMS or size + len(data) > ALBUM_BYTES
        if group and (full or by_path is bool(buffers)):
            yield group, buffers
            group, buffers, size = [], [], 0
        group.append(item)
        buffers += [] if by_path else [data]
        size += len(data)
    if group:
        yield group, buffers


def album_segments(kind: str, items: Iterable[tuple[Item, Buffer]]) -> Iterator[SegmentData]:
    """Yield the segments of a medium whose items have names: each is a group of `albums`."""
    for (group, buffers), final in marked_last(albums(items)):
        media = MediaInfo(kind=kind, timed=False, name=group[0].name)
        yield SegmentData(media, tuple(buffers), final, items=tuple(group))
