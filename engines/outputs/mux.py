"""Joins encoded parts and the source's sound into one file, by copying packets, as they come.

The picture keeps the source's pts exactly, see engines.outputs.timeline; sound lies where it was, see .sound.
"""

import io
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from fractions import Fraction
from itertools import pairwise
from math import lcm
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any, NamedTuple, Self

import av
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError

from engines.media.container import open_container
from engines.outputs.files import PartFile, writing
from engines.outputs.sound import SoundTrack
from engines.outputs.timeline import Timeline
from engines.part import Array
from schemas.errors import MediaError
from schemas.messages import MediaInfo, PartMeta
from schemas.wire import Buffer

_CONTAINERS = {"mp4": "mp4", "mov": "mov", "mkv": "matroska"}  # suffix -> format, the best first
_CHANGES = {"size": "the picture changes size", "encoder": "not all of it is from one encoder"}
_HELD_IN_MEMORY = 8 << 20
_MOST_TIMESCALE = (1 << 31) - 1


class _Packet(NamedTuple):
    """One encoded picture, `size` bytes of the waiting file or of a part's data; times in the media's clock."""

    pts: int
    dts: int
    duration: int
    key: bool
    size: int


class VideoFile:
    """One mp4 (mov or mkv where mp4 cannot hold the sound), written while parts come in.

    The file's head needs the first sound; should that be late, the pictures wait in a temporary file.
    """

    def __init__(self, file: PartFile, media: MediaInfo, notes: list[str]) -> None:
        self.notes = notes
        self._file = file
        self._media = media
        self._clock = media.clock
        # mp4 drops what is before 0, so a media that begins there is moved, sound and all
        self._shift = max(0, -media.origin)
        self._timeline = Timeline(media)
        self._waiting = SpooledTemporaryFile(max_size=_HELD_IN_MEMORY, dir=str(file.path.parent))  # noqa: SIM115
        self._packets: list[_Packet] = []
        self._sound: list[tuple[str, Buffer]] = []
        self._template = b""
        self._facts: Mapping[str, Any] = {}  # of the first part
        self._output: OutputContainer | None = None
        self._tracks: list[SoundTrack] = []
        if self._shift:
            notes.append(f"begins {self._clock.seconds(0):.3f} s before 0: moved to begin at 0")

    @classmethod
    def create(cls, target: Path, media: MediaInfo) -> Self:
        """Starts `<target>.mp4`; `.mov` or `.mkv` when mp4 cannot hold the sound. Raises OutputError."""
        suffix = next((suffix for suffix in _CONTAINERS if _holds(suffix, media.sound)), None)
        notes, codecs = [], " and ".join(media.sound)
        if suffix is None:
            notes.append(f"no container can hold {codecs}: the sound is left out")
            suffix, media = "mp4", media.model_copy(update={"sound": ()})
        elif suffix != "mp4":
            notes.append(f"mp4 cannot hold {codecs}: written as {suffix}")
        return cls(PartFile.create(target.with_name(f"{target.name}.{suffix}")), media, notes)

    def add(self, meta: PartMeta, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
        """Writes the part's packets; `arrays` and `facts` as in engines.outputs.video. Raises OutputError."""
        if not meta.pts:
            return
        # every part brings its own parameter sets, in front of its first packet: whoever begins there, or comes from a
        # part of another size or of another encoder, has none or wrong ones
        header = arrays["header"].tobytes()
        data = header + arrays["data"].tobytes()
        packets = self._timed(meta, arrays)
        packets[0] = packets[0]._replace(size=packets[0].size + len(header))
        if not self._template:
            self._template, self._facts = data, facts
        for fact, what in _CHANGES.items():
            if facts.get(fact) != self._facts.get(fact):
                self._note_once(what, meta)
        with writing(self._file.path):
            if self._output is None and (self._sound or not self._media.sound):
                self._start()
            if self._output is None:
                self._waiting.write(data)
                self._packets += packets
            else:
                self._write(packets, io.BytesIO(data))

    def add_sound(self, container: str, data: Buffer) -> None:
        """Writes the segment's sound. Raises OutputError, and MediaError when `data` is no such file."""
        if not self._media.sound:
            return  # no container can hold it
        with writing(self._file.path):
            if self._output is None:
                self._sound.append((container, data))
                if self._template:
                    self._start()
            else:
                self._copy_sound(container, data)

    def close(self) -> list[Path]:
        """Finishes the file; there is none when no picture came."""
        if not self._template:
            self.notes.append("no picture came out of the job: no file")
            self.abort()
            return []
        with writing(self._file.path):
            if self._output is None:
                self._start()
            assert self._output is not None
            self._output.close()
        return [self._file.commit()]

    def abort(self) -> None:
        """Removes what was begun."""
        if self._output is not None:
            with suppress(OSError, FFmpegError):  # it is thrown away; that the disk is full does not matter now
                self._output.close()
        self._waiting.close()
        self._file.discard()

    def _timed(self, meta: PartMeta, arrays: Mapping[str, Array]) -> list[_Packet]:
        """The part's packets with their times in the whole file, in decode order."""
        pts, dts = self._timeline.extend([pts + self._shift for pts in meta.pts])
        if self._timeline.bent:
            self._note_once("times do not rise and were moved by the least", meta)
        order, keys, sizes = (arrays[name].tolist() for name in ("order", "key", "sizes"))
        packets = []
        for which, key, size, (late, after) in zip(order, keys, sizes, pairwise(dts), strict=True):
            # FFmpeg reads no packet after a key one whose pts and distance in dts reach the file's end: move the end
            duration = max(self._timeline.step, after - late + 1) if key else self._timeline.step
            packets.append(_Packet(pts[which], late, duration, bool(key), size))
        return packets

    def _note_once(self, what: str, meta: PartMeta) -> None:
        if not any(note.startswith(what) for note in self.notes):
            self.notes.append(f"{what}, first at {self._clock.seconds(meta.pts[0]):.3f} s")

    def _start(self) -> None:
        """Writes the head, now that a picture and the sound (if any) are there, and all that waited for it."""
        base = self._timeline.time_base
        with ExitStack() as inputs:
            picture = inputs.enter_context(open_container(self._template, "h264"))
            sound = inputs.enter_context(_open_sound(*self._sound[0])) if self._sound else None
            rates = [stream.codec_context.sample_rate for stream in sound.streams.audio] if sound else []
            suffix = self._file.path.suffix[1:]
            self._output = av.open(
                self._file.file, "w", format=_CONTAINERS[suffix], options=_options(suffix, base, rates)
            )
            stream = self._output.add_stream_from_template(picture.streams.video[0], opaque=True)
            stream.time_base = base
            for source in sound.streams.audio if sound else ():
                track = self._output.add_stream_from_template(source, opaque=True)
                self._tracks.append(SoundTrack(track, source.codec_context.frame_size))
        for container, data in self._sound:
            self._copy_sound(container, data)
        self._sound.clear()
        self._waiting.seek(0)
        self._write(self._packets, self._waiting)
        self._packets.clear()
        self._waiting.close()

    def _write(self, packets: list[_Packet], data: Any) -> None:
        assert self._output is not None
        stream = self._output.streams.video[0]
        for timed in packets:
            packet = av.Packet(data.read(timed.size))
            packet.stream, packet.time_base = stream, self._timeline.time_base
            packet.pts, packet.dts, packet.duration = timed.pts, timed.dts, timed.duration
            packet.is_keyframe = timed.key
            self._output.mux(packet)

    def _copy_sound(self, container: str, data: Buffer) -> None:
        assert self._output is not None
        shift = self._shift * self._clock.time_base
        with _open_sound(container, data) as source:
            for packet in _packets(source):
                number = source.streams.audio.index(packet.stream)
                if number < len(self._tracks):
                    self._tracks[number].place(packet, shift)
                    self._output.mux(packet)


def _holds(suffix: str, codecs: tuple[str, ...]) -> bool:
    if suffix == "mp4" and any(codec.startswith("pcm_") for codec in codecs):
        return False  # only with a channel layout, which many sources do not tell, and only for few players
    with av.open(io.BytesIO(), "w", format=_CONTAINERS[suffix]) as container:
        return set(codecs) <= container.supported_codecs


def _options(suffix: str, base: Fraction, rates: list[int]) -> dict[str, str]:
    """mp4 keeps the start of each track in units of the movie's own clock: one that both clocks divide is exact.

    No container may move the times: sound often begins a little before 0.
    """
    if suffix == "mkv":
        return {"avoid_negative_ts": "disabled"}
    common = lcm(base.denominator, *rates)
    return {"movie_timescale": str(common if common <= _MOST_TIMESCALE else base.denominator)}


def _open_sound(container: str, data: Buffer) -> InputContainer:
    try:
        return open_container(data, container)
    except FFmpegError as error:
        raise MediaError(
            f"the sound of a segment is not a {container} file", error.strerror or "it is damaged"
        ) from error


def _packets(source: InputContainer) -> "Iterator[av.Packet[Any]]":
    """Packets of all sound streams, without the empty one that ends each."""
    return (packet for packet in source.demux(source.streams.audio) if packet.size)
