"""Joins encoded parts and the other tracks of the source into one file, by copying packets as they come.

The picture keeps the source's pts exactly, see engines.outputs.timeline; sound and subtitles keep their times, see
engines.outputs.tracks.
"""

import io
from collections.abc import Mapping
from contextlib import suppress
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.container import OutputContainer
from av.error import FFmpegError

from engines.files import PartFile, writing
from engines.media.container import open_container
from engines.media.head import SUFFIXES
from engines.outputs.timeline import REORDER, Timeline
from engines.outputs.tracks import OutputTracks
from engines.part import Array
from schemas.errors import MediaError
from schemas.media import MediaInfo
from schemas.parts import PartMeta
from schemas.segments import Fragment

_CHANGES = {"size": "the picture changes size", "encoder": "not all of it is from one encoder"}
_MOST_TIMESCALE = (1 << 31) - 1


class _Stream(NamedTuple):
    """How a codec's packets stand in a file: FFmpeg's demuxer of them alone, and the tag of its track in mp4 and mov.

    `in_band`: each part brings its parameter sets in front of its first packet, which a decoder needs that starts
    there or comes from a part of another size or encoder. Without it only parts do whose parameter sets differ from
    those of the file: Apple's players take a track `hvc1`, and it is to have them in its head.
    """

    demuxer: str
    tag: str = ""
    in_band: bool = False
    mov: bool = True  # whether mov can hold it


_STREAMS = {
    "h264": _Stream("h264", in_band=True),
    "hevc": _Stream("hevc", "hvc1"),
    "av1": _Stream("obu", mov=False),  # encoders put them into each first packet
}


class _Packet(NamedTuple):
    """One encoded picture, `size` bytes of a part's data; times in the media's clock."""

    pts: int
    dts: int
    duration: int
    key: bool
    size: int


class VideoFile:
    """One mp4 (mov or mkv if mp4 cannot hold the sound), written while parts come in."""

    def __init__(self, target: Path, media: MediaInfo) -> None:
        """`target` has no suffix. Nothing is written before the first part."""
        self.notes: list[str] = []
        self._target = target
        self._clock = media.clock
        self._timeline = Timeline(media)
        self._file: PartFile | None = None
        self._output: OutputContainer | None = None
        self._tracks: OutputTracks | None = None
        self._early: list[Mapping[str, Array]] = []  # packets of other tracks that came before the first picture
        self._facts: Mapping[str, Any] = {}  # of the first part
        self._head = b""  # the parameter sets in the file's head
        self._aspect = Fraction(1)
        if self._timeline.shift:
            self.notes.append(f"begins {self._clock.seconds(0):.3f} s before 0: moved to begin at 0")

    def add(self, meta: PartMeta, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
        """Write the part's packets; `arrays` and `facts` as in engines.outputs.video. Raises OutputError."""
        if not meta.pts:
            return
        header, data = arrays["header"].tobytes(), arrays["data"].tobytes()
        if self._output is None:
            self._facts = facts
            self._aspect = Fraction(*meta.media.sample_aspect)  # as the pictures are, which a stage may have stretched
            self._timeline.reorder = REORDER[self._codec]
        packets = self._timed(meta, arrays)
        if self._output is None:
            self._start(header + data)
            self._head = header
        if header and (self._stream.in_band or header != self._head):
            data = header + data
            packets[0] = packets[0]._replace(size=packets[0].size + len(header))
        for fact, what in _CHANGES.items():
            if facts.get(fact) != self._facts.get(fact):
                self._note_once(what, meta)
        self._write(packets, io.BytesIO(data))

    def add_tracks(self, fragment: Fragment, arrays: Mapping[str, Array]) -> None:
        """Write a segment's packets of other tracks. Raises OutputError and MediaError."""
        self.notes += [note for note in fragment.notes if note not in self.notes]
        if "head" in arrays and self._tracks is None and self._output is None:
            self._tracks = OutputTracks(fragment, arrays["head"].tobytes())
        if self._output is None:
            self._early.append(arrays)
        else:
            self._take(arrays)

    def close(self) -> list[Path]:
        """Finish the file; without any picture there is none."""
        if self._output is None or self._file is None:
            self.notes.append("no picture came out of the job: no file")
            self.abort()
            return []
        self.notes += self._tracks.notes if self._tracks else []
        with writing(self._file.path):
            self._mux_tracks()
            self._output.close()
        return [self._file.commit()]

    def abort(self) -> None:
        """Remove the unfinished file."""
        if self._output is not None:
            with suppress(OSError, FFmpegError):  # the file is deleted anyway: a full disk does not matter now
                self._output.close()
        if self._file is not None:
            self._file.discard()

    def _timed(self, meta: PartMeta, arrays: Mapping[str, Array]) -> list[_Packet]:
        """Return the part's packets with their times in the whole file, in decode order."""
        order, keys, sizes = (arrays[name].tolist() for name in ("order", "key", "sizes"))
        times = self._timeline.extend(meta.pts, order)
        if self._timeline.bent:
            self._note_once("times do not rise and were moved by the least", meta)
        after = [*(each.dts for each in times[1:]), self._timeline.next_dts]
        packets = []
        for (pts, dts, lasts), next_dts, key, size in zip(times, after, keys, sizes, strict=True):
            if key and next_dts is not None and self._container != "matroska":
                # FFmpeg skips packets of an mp4 after a keyframe whose pts and distance in dts reach the last one's
                # end: move it
                lasts = max(lasts, next_dts - dts + 1)
            packets.append(_Packet(pts, dts, lasts, bool(key), size))
        return packets

    def _note_once(self, what: str, meta: PartMeta) -> None:
        if not any(note.startswith(what) for note in self.notes):
            self.notes.append(f"{what}, first at {self._clock.seconds(meta.pts[0]):.3f} s")

    def _start(self, picture: bytes) -> None:
        """Open the file at the first picture, and write the packets that came before it."""
        container = self._container
        if container not in SUFFIXES:
            raise MediaError(f"a video of format {container!r} cannot be written", "send mp4, mov or matroska")
        path = self._target.with_name(f"{self._target.name}.{SUFFIXES[container]}")
        self._file = PartFile.create(path)
        base, rates = self._timeline.time_base, self._tracks.rates if self._tracks else []
        with writing(path), open_container(picture, self._stream.demuxer) as source:
            output = av.open(self._file.file, "w", format=container, options=_options(container, base, rates))
            self._output = output
            stream = output.add_stream_from_template(source.streams.video[0], opaque=True)
            stream.time_base = base
            stream.codec_context.sample_aspect_ratio = self._aspect  # AV1 itself does not hold it
            if self._stream.tag and container != "matroska":
                stream.codec_context.codec_tag = self._stream.tag
            if self._tracks is not None:
                self._tracks.add_to(output, self._shift_s)
        for arrays in self._early:
            self._take(arrays)
        self._early.clear()

    def _write(self, packets: list[_Packet], data: Any) -> None:
        assert self._output is not None
        assert self._file is not None
        stream = self._output.streams.video[0]
        with writing(self._file.path):
            for timed in packets:
                self._mux_tracks(timed.dts * self._timeline.time_base)
                packet = av.Packet(data.read(timed.size))
                packet.stream, packet.time_base = stream, self._timeline.time_base
                packet.pts, packet.dts, packet.duration = timed.pts, timed.dts, timed.duration
                packet.is_keyframe = timed.key
                self._output.mux(packet)

    def _take(self, arrays: Mapping[str, Array]) -> None:
        if self._tracks is not None:
            self._tracks.take(arrays, self._shift_s)

    def _mux_tracks(self, until_s: Fraction | None = None) -> None:
        """Write the packets of other tracks up to that time, so that they are interleaved in the file."""
        assert self._output is not None
        for packet in self._tracks.due(until_s) if self._tracks else ():
            self._output.mux(packet)

    @property
    def _container(self) -> str:
        container = self._tracks.container if self._tracks else "mp4"
        return "matroska" if container == "mov" and not self._stream.mov else container

    @property
    def _codec(self) -> str:
        return str(self._facts["codec"])

    @property
    def _stream(self) -> _Stream:
        return _STREAMS[self._codec]

    @property
    def _shift_s(self) -> Fraction:
        """Return by how much all tracks are moved."""
        return self._timeline.shift * self._clock.time_base


def _options(container: str, base: Fraction, rates: list[int]) -> dict[str, str]:
    """Return options of the muxer: for mp4 a movie clock that both clocks divide, so that the start of each track is
    exact.

    No container may move the times: sound often begins a little before 0.
    """
    if container == "matroska":
        return {"avoid_negative_ts": "disabled"}
    common = lcm(base.denominator, *rates)
    return {"movie_timescale": str(common if common <= _MOST_TIMESCALE else base.denominator)}
