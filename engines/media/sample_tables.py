"""Reads the times and places of an mp4's packets from its tables, which is all that FFmpeg knows of them.

FFmpeg has read most of these tables when a file is open: its index states decoding time, place, size and keyframe of
each packet. How much later a frame is shown, and its duration, are read here. Source: ISO/IEC 14496-12, 8.6.1 (time to
sample boxes), 8.3.2 (track header).
"""

from typing import TypeAlias

import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from engines.media.packet_rows import PacketRows
from engines.media.packets import Flag
from engines.media.read_at import ReadAt
from engines.media.times import Times

Span: TypeAlias = tuple[int, int]  # offsets in a file

_MOST_BOXES = 10_000  # beside each other: a film has some ten, and each costs a read
_INDEX = np.dtype([("dts", "<i8"), ("place", "<i8"), ("size", "<i8"), ("key", "?"), ("discarded", "?")])
_RUN, _HEAD = np.dtype(">i4"), 8  # a table has version and flags, a number of rows, and rows of two numbers each
_ROW = 2 * _RUN.itemsize


def rows_of_tables(
    container: InputContainer, stream: VideoStream, read: ReadAt, begun: PacketRows
) -> PacketRows | None:
    """Return all packets of a stream that was opened, of which the demuxer gave the first ones, `begun`.

    None if the demuxer might give others: the file is fragmented or truncated, an edit leaves out packets, or the
    tables are not as usual.
    """
    listed = len(stream.index_entries)
    tables = _tables(read, container.size, stream.id, _HEAD + listed * _ROW)
    if tables is None:
        return None
    index = np.fromiter(
        ((each.timestamp, each.pos, each.size, each.is_keyframe, each.is_discard) for each in stream.index_entries),
        _INDEX,
        listed,
    )
    durations = _each(tables.get(b"stts", b""), len(index))
    later = _each(tables[b"ctts"], len(index)) if b"ctts" in tables else np.zeros(len(index), np.int64)
    if durations is None or later is None or len(index) < len(begun):
        return None
    dts, places, sizes = (index[name].copy() for name in ("dts", "place", "size"))
    pts = dts + later + (begun.pts[0] - begun.dts[0] - later[0])
    rows = PacketRows(pts, dts, durations, sizes, places, np.where(index["key"], Flag.KEY, 0))
    usual = durations.min() > 0 and np.array_equal(np.diff(dts), durations[:-1]) and not index["discarded"].any()
    there = places.min() >= 0 and sizes.min() > 0 and np.all(places <= container.size - sizes)
    alike = all(map(np.array_equal, rows.first(len(begun)), begun))
    return rows if usual and there and alike else None


def _each(table: bytes, count: int) -> Times | None:
    """Return the number of each of `count` packets in a table of runs; None if it has another number of packets."""
    runs = np.frombuffer(table, np.uint8)[_HEAD:]
    if len(runs) % _ROW:
        return None
    lengths, values = runs.view(_RUN).reshape(-1, 2).T.astype(np.int64)
    if np.any(lengths <= 0) or lengths.sum() != count or int.from_bytes(table[4:_HEAD], "big") != len(lengths):
        return None
    return np.repeat(values, lengths)


def _tables(read: ReadAt, size: int, track: int, most: int) -> dict[bytes, bytes] | None:
    """Return the tables of a track's times by their kind, `most` bytes of each; None if the file is not as usual."""
    movie = _boxes(read, (0, size)).get(b"moov", [])
    inside = _boxes(read, movie[0]) if len(movie) == 1 else {}
    if b"mvex" in inside:
        return None  # the tables of a fragmented file are elsewhere
    boxes = [_boxes(read, each) for each in inside.get(b"trak", [])]
    boxes = [each for each in boxes if _number(read, each.get(b"tkhd", [])) == track]
    for kind in (b"mdia", b"minf", b"stbl"):
        if len(boxes) != 1 or len(boxes[0].get(kind, [])) != 1:
            return None
        boxes = [_boxes(read, boxes[0][kind][0])]
    found = {kind: places[0] for kind in (b"stsd", b"stts", b"ctts") if len(places := boxes[0].get(kind, [])) == 1}
    tables = {kind: read(start, min(end - start, most)) for kind, (start, end) in found.items()}
    renewed = tables.pop(b"stsd", b"")[4:_HEAD] != b"\0\0\0\1"  # the header of the codec changes within the film
    return None if renewed or len(boxes[0].get(b"ctts", [])) > 1 else tables


def _number(read: ReadAt, headers: list[Span]) -> int | None:
    """Return the number of a track, by its only header."""
    if len(headers) != 1:
        return None
    data = read(headers[0][0], 24)
    return int.from_bytes(data[20:24] if data[:1] == b"\1" else data[12:16], "big")


def _boxes(read: ReadAt, within: Span) -> dict[bytes, list[Span]]:
    """Return the boxes between two offsets by their kind, each the offsets of its content; none of too many boxes."""
    found: dict[bytes, list[Span]] = {}
    at, stop = within
    for _ in range(_MOST_BOXES):
        if at + 8 > stop:
            return found
        header = read(at, 16)
        length, kind, begin = int.from_bytes(header[:4], "big"), header[4:8], 8
        if length == 1:
            length, begin = int.from_bytes(header[8:], "big"), 16
        end = stop if length == 0 else at + length
        if (length and length < begin) or end > stop:
            return found
        found.setdefault(kind, []).append((at + begin, end))
        at = end
    return {}
