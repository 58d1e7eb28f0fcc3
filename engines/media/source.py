"""Opens media from a file or from memory. Every failure becomes one line that says what to do."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from engines.media.container import open_container, open_file, read_head
from engines.media.limits import DEFAULT_LIMITS, Limits, decoder_options
from engines.media.png import without_packed_chunks
from engines.media.read_at import ReadAt, reader
from engines.media.sniff import HEAD_BYTES, formats, image_format, is_animation
from schemas.errors import MediaError, OtherMedia, UsageError
from schemas.wire import Buffer

Source: TypeAlias = Path | Buffer
AnyStream: TypeAlias = VideoStream | AudioStream
StreamT = TypeVar("StreamT", VideoStream, AudioStream)

_PNG_CODEC = "png"
_ONE_JPEG = (".jpg", ".jpeg")
_MP4 = b"ftyp"  # from the fifth byte on
_UNREADABLE = (av.error.FFmpegError, OSError, ValueError)  # ValueError: no pixel format of that name
_DECLARED = ("h264", "hevc")  # an mp4 has their parameter sets in its header


def readable_head(source: Source) -> bytes:
    """Return the first `HEAD_BYTES` of a source. Raises UsageError or MediaError if it cannot be read or is empty."""
    label = str(source) if isinstance(source, Path) else "the media"
    try:  # for thousands of images, `media_errors` would cost a tenth of this
        head = head_of(source)
    except _UNREADABLE as error:
        raise _in_words(label, error) from error
    if not head:
        raise _empty(label)
    return head


def is_still(head: bytes, source: Source, name: str = "") -> bool | None:
    """Return True for a file of one image, False for an animation, None for other files.

    Several jpegs one after the other are an animation, except in a file that is called .jpg or .jpeg, as in FFmpeg:
    otherwise all photos of a folder would have to be read from end to end. `name` is that of a source in memory.

    Raises UsageError or MediaError if it cannot be read.
    """
    found = image_format(head)
    if found is None:
        return None
    file_name = source.name if isinstance(source, Path) else name
    if found == "jpeg" and file_name.lower().endswith(_ONE_JPEG):
        return True
    if found in ("gif", "jpeg") or (found == "png" and b"IDAT" not in head):  # the head does not show it
        with media_errors(file_name or "the media"), reading(source) as read:
            return not is_animation(found, read)
    return not is_animation(found, reader(head))


@contextmanager
def media_errors(label: str) -> Iterator[None]:
    """Map errors of PyAV and the system about the media called `label` to UsageError or MediaError."""
    try:
        yield
    except _UNREADABLE as error:
        raise _in_words(label, error) from error


def _in_words(label: str, error: Exception) -> UsageError | MediaError:
    if isinstance(error, FileNotFoundError):
        return UsageError(f"{label}: no such file", "check the path")
    if isinstance(error, IsADirectoryError):
        return UsageError(f"{label} is a directory", "name the files in it")
    if isinstance(error, PermissionError):
        return UsageError(f"{label} cannot be read: permission denied", "check its owner and mode")
    if isinstance(error, UnicodeDecodeError):
        return MediaError(f"{label} has metadata that is not UTF-8", "remux it: ffmpeg -i IN -c copy OUT.mkv")
    if isinstance(error, av.error.PatchWelcomeError):
        what = "is written in a way that FFmpeg cannot read, as are Ogg files whose channels change inside"
        return MediaError(f"{label} {what}", "convert it with the program that made it")
    reason = getattr(error, "strerror", None) or str(error)
    return MediaError(f"{label}: {reason}", "see whether `ffprobe` can read it")


@contextmanager
def open_media(
    source: Source,
    container: str | None = None,
    label: str = "",
    decoders: bool = True,
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[InputContainer]:
    """Open a container to read `source`; `container` names its format if it is known.

    Without `decoders` FFmpeg decodes no frame to learn about the streams (0.5 ms instead of 16 for 720p). That is
    enough for times, but not for pixel formats.

    PyAV's errors inside the `with` block are mapped as well. Raises UsageError (no such file, a directory, not allowed)
    and MediaError (empty, not media, truncated).
    """
    name = label or (str(source) if isinstance(source, Path) else "the media")
    with media_errors(name), _open(source, container, name, decoders, limits) as opened:
        yield opened


@contextmanager
def open_picture(
    source: Source, container: str | None = None, label: str = "", limits: Limits = DEFAULT_LIMITS
) -> Iterator[InputContainer]:
    """Open as `open_media` does, for the picture alone: no frame is decoded for information that the header has.

    Pixel format, pixel aspect and colours may then be unknown until the first frame is decoded.
    """
    name = label or (str(source) if isinstance(source, Path) else "the media")
    with media_errors(name):
        is_mp4 = head_of(source)[4:8] == _MP4
    if is_mp4:
        with open_media(source, container, label, decoders=False, limits=limits) as opened:
            pictures = [stream.codec_context for stream in opened.streams.video]
            if all(picture and picture.name in _DECLARED and picture.extradata for picture in pictures):
                yield opened
                return
    with open_media(source, container, label, limits=limits) as opened:
        yield opened


def picture_stream(
    container: InputContainer, label: str, limits: Limits = DEFAULT_LIMITS, number: int | None = None
) -> VideoStream:
    """Choose the stream to read: FFmpeg's best video stream that is neither cover art nor of an unknown codec.

    With `number` it is the container's stream of that index, as `ffprobe` counts them.

    Its decoder is set to one thread: frame threads give other frames on damaged streams, and parallelism is by segment.
    Raises MediaError if there is none, and ItemTooLarge if its header states too large pictures; the decoder refuses
    too large pictures that the header does not state.
    """
    streams = _pictures(container)
    usable = [stream for stream in streams if stream.codec_context is not None]
    if not usable:
        if streams:
            raise MediaError(f"{label} has video of a codec that FFmpeg cannot decode", "convert it to H.264")
        if container.streams.video:
            raise OtherMedia(f"{label} has a cover picture and no video", "extract the picture, or give a video")
        raise OtherMedia(f"{label} has no video stream", "give a file with a picture")
    best = container.streams.best("video")
    stream = best if isinstance(best, VideoStream) and best in usable else max(usable, key=_rank)
    if number is not None:
        stream = numbered(usable, number, "video stream", label)
    limits.check_pixels(label, stream.width, stream.height)
    stream.codec_context.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    stream.codec_context.options = decoder_options(limits.pixels)
    return stream


def time_base(stream: AnyStream) -> Fraction:
    """Return the seconds of one unit of a stream's times."""
    return stream.time_base or Fraction(1)


def packets_of(container: InputContainer, *streams: AnyStream) -> "Iterator[Packet[Any]]":
    """Yield all packets of `streams`, and an empty one at the end of each, as PyAV gives them.

    Damage may make a container report a new stream half-way. PyAV raises IndexError at its first packet, which is
    skipped. Pngs come without the chunks that FFmpeg would unpack without a limit.
    """
    pngs = {stream.index for stream in streams if stream.codec_context.name == _PNG_CODEC}
    while True:
        try:
            for packet in container.demux(*streams):
                if packet.size and packet.stream_index in pngs:
                    # a packet keeps its size; decoders stop at the chunk IEND
                    packet.update(without_packed_chunks(memoryview(packet)).ljust(packet.size, b"\0"))
                yield packet
            return
        except IndexError:
            continue


def _open(source: Source, container: str | None, label: str, decoders: bool, limits: Limits) -> InputContainer:
    with open_file(source) if isinstance(source, Path) else nullcontext(source) as given:
        head = os.pread(given, HEAD_BYTES, 0) if isinstance(given, int) else bytes(given[:HEAD_BYTES])
        if not head:
            raise _empty(label)
        options = {}
        if head[4:8] == _MP4:
            options["probesize"] = "32"  # an mp4's header is enough
        if image_format(head) == "jpeg":
            container = "mjpeg"  # by default FFmpeg reads only the first picture
        try:
            opened = open_container(given, container, {**options, "codec_whitelist": "none"})
            if len(_pictures(opened)) > 1:
                options, decoders = {}, True  # FFmpeg examines the streams to choose the best
            if not decoders or _PNG_CODEC in _codecs(opened):  # packets go through `packets_of` before a decoder
                return opened
            opened.close()
            return open_container(given, container, options, decoder_options(limits.pixels))
        except (av.error.InvalidDataError, av.error.ArgumentError, av.error.EOFError) as error:
            raise _unreadable(head, label) from error


def _pictures(container: InputContainer) -> list[VideoStream]:
    """Return the video streams that are no cover art."""
    return [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]


def numbered(usable: Sequence[StreamT], number: int, what: str, label: str) -> StreamT:
    """Return the stream of that number in the container. Raises MediaError; `what` they are called, for errors."""
    for stream in usable:
        if stream.index == number:
            return stream
    numbers = ", ".join(str(stream.index) for stream in usable)
    raise MediaError(f"{label} has no {what} {number}", f"choose by --stream one of those that it has: {numbers}")


def changed(label: str) -> MediaError:
    """Return the error of a file that was written to while it was read."""
    return MediaError(f"{label} changed while it was read", "wait until no program writes to it")


def _rank(stream: VideoStream) -> tuple[bool, int]:
    """Return the sort key by which FFmpeg prefers a stream, for files whose best stream is cover art."""
    return bool(stream.disposition & Disposition.default), stream.bit_rate or 0


def _codecs(container: InputContainer) -> set[str]:
    return {stream.codec_context.name for stream in container.streams.video if stream.codec_context is not None}


def _empty(label: str) -> MediaError:
    return MediaError(f"{label} is empty", "copy or send it again")


@contextmanager
def reading(source: Source) -> Iterator[ReadAt]:
    """Yield a function that reads a source's bytes by their offset. Raises as `open_file`."""
    with open_file(source) if isinstance(source, Path) else nullcontext(source) as given:
        yield reader(given)


def head_of(source: Source) -> bytes:
    """Return the first `HEAD_BYTES` of a source. Raises as `read_head`."""
    if isinstance(source, Path):
        return read_head(source, HEAD_BYTES)
    return bytes(source[:HEAD_BYTES])


def _unreadable(head: bytes, label: str) -> MediaError:
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return MediaError(f"{label} is a truncated mp4: its index is missing or cut short", "copy or download it again")
    what = f"{label} is no video, sound or picture that rigflow reads"
    return MediaError(what, f"send video as mp4, mkv or webm, sound as wav, mp3 or flac, images as {formats()}")
