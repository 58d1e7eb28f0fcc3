"""Copies a film, or a file of sound, with subtitles as a further track: text in mp4 (mov_text), SubRip in mkv."""

from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet

from engines.files import PartFile, writing
from engines.media.container import open_container, open_file
from engines.media.head import name_track, names_of
from engines.outputs.cues import Cue
from schemas.errors import MediaError, OutputError

FORMATS = {"mp4": "mp4", "mkv": "matroska"}  # suffix -> FFmpeg's name
_CODECS = {"mp4": "mov_text", "mkv": "subrip"}
_BASE = Fraction(1, 1000)
_HEADER = b"[Script Info]\n"
_KEPT = ("video", "audio", "subtitle")


class SubtitledCopy:
    """One copy, `<target>.<suffix>`, of a file that this machine can read. `notes`: what was left out."""

    def __init__(self, target: Path, suffix: str) -> None:
        self.notes: list[str] = []
        self._suffix = suffix
        self._file = PartFile.create(target.with_name(f"{target.name}.{suffix}"))

    def write(self, source: Path, cues: Sequence[Cue], origin_s: Fraction, language: str) -> Path:
        """Copy all packets of `source`, with cues whose second 0 is at `origin_s` of it. Raises OutputError."""
        try:
            with writing(self._file.path), open_file(source) as file, open_container(file) as given:
                # no random number in the head of an mkv; and times that begin a little before 0 stay
                options = {"fflags": "+bitexact", "avoid_negative_ts": "disabled"}
                out = av.open(self._file.file, "w", format=FORMATS[self._suffix], container_options=options)
                with out:
                    self._copy(given, out, cues, origin_s, language)
        except (OutputError, MediaError) as error:
            hint = "take mkv, which holds nearly every track, or srt beside the film"
            raise OutputError(f"cannot copy {source} with subtitles: {error.what}", hint) from error
        return self._file.commit()

    def abort(self) -> None:
        """Remove the unfinished file."""
        self._file.discard()

    def _copy(
        self, given: InputContainer, out: OutputContainer, cues: Sequence[Cue], origin_s: Fraction, language: str
    ) -> None:
        copies = {stream.index: copy for stream in given.streams if (copy := self._added(out, stream)) is not None}
        track: Any = out.add_stream(_CODECS[self._suffix])
        track.codec_context.subtitle_header = _HEADER
        track.time_base = _BASE
        name_track(track, language, "", 0)
        out.metadata.update(given.metadata)
        waiting = deque(self._packets(cues, track, origin_s))
        for packet in _timed(given.demux([given.streams[number] for number in copies])):
            while waiting and waiting[0][0] <= packet.dts * packet.time_base:
                out.mux(waiting.popleft()[1])
            packet.stream = copies[packet.stream_index]
            out.mux(packet)
        for _, packet in waiting:
            out.mux(packet)

    def _added(self, out: OutputContainer, stream: Any) -> Any:
        """The track of the copy for a track of the source; None for one that the copy leaves out."""
        text = stream.type == "subtitle" and self._suffix == "mp4" and stream.codec_context.name != "mov_text"
        if stream.type not in _KEPT or text or stream.codec_context is None:
            self.notes.append(f"track {stream.index} ({stream.type}) is left out of the {self._suffix}")
            return None
        try:
            copy = out.add_stream_from_template(stream, opaque=True)
        except (FFmpegError, ValueError) as error:
            what = f"{self._suffix} cannot hold track {stream.index}, {stream.codec_context.name}"
            raise OutputError(what) from error
        name_track(copy, *names_of(stream), stream.disposition)
        return copy

    def _packets(self, cues: Sequence[Cue], track: Any, origin_s: Fraction) -> "Iterator[tuple[Fraction, Packet[Any]]]":
        """Each cue as a packet, with its time in seconds."""
        for cue in cues:
            text = "\n".join(cue.lines).encode()
            data = len(text).to_bytes(2, "big") + text if self._suffix == "mp4" else text
            packet: Packet[Any] = Packet(len(data))
            packet.update(data)
            packet.stream, packet.time_base = track, _BASE
            packet.pts = packet.dts = round((Fraction(cue.start) + origin_s) / _BASE)
            packet.duration, packet.is_keyframe = max(1, round(Fraction(cue.end - cue.start) / _BASE)), True
            yield Fraction(cue.start) + origin_s, packet


def _timed(packets: "Iterator[Packet[Any]]") -> "Iterator[Any]":
    """Packets that have a dts: those of an mkv begin without, because it stores none.

    They get times before the first known one of their track, a packet's duration apart.
    """
    early: dict[int, list[Any]] = {}
    known: set[int] = set()
    for packet in packets:
        number = packet.stream_index
        if packet.pts is None and not packet.size:  # the end of a track
            continue
        if number in known:
            yield packet
        elif packet.dts is None:
            early.setdefault(number, []).append(packet)
        else:
            known.add(number)
            yield from _before(early.pop(number, []), packet.dts)
            yield packet
    for held in early.values():
        yield from _before(held, min(packet.pts or 0 for packet in held) + 1)


def _before(packets: Sequence[Any], dts: int) -> Iterator[Any]:
    for place, packet in enumerate(packets):
        packet.dts = dts - sum(max(1, each.duration or 0) for each in packets[place:])
        yield packet
