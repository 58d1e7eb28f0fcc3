"""Finds packets of the picture that a damaged or truncated file lacks, and says how many, or for how long.

A demuxer skips data that it cannot read, and continues behind it. A gap in the times alone is not damage, because media
of a variable frame rate leave out frames. A gap is a hole if the file is damaged there: in Matroska, if elements do not
lead from one packet to the next; in MPEG-TS, if its packets do not follow each other, or if their continuity counters
have a gap, which FFmpeg marks. AVI has an index of all frames. FFmpeg reads mp4 by its index, which damage does not
affect; only fragments may be missing.
"""

import re
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from engines.media.boxes import unread_fragments
from engines.media.ebml import declared_length, leads_to
from engines.media.packet_rows import PacketRows
from engines.media.packets import Flag
from engines.media.read_at import ReadAt
from engines.media.sniff import HEAD_BYTES
from engines.media.source import time_base
from engines.media.times import Times, gaps_between

_DAMAGED = "the file is damaged"
_TS_SYNC = b"G"  # ISO 13818-1, 2.4.3.2
_TS_PACKETS = ((0, 188), (0, 192), (4, 192), (0, 204))  # where its first byte is, and its size with what is added to it
_GAP = Fraction(3, 2)  # times of a frame
_NEAR = 3  # packets: the mark of a transport stream is on one of those in front of the hole or behind it


class Missing:
    """Says what is missing of a film; made before its packets are read. `read` reads the bytes of the source."""

    def __init__(self, container: InputContainer, stream: VideoStream, read: ReadAt) -> None:
        self._container = container
        self._name = container.format.name
        self._stream = stream
        self._read = read
        self._listed = len(stream.index_entries) if self._name == "avi" else 0  # reading may add more

    def notes(self, rows: PacketRows, pts: Times | None, origin: int) -> list[str]:
        """Return what is missing, in words, once all packets were read.

        `pts [P]` int64 are their corrected times, None if the file has none; seconds count from `origin`.
        """
        found = self._truncated(max(0, int(rows.pts.max(initial=0))))
        if pts is not None:
            gaps = gaps_between(pts)
            step = max(1, int(np.median(gaps))) if len(gaps) else 1
            found += self._in_holes(self._holes(rows, pts, step), origin, step)
        lost = self._unread(len(rows))
        if lost > 0:
            found.append(f"{_DAMAGED}: {lost} of the {self._listed} frames in its index are missing")
        end = unread_fragments(self._read, self._container.size) if "mp4" in self._name else None
        if end is not None:
            found.append(f"{_DAMAGED}: the fragments behind its byte {end} cannot be read")
        return found

    def _holes(self, rows: PacketRows, pts: Times, step: int) -> list[tuple[int, int]]:
        """Return the last time before each hole and the first one after it; `step` is the usual time of a frame."""
        before = np.maximum.accumulate(pts)[:-1]
        after = np.minimum.accumulate(pts[::-1])[::-1][1:]
        gaps = np.flatnonzero(after - before > float(_GAP * step)).tolist()
        return [(int(before[at]), int(after[at])) for at in gaps if self._is_damaged(rows, at)]

    def _is_damaged(self, rows: PacketRows, number: int) -> bool:
        """Return whether the file is damaged between packet `number` and the next one."""
        start, end = rows.places[number : number + 2].tolist()
        if not 0 <= start < end:
            return False
        if "matroska" in self._name:
            return not leads_to(self._read, start, end)
        if self._name == "mpegts":
            marked = np.any(rows.flags[max(0, number + 1 - _NEAR) : number + 1 + _NEAR] & Flag.CORRUPT)
            return bool(marked) or not any(self._has_packets(start + begin, end, step) for begin, step in _TS_PACKETS)
        return False

    def _has_packets(self, start: int, end: int, step: int) -> bool:
        return all(self._read(at, 1) == _TS_SYNC for at in range(start, end, step))

    def _in_holes(self, holes: Sequence[tuple[int, int]], origin: int, step: int) -> list[str]:
        if not holes:
            return []
        unit = time_base(self._stream)
        lost = sum(after - before - step for before, after in holes)
        first, last = (float((time - origin) * unit) for time in (holes[0][0] + step, holes[-1][1]))
        where = f"between {first:.2f} and {last:.2f} s" + (f" in {len(holes)} places" if len(holes) > 1 else "")
        frames = round(lost / step)
        words = f"{float(lost * unit):.2f} s of the picture are missing {where}, {frames} frames at its usual rate"
        return [f"{_DAMAGED}: {words}"]

    def _unread(self, came: int) -> int:
        """Return how many frames in the index of an AVI did not come. Changes of a palette have places in it, too."""
        missing = self._listed - came
        if missing <= 0:
            return 0
        return missing - sum(self._read(entry.pos + 2, 2) == b"pc" for entry in self._stream.index_entries)

    def _truncated(self, last: int) -> list[str]:
        """Return a note if a Matroska or WebM file ends before its header states; `last` is the greatest pts.

        If it has fewer bytes than that, it certainly does; otherwise its picture may end long before its sound.
        """
        container = self._container
        length = declared_length(self._read(0, HEAD_BYTES))
        cut_off = length is not None and container.size < length
        if "matroska" not in self._name or not container.duration:
            return ["it is truncated: its last bytes are missing"] if cut_off else []
        # some muxers count a film's duration from its first frame, FFmpeg's from zero
        start, declared = min(0, container.start_time or 0) / 1e6, container.duration / 1e6
        end = float(last * time_base(self._stream)) - start
        own = re.match(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", self._stream.metadata.get("DURATION", ""))
        if own is not None:
            declared = sum(float(part) * unit for part, unit in zip(own.groups(), (3600, 60, 1), strict=True))
        if not cut_off and declared - end < max(1.0, 0.02 * declared):
            return []
        return [f"it is truncated, or its picture ends early: {end:.1f} s of the {declared:.1f} s that its header says"]
