"""A segment of images to parts: each image has its own outcome, and a bad one does not hurt its neighbours.

FFmpeg decodes jpeg, png and webp, which is the fastest way; Pillow (`engines.media.stills`) decodes all other formats,
and what of these three FFmpeg does not read or reads wrong.

A picture that keeps its size keeps its transparency as a fourth plane. Where a pipeline's layout has no place for it,
it is left out: pixels have the colours that are stored for them, whatever shows through.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import Interpolation, VideoReformatter

from engines.media.decode import Convert
from engines.media.frames import blank_frame, no_frames, stack_frames
from engines.media.limits import DEFAULT_LIMITS, Limits, decoder_options, decoder_pixels
from engines.media.orientation import UPRIGHT, orientation_of
from engines.media.png import without_packed_chunks
from engines.media.reshape import EXACT
from engines.media.shared import NO_FOLDERS, SharedFolders
from engines.media.sniff import formats, has_chunk, image_format, is_animation, reader
from engines.media.stills import Still, decode_still, still_size
from engines.part import Array, Part, Tick, no_tick
from engines.planned import DecodePlan
from schemas.errors import MediaError, RigflowError
from schemas.media import Item
from schemas.parts import PartMeta
from schemas.segments import Segment
from schemas.wire import Buffer

_PART_PIXELS = 24_000_000  # 64 MB of raw frames, about
_PART_FILE_BYTES = 64 << 20
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF markers: all of C0..CF but DHT, JPG and DAC
_JPEG_BARE = frozenset([0x01, *range(0xD0, 0xD9)])  # markers without a length
_JPEG_SEQUENTIAL = range(0xC0, 0xC3)  # baseline, extended and progressive by Huffman codes, which FFmpeg reads
_EXIF = b"Exif\0"  # begins the segment of a jpeg that says how it is turned
_CODECS = {"jpeg": "mjpeg", "png": "png", "webp": "webp"}  # FFmpeg's names
# Colours that are stored at half the size grow by linear interpolation, as in libjpeg and libwebp; otherwise swscale
# repeats them.
_FANCY = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP | EXACT
_WITHOUT_ALPHA = "transparency was left out: the pipeline's layout has no place for it"


class _JpegHeader(NamedTuple):
    """Height and width, the marker that begins the frame and names its kind, and how each component is sampled."""

    size: tuple[int, int]
    marker: int
    sampling: bytes

    @property
    def usual(self) -> bool:
        """Whether it is of the kinds that FFmpeg reads: gray or colours, without the black of CMYK."""
        return self.marker in _JPEG_SEQUENTIAL and len(self.sampling) in (1, 3)

    @property
    def subsampled(self) -> bool:
        """Whether colours are stored at a smaller size."""
        return len(set(self.sampling)) > 1


@dataclass(frozen=True, slots=True)
class _Image:
    """One item and its bytes; its head, unless `item.error` says why it will not be decoded."""

    item: Item
    data: Buffer
    head: "_Head | None" = None

    @property
    def pixels(self) -> int:
        """How many pixels it has."""
        return prod(self.head.size) if self.head else 0


class _Head(NamedTuple):
    """Format, height and width of an image that looks whole, and the header of a jpeg."""

    name: str
    size: tuple[int, int]
    jpeg: _JpegHeader | None


def decode_images(
    segment: Segment,
    buffers: Sequence[Buffer],
    plan: DecodePlan,
    convert: Convert,
    limits: Limits = DEFAULT_LIMITS,
    shared: SharedFolders = NO_FOLDERS,
    tick: Tick = no_tick,
) -> Iterator[Part]:
    """The parts of a segment of images, in order: one at least, the last one marked so.

    `buffers` are the images' files, one an item of the segment; none where the items name files in `shared` folders.
    An image that fails has its reason in `meta.items[i].error`; those that do not have a row each, in order, and a
    window that sees it `T` times. Where what is made of an image depends on its size, each is a part of its own, else a
    part holds what comes to 64 MB of raw frames.
    """
    given = zip(segment.items, buffers, strict=True) if buffers else shared.read(segment.items, limits)
    images = (_inspected(item, data, limits) for item, data in given)
    planes = plan.planes
    for number, (group, last) in enumerate(_groups(images, alone=plan.by_source)):
        rows: list[dict[str, Array]] = []
        items: list[Item] = []
        notes: dict[str, None] = {}
        for image in group:
            item, row = _outcome(image, planes, convert, limits, notes)
            tick()
            items.append(item)
            rows += [row] if row is not None else []
        arrays = stack_frames(rows) if rows else no_frames(convert(blank_frame("rgb24"), UPRIGHT))
        index = np.repeat(np.arange(len(rows), dtype=np.int32)[:, None], plan.grid.frames, axis=1)
        meta = PartMeta(
            key=segment.key.model_copy(update={"part": number, "last": last}),
            media=segment.media,
            pts=(0,) * len(rows),
            items=tuple(items),
            frames=len(rows),
            notes=tuple(notes),
        )
        yield Part(meta, {**arrays, "index": index})


def decode_image(data: Buffer, limits: Limits = DEFAULT_LIMITS) -> Still:
    """The picture of one image file; of several the first. Raises MediaError or ItemTooLarge."""
    return _decoded(data, _checked(data, limits), limits)


def _decoded(data: Buffer, head: _Head, limits: Limits, scaled: bool = False) -> Still:
    """As `decode_image`, for a file that was checked; `scaled`: its picture is going to be made smaller."""
    name, size, _ = head
    if not _suits_ffmpeg(head, data, odd=not scaled and any(side % 2 for side in size)):
        return decode_still(name, data, limits)
    # a decoder each: FFmpeg's png decoder mixes in the image before, its jpeg decoder keeps the tables of that one
    decoder = av.CodecContext.create(_CODECS[name], "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_type, decoder.thread_count = "NONE", 1
    decoder.options = decoder_options(decoder_pixels(*size))  # no more than the header tells
    try:
        frames = decoder.decode(av.Packet(without_packed_chunks(data) if name == "png" else bytes(data)))
    except av.error.FFmpegError as error:
        raise MediaError(f"the {name} image is damaged", "export it again") from error
    if not frames:
        raise MediaError(f"the {name} image has no picture that can be decoded", "export it as png")
    # a frame's side data costs as much as a tenth of decoding it
    turned = name != "jpeg" or _EXIF in bytes(data)
    return Still(frames[0], _has_alpha(name, data), orientation_of(frames[0]) if turned else UPRIGHT)


def _size(name: str | None, data: Buffer, limits: Limits) -> tuple[int, int] | None:
    """`(height, width)` by the header of an image file; None where it has none.

    Raises MediaError and ItemTooLarge for the formats that Pillow reads. Sources: JPEG ITU-T T.81 annex B, PNG
    (ISO 15948) section 11.2.2, the WebP container specification.
    """
    view = memoryview(data)
    if name == "png":
        return (int.from_bytes(view[20:24], "big"), int.from_bytes(view[16:20], "big")) if len(view) >= 24 else None
    if name == "jpeg":
        header = _jpeg_header(view)
        return header and header.size
    if name == "webp":
        return _webp_size(bytes(view[12:30])) if len(view) >= 30 else None
    return still_size(name, data, limits) if name else None


def _inspected(item: Item, data: Buffer, limits: Limits) -> _Image:
    if item.error:
        return _Image(item, data)
    try:
        return _Image(item, data, _checked(data, limits))
    except RigflowError as error:
        return _Image(item.model_copy(update={"error": str(error)}), data)


def _outcome(
    image: _Image, planes: bool, convert: Convert, limits: Limits, notes: dict[str, None]
) -> tuple[Item, dict[str, Array] | None]:
    """The item, with its error if it has one, else with its arrays; what is out of the ordinary goes into `notes`."""
    if image.head is None:
        return image.item, None
    try:
        still = _decoded(image.data, image.head, limits, scaled=not planes)
        row = convert(_plain(still.frame, planes, still.alpha), still.orientation)
    except (RigflowError, av.error.FFmpegError) as error:
        return image.item.model_copy(update={"error": str(error)}), None
    notes |= dict.fromkeys(still.notes)
    if not planes and still.alpha:
        notes[_WITHOUT_ALPHA] = None
    return image.item, row


def _checked(data: Buffer, limits: Limits) -> _Head:
    """The head of an image. Raises ItemTooLarge, and MediaError when it does not look whole."""
    if not len(data):
        raise MediaError("the image is empty", "send the whole file")
    name = image_format(data)
    if name is None:
        raise MediaError("not an image of a format that rigflow reads", f"send {formats()}")
    jpeg = _jpeg_header(memoryview(data)) if name == "jpeg" else None
    size = jpeg.size if jpeg else _size(name, data, limits)
    if size is None or not size[0] * size[1] or not _looks_complete(name, data):
        raise MediaError(f"the {name} image is truncated", "copy or download it again")
    limits.check_pixels("the image", size[1], size[0])
    return _Head(name, size, jpeg)


def _suits_ffmpeg(head: _Head, data: Buffer, odd: bool) -> bool:
    """Whether FFmpeg decodes this file right; `odd`: it is going to keep its size, and a side of it is odd.

    FFmpeg's scaler then stretches colours that are stored at half the size by up to a pixel.
    """
    name, _, jpeg = head
    if jpeg is not None:
        return jpeg.usual and not (odd and jpeg.subsampled)
    if name == "webp" and (is_animation(name, reader(data)) or (odd and b"VP8L" not in bytes(data[:64]))):
        return False
    return name in _CODECS


def _looks_complete(name: str, data: Buffer) -> bool:
    """Whether the file's end is there; FFmpeg's decoders fill what is missing with gray and say nothing."""
    if name == "webp":
        return int.from_bytes(data[4:8], "little") + 8 <= len(data)
    return name not in _CODECS or bytes(data).rfind(b"\xff\xd9" if name == "jpeg" else b"IEND") > 0


def _jpeg_header(view: memoryview) -> _JpegHeader | None:
    at = 2
    while at + 10 <= len(view):
        if view[at] != 0xFF:
            return None
        marker = view[at + 1]
        if marker in _JPEG_FRAMES:
            size = int.from_bytes(view[at + 5 : at + 7], "big"), int.from_bytes(view[at + 7 : at + 9], "big")
            return _JpegHeader(size, marker, bytes(view[at + 11 : at + 10 + 3 * view[at + 9] : 3]))
        if marker == 0xFF or marker in _JPEG_BARE:
            at += 1 if marker == 0xFF else 2
        else:
            at += 2 + int.from_bytes(view[at + 2 : at + 4], "big")
    return None


def _webp_size(chunk: bytes) -> tuple[int, int] | None:
    """Size by the first chunk of a WebP file, `chunk` being its first 18 bytes."""
    kind = chunk[:4]
    if kind == b"VP8X":
        return int.from_bytes(chunk[15:18], "little") + 1, int.from_bytes(chunk[12:15], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(chunk[9:13], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 ":
        return int.from_bytes(chunk[16:18], "little") & 0x3FFF, int.from_bytes(chunk[14:16], "little") & 0x3FFF
    return None


def _groups(images: Iterable[_Image], alone: bool) -> Iterator[tuple[list[_Image], bool]]:
    """The images of each part, in order, and whether it is the last part; no more are held than one part has."""
    group: list[_Image] = []
    pixels = size = 0
    for image in images:
        if group and (alone or pixels + image.pixels > _PART_PIXELS or size + len(image.data) > _PART_FILE_BYTES):
            yield group, False
            group, pixels, size = [], 0, 0
        group.append(image)
        pixels += image.pixels
        size += len(image.data)
    yield group, True


def _has_alpha(name: str, data: Buffer) -> bool:
    """Whether a png or webp has transparency; FFmpeg's frames have a place for it where the file has none."""
    if name == "png":
        return data[25] in (4, 6) or has_chunk(reader(data), b"tRNS")  # the type of its colours
    kind = bytes(data[12:16]) if name == "webp" else b""
    return bool((kind == b"VP8X" and data[20] & 16) or (kind == b"VP8L" and data[24] & 16))


def _plain(frame: av.VideoFrame, planes: bool, alpha: bool) -> av.VideoFrame:
    """The frame in a pixel format that needs no palette, and in RGB or RGBA where planes are wanted."""
    name = frame.format.name
    if not planes and name != "pal8":
        return frame
    layout = "rgba" if alpha and planes else "rgb24"
    matrix = 5  # JFIF and WebP: BT.601 whatever the size
    return VideoReformatter().reformat(frame, format=layout, src_colorspace=matrix, interpolation=_FANCY, threads=1)
