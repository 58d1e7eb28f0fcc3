"""Reads and writes the head of a video output: a small file with all tracks beside the picture, chapters and tags.

`split` writes it in the container of the finished file and reads it back, to learn what that container can hold.
`collect` opens it and copies its tracks to the finished file, so that codec parameters are sent in the form in which
FFmpeg writes them.
"""

import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Disposition

from engines.media.container import open_container
from schemas.errors import MediaError
from schemas.wire import Buffer

# FFmpeg's names of the containers that rigflow writes, the best first
SUFFIXES = {"mp4": "mp4", "mov": "mov", "matroska": "mkv"}
COVERS = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}  # codec: file name, kind of media
_OPTIONS = {"matroska": {"avoid_negative_ts": "disabled"}}
_LOCATION = "location"
_APPLE_LOCATION = "com.apple.quicktime.location.iso6709"
# tags that describe the file rather than the film: the finished file has its own
_TECHNICAL = (
    "major_brand",
    "minor_version",
    "compatible_brands",
    "encoder",
    "duration",
    "vendor_id",
    "handler_name",
    "software",
)
_TECHNICAL_STARTS = ("_statistics", "bps", "number_of_", "location-", _APPLE_LOCATION)


class HeadTrack(NamedTuple):
    """A track to write: `template` has its codec; `sample` is one of its packets, or a placeholder for one."""

    template: Any
    sample: bytes
    language: str = ""
    title: str = ""
    disposition: int = 0


class Cover(NamedTuple):
    """A cover picture of the film; `template` has its codec."""

    template: Any
    data: bytes


_UNSET_TIME = "1970-01-01T00:00:00"  # encoders without a clock write it; the mp4 muxer takes it for no time


@dataclass(frozen=True)
class Tags:
    """The chapters of a file as PyAV gives them, and its tags by lower-case names."""

    chapters: list[Any] = field(default_factory=list)
    words: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, container: InputContainer) -> "Tags":
        """Return those of an open file, without tags that describe the file itself, and without an unset time."""
        given = {name.lower(): text for name, text in container.metadata.items() if text}
        if given.get("creation_time", "").startswith(_UNSET_TIME):
            del given["creation_time"]
        words = {
            name: text
            for name, text in given.items()
            if name not in _TECHNICAL and not name.startswith(_TECHNICAL_STARTS)
        }
        if _APPLE_LOCATION in given:
            words.setdefault(_LOCATION, given[_APPLE_LOCATION])
        return cls(container.chapters(), words)


def write_head(container: str, tracks: Sequence[HeadTrack], tags: Tags, covers: Sequence[Cover] = ()) -> bytes:
    """Write a file of format `container` with a packet of each track. Raises PyAV's errors if the format cannot hold
    them.
    """
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=_OPTIONS.get(container, {})) as out:
        copies = [out.add_stream_from_template(track.template, opaque=True) for track in tracks]
        for copy, track in zip(copies, tracks, strict=True):
            name_track(copy, track.language, track.title, track.disposition)
        out.metadata.update(tags.words)
        out.set_chapters(tags.chapters)
        pictures = add_covers(out, covers)
        if not tracks:
            _add_blank(out)
        for copy, track in zip(copies, tracks, strict=True):
            out.mux_one(_sample(copy, track.sample))
        out.mux(pictures)
    return file.getvalue()


def add_covers(out: OutputContainer, covers: Sequence[Cover]) -> "list[Packet[Any]]":
    """Add covers behind the tracks of a file whose head is not written yet. Return the packets to mux after it."""
    packets = []
    for cover in covers:
        name, kind = COVERS[cover.template.codec_context.name]
        if out.format.name == "matroska":
            out.add_attachment(name, kind, cover.data)
            continue
        copy = out.add_stream_from_template(cover.template, opaque=True)
        copy.disposition = Disposition.attached_pic
        copy.width, copy.height = copy.width or 1, copy.height or 1  # the muxer asks for a size and does not write it
        packets.append(_sample(copy, cover.data))
    return packets


def cover_streams(container: InputContainer) -> list[Any]:
    """Return the video streams that are covers."""
    return [stream for stream in container.streams.video if stream.disposition & Disposition.attached_pic]


def covers_in(container: InputContainer) -> list[Cover]:
    """Return the covers of an open file from which no packet was read yet."""
    streams = cover_streams(container)
    found: dict[int, Cover] = {}
    for packet in container.demux(streams) if streams else ():
        if packet.size:
            found.setdefault(packet.stream_index, Cover(packet.stream, bytes(packet)))
        if len(found) == len(streams):
            break
    return [found[stream.index] for stream in streams if stream.index in found]


def name_track(stream: Any, language: str, title: str, disposition: int) -> None:
    """Set the language, title and disposition of a track that is not written yet."""
    names = {"language": language, "title": title}
    stream.metadata.update({name: text for name, text in names.items() if text})
    stream.disposition = disposition & ~Disposition.attached_pic


def names_of(stream: Any) -> tuple[str, str]:
    """Return the language and title of a track; empty if it has none."""
    tags = {name.lower(): text for name, text in stream.metadata.items()}
    return tags.get("language", ""), tags.get("title") or tags.get("name", "")  # mp4 calls a title name


def open_head(container: str, data: Buffer) -> InputContainer:
    """Open a head without decoding. Raises MediaError if the data is not a head."""
    try:
        return open_container(data, container, {"codec_whitelist": "none"})
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, MediaError):
            raise
        what = f"the data with the job's tracks is not a {container} file"
        raise MediaError(what, getattr(error, "strerror", "") or "it is damaged") from error


def holds(container: str, track: HeadTrack) -> bool:
    """Return whether a file of format `container` gives the track back unchanged."""
    if container == "mp4" and track.template.codec_context.codec.canonical_name.startswith("pcm_"):
        return False  # mp4 has PCM only with a channel layout, which many sources do not state, and few players read it
    try:
        with open_head(container, write_head(container, [track], Tags())) as back:
            found = back.streams[0].codec_context if back.streams else None
            return found is not None and _parameters(found) == _parameters(track.template.codec_context)
    except (av.error.FFmpegError, ValueError, MediaError):
        return False


def refused(container: str, track: HeadTrack, packets: "Sequence[Packet[Any]]") -> set[int]:
    """Return which of a track's packets a file of format `container` rejects: muxers parse some packets."""
    bad: set[int] = set()
    if not packets:
        return bad
    with suppress(av.error.FFmpegError), av.open(io.BytesIO(), "w", format=container) as out:
        copy = out.add_stream_from_template(track.template, opaque=True)
        out.mux_one(_sample(copy, track.sample))
        for place, packet in enumerate(packets):
            try:
                out.mux_one(_sample(copy, bytes(packet), place + 1))
            except (av.error.FFmpegError, ValueError):
                bad.add(place)
    return bad


def _parameters(codec: Any) -> tuple[Any, ...]:
    name = codec.codec.canonical_name
    if codec.type != "audio" or name == "aac":  # the header of HE-AAC need not state what its decoder finds
        return (name,)
    if name in ("mp1", "mp2", "mp3"):  # mp4 has one name for all three, and each packet states its own kind
        name = "mp3"
    return name, codec.sample_rate, codec.layout.nb_channels


def lost_tags(data: bytes, container: str, tags: Tags) -> list[str]:
    """Return the names of the tags that a head does not give back, and `chapters` if it loses these."""
    with open_head(container, data) as back:
        found = {name.lower() for name in back.metadata}
        lost = sorted(tags.words.keys() - found)
        return lost + ["chapters"] * (len(back.chapters()) != len(tags.chapters))


def holds_covers(data: bytes, container: str, covers: Sequence[Cover]) -> bool:
    """Return whether a head gives its covers back."""
    with open_head(container, data) as back:
        return [cover.data for cover in covers_in(back)] == [cover.data for cover in covers]


def _sample(stream: Any, data: bytes, second: int = 0) -> "Packet[Any]":
    packet: Packet[Any] = Packet(len(data))
    packet.update(data)
    packet.stream, packet.time_base = stream, Fraction(1, 1)
    packet.pts = packet.dts = second
    packet.duration, packet.is_keyframe = 1, True
    return packet


def _add_blank(out: Any) -> None:
    """Add an empty text track: a file without any track cannot hold tags."""
    with suppress(av.error.FFmpegError):
        blank = out.add_stream("mov_text" if out.format.name != "matroska" else "subrip")
        blank.codec_context.subtitle_header = b"[Script Info]\n"
        out.mux_one(_sample(blank, b"\0\0"))
