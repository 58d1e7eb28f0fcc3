"""Groups images into messages, because the cost of a message is larger than that of a small image."""

from collections.abc import Iterator, Sequence

from engines.media.shared import SharedFolders, read_image
from schemas.media import Item

ALBUM_ITEMS = 64  # small images share a message: the cost of a message is larger than that of an image
ALBUM_BYTES = 4 << 20


def albums(
    paths: Sequence[str], names: Sequence[str], shared: SharedFolders
) -> Iterator[tuple[list[Item], list[bytes]]]:
    """Images in groups of up to 64 or 4 MB: items, and their bytes unless they are in folders that workers see.

    `paths` have their links resolved. One that cannot be read travels as a failed item.
    """
    items: list[Item] = []
    buffers: list[bytes] = []
    size = 0
    for path, name in zip(paths, names, strict=True):
        seen, data = shared.hold(path), b""
        item = Item(name=name, path=path if seen else "")
        if not seen:
            item, data = read_image(item, path)
        full = len(items) == ALBUM_ITEMS or size + len(data) > ALBUM_BYTES
        if items and (full or seen is bool(buffers)):  # an album holds paths or bytes, never both
            yield items, buffers
            items, buffers, size = [], [], 0
        items.append(item)
        buffers += [] if seen else [data]
        size += len(data)
    if items:
        yield items, buffers
