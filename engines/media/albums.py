"""Groups items into segments, because the cost of a message is larger than that of a small item."""

import os
from collections.abc import Iterable, Iterator

from engines.media.last import marked_last
from engines.media.segment_data import SegmentData
from schemas.media import Item, MediaInfo
from schemas.wire import Buffer

FEWEST_ITEMS, MOST_ITEMS = 64, 128  # of a full group, in a job of few and of many items
EVEN = 24  # groups of a job of many items at least
# a group has at most such a share of what is left, so that workers end at about the same time
SHARES, LEAST_ITEMS = 4, 8
ALBUM_BYTES = 4 << 20  # of items that travel in the message
FILES_BYTES = 6 << 20  # of `FEWEST_ITEMS` files that the worker reads itself, so that large ones are short work, too


def albums(
    items: Iterable[tuple[Item, Buffer]], count: int = 0, most: int = 0
) -> Iterator[tuple[list[Item], list[Buffer]]]:
    """Yield items in groups of up to `most`, and their bytes.

    Without `most` it is 64, or 128 in a large job. `count`: of all items, where known; then the last groups are small.

    An item with a `path` travels without bytes. A group has paths or bytes, never both; it also ends at 4 MB that
    travel, or at 6 MB of files, at up to 12 MB in a large job.
    """
    count = 0 if most else count
    left, most = count, most or min(MOST_ITEMS, max(FEWEST_ITEMS, count // EVEN))
    files_bytes = FILES_BYTES * min(MOST_ITEMS, max(FEWEST_ITEMS, most)) // FEWEST_ITEMS
    group: list[Item] = []
    buffers: list[Buffer] = []
    size = 0
    wanted = _wanted(most, left)
    for item, data in items:
        by_path = bool(item.path)
        nbytes = _file_bytes(item.path) if by_path else len(data)
        full = len(group) == wanted or size + nbytes > (files_bytes if by_path else ALBUM_BYTES)
        if group and (full or by_path is bool(buffers)):
            yield group, buffers
            left -= len(group)
            group, buffers, size, wanted = [], [], 0, _wanted(most, left)
        group.append(item)
        buffers += [] if by_path else [data]
        size += nbytes
    if group:
        yield group, buffers


def _wanted(most: int, left: int) -> int:
    """Return how many items the next group is to have."""
    return min(most, max(LEAST_ITEMS, left // SHARES)) if left > 0 else most


def album_segments(kind: str, items: Iterable[tuple[Item, Buffer]], count: int = 0) -> Iterator[SegmentData]:
    """Yield the segments of a medium whose items have names: each is a group of `albums`."""
    for (group, buffers), final in marked_last(albums(items, count)):
        media = MediaInfo(kind=kind, timed=False, name=group[0].name)
        yield SegmentData(media, tuple(buffers), final, items=tuple(group))


def _file_bytes(path: str) -> int:
    """Return the size of a file; 0 if it is gone, which the worker reports."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
