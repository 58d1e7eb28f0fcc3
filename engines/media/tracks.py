"""Copies the tracks beside the picture (sound, subtitles) from a source to its output, packet for packet.

All tracks, and everything that a muxer needs of them, are known before the first segment is sent (see
`engines.media.head`). Therefore a track that begins late, ends early or has a gap stays one track.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, Protocol, TypeAlias

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard

from engines.media.head import (
    COVERS,
    SUFFIXES,
    Cover,
    HeadTrack,
    Tags,
    cover_streams,
    holds,
    holds_covers,
    lost_tags,
    names_of,
    refused,
    write_head,
)
from engines.media.reencode import AacTrack, TextTrack
from engines.media.source import packets_of
from engines.media.track_packets import Order, pack_track
from engines.part import Array
from schemas.errors import MediaError
from schemas.segments import TrackInfo

SoundChoice: TypeAlias = Literal["copy", "aac"]
_BLANK = b"\0\0"  # a placeholder packet for a head that needs one whose content does not matter


@dataclass(frozen=True)
class TrackPackets:
    """The packets of one segment, of all tracks; the first one also has the head. See `schemas.segments.Fragment`."""

    container: str = ""
    tracks: tuple[TrackInfo, ...] = ()
    notes: tuple[str, ...] = ()
    arrays: dict[str, Array] = field(default_factory=dict)


class Track(Protocol):
    """A track on its way: `template` has its codec, `frame` is the number of samples of each packet (0: it varies)."""

    source: Any
    template: Any
    time_base: Fraction
    frame: int

    def take(self, packet: "Packet[Any]") -> "list[Packet[Any]]":
        """Return the packets that one packet of the source becomes."""
        ...

    def end(self) -> "list[Packet[Any]]":
        """Return the packets after the last one."""
        ...


class CopiedTrack:
    """A track whose packets stay as they are."""

    def __init__(self, stream: Any) -> None:
        self.source = self.template = stream
        self.time_base: Fraction = stream.time_base or Fraction(1)
        self.frame: int = getattr(stream.codec_context, "frame_size", 0) or 0

    def take(self, packet: "Packet[Any]") -> "list[Packet[Any]]":
        """Return the packet itself."""
        return [packet]

    def end(self) -> "list[Packet[Any]]":
        """Nothing."""
        return []


def first_packets(container: InputContainer) -> dict[int, bytes]:
    """Return the first packet of each sound stream and cover by stream index. Reads until all of them have one."""
    streams = [
        stream for stream in (*container.streams.audio, *cover_streams(container)) if stream.codec_context is not None
    ]
    for stream in container.streams:
        if stream not in streams:
            stream.discard = Discard.all
    found: dict[int, bytes] = {}
    for packet in packets_of(container, *streams) if streams else ():
        if packet.size and packet.stream_index not in found:
            found[packet.stream_index] = bytes(packet)
            packet.stream.discard = Discard.all
        if len(found) == len(streams):
            break
    return found


class Tracks:
    """The tracks beside the picture of an open source; `firsts` are its `first_packets`.

    `sound` "aac": sound that mp4 cannot hold is encoded to AAC; "copy": it goes into mov or mkv, or not at all.
    """

    def __init__(self, container: InputContainer, firsts: dict[int, bytes], sound: SoundChoice = "copy") -> None:
        self._notes: list[str] = []
        self._tracks: list[Track] = []
        self._heads: list[HeadTrack] = []
        self._names: list[str] = []  # the names in notes
        self._held: list[list[Packet[Any]]] = []  # packets that wait until their segment is complete
        self._orders: list[Order] = []
        self._choose_sound(container, firsts, sound)
        self._choose_subtitles(container)
        self._note_others(container)
        covers = [Cover(stream, firsts[stream.index]) for stream in cover_streams(container) if stream.index in firsts]
        self._head = self._write_head(Tags.of(container), covers)

    @property
    def streams(self) -> list[Any]:
        """Return the streams whose packets `take` expects."""
        return [track.source for track in self._tracks]

    def take(self, packet: "Packet[Any]") -> None:
        """Take a packet of one of `streams`."""
        number = next(n for n, track in enumerate(self._tracks) if track.source.index == packet.stream_index)
        self._hold(number, self._tracks[number].take(packet))

    def end(self) -> None:
        """Flush the tracks at the end of the source."""
        for number, track in enumerate(self._tracks):
            self._hold(number, track.end())
            self._held[number] += self._orders[number].end()

    def dealt(self, first: bool) -> TrackPackets | None:
        """Return the packets since the last call, for the `first` segment with the head; None if there are none."""
        if not first and not any(self._held):
            return None
        notes: list[str] = []
        arrays: dict[str, Array] = {}
        for number, held in enumerate(self._held):
            bad = refused(self._container, self._heads[number], held)
            if bad:
                notes.append(f"damaged packets of {self._names[number]} are left out")
            order, unit = self._orders[number], self._tracks[number].time_base
            if order.ahead is not None:
                at_s = float(order.ahead * unit)
                notes.append(f"{self._names[number]} has a time ahead of the next, {at_s:.3f} s: moved back")
                order.ahead = None
            good = [packet for place, packet in enumerate(held) if place not in bad]
            held.clear()
            if good:
                arrays[f"table{number}"], arrays[f"data{number}"] = pack_track(good)
        if not first:
            return TrackPackets(notes=tuple(notes), arrays=arrays)
        arrays["head"] = np.frombuffer(self._head, np.uint8)
        infos = tuple(
            TrackInfo(time_base=(track.time_base.numerator, track.time_base.denominator), frame=track.frame)
            for track in self._tracks
        )
        return TrackPackets(self._container, infos, (*self._notes, *notes), arrays)

    def _hold(self, number: int, packets: "list[Packet[Any]]") -> None:
        for packet in packets:
            if packet.size:
                self._held[number] += self._orders[number].take(packet)

    def _add(self, track: Track, name: str, sample: bytes) -> None:
        self._tracks.append(track)
        self._heads.append(_head_track(track, sample))
        self._names.append(name)
        self._held.append([])
        self._orders.append(Order())

    def _choose_sound(self, container: InputContainer, firsts: dict[int, bytes], sound: SoundChoice) -> None:
        streams = container.streams.audio
        heads = {
            n: _head_track(CopiedTrack(streams[n]), firsts[streams[n].index])
            for n in range(len(streams))
            if streams[n].index in firsts
        }
        held = {name: {n for n, head in heads.items() if holds(name, head)} for name in SUFFIXES}
        self._container = "mp4" if sound == "aac" else max(SUFFIXES, key=lambda name: len(held[name]))
        if self._container != "mp4":
            others = [heads[n].template.codec_context.name for n in sorted(held[self._container] - held["mp4"])]
            self._notes.append(f"mp4 cannot hold {_listed(others)}: written as {SUFFIXES[self._container]}")
        for number, stream in enumerate(streams):
            name = "the sound" if len(streams) == 1 else f"sound track {number + 1}"
            if stream.codec_context is None:
                self._notes.append(f"FFmpeg does not know the codec of {name}: left out")
            elif number not in heads:
                self._notes.append(f"{name} ({stream.codec_context.name}) has no packets: left out")
            elif number in held[self._container]:
                self._add(CopiedTrack(stream), name, firsts[stream.index])
            elif sound == "aac":
                self._add(AacTrack(stream), name, _BLANK)
            else:
                codec = stream.codec_context.name
                where = (
                    "no container" if not any(number in each for each in held.values()) else SUFFIXES[self._container]
                )
                self._notes.append(f"{where} can hold {codec}: {name} is left out")

    def _choose_subtitles(self, container: InputContainer) -> None:
        for number, stream in enumerate(container.streams.subtitles, 1):
            name = f"subtitle track {number}"
            if stream.codec_context is None:
                self._notes.append(f"FFmpeg does not know the codec of {name}: left out")
            elif holds(self._container, _head_track(CopiedTrack(stream), _BLANK)):
                self._add(CopiedTrack(stream), name, _BLANK)
            elif (text := _as_text(stream)) is not None and holds(self._container, _head_track(text, _BLANK)):
                self._add(text, name, _BLANK)
            else:
                suffix = SUFFIXES[self._container]
                self._notes.append(f"{suffix} cannot hold {stream.codec_context.name}: {name} is left out")

    def _note_others(self, container: InputContainer) -> None:
        """Add notes on tracks that are left out entirely."""
        chapters = {"bin_data"} if container.chapters() else set()  # the track in which mp4 has its chapters' names
        others = {
            "video": len(container.streams.video) - len(cover_streams(container)) - 1,
            "data": sum(stream.name not in chapters for stream in container.streams.data),
            "attachment": len(container.streams.attachments),
        }
        for kind, count in others.items():
            if count:
                self._notes.append(
                    f"{count} {'other ' * (kind == 'video')}{kind} {'tracks are' if count > 1 else 'track is'} left out"
                )

    def _write_head(self, tags: Tags, covers: list[Cover]) -> bytes:
        """Return the head with all tags and covers that the container accepts."""
        try:
            fits = all(cover.template.codec_context.name in COVERS for cover in covers)
            data = write_head(self._container, self._heads, Tags(), covers) if fits else b""
            fits = fits and holds_covers(data, self._container, covers)
        except (av.error.FFmpegError, ValueError, MediaError):
            fits = False
        if not fits:
            self._notes.append(f"{SUFFIXES[self._container]} cannot hold its cover picture: left out")
            covers = []
        try:
            data = write_head(self._container, self._heads, tags, covers)
            lost = lost_tags(data, self._container, tags)
        except (av.error.FFmpegError, ValueError, MediaError):
            self._notes.append("its chapters and tags cannot be written: left out")
            return write_head(self._container, self._heads, Tags(), covers)
        if lost:
            self._notes.append(f"{SUFFIXES[self._container]} cannot hold the tags {_listed(lost)}: left out")
        return data


def _head_track(track: Track, sample: bytes) -> HeadTrack:
    return HeadTrack(track.template, sample, *names_of(track.source), track.source.disposition)


def _as_text(stream: Any) -> TextTrack | None:
    try:
        return TextTrack(stream) if stream.codec_context.codec.text_sub else None
    except (av.error.FFmpegError, ValueError):
        return None


def _listed(words: list[str]) -> str:
    *most, last = dict.fromkeys(words)
    return f"{', '.join(most)} and {last}" if most else last
