"""Decodes a segment of images to parts. Each image has its own outcome: a bad one does not affect the others.

FFmpeg decodes jpeg, png and webp, which is the fastest way to planes and to small pictures. Pillow
(`engines.media.stills`) decodes all other formats, and files of these three that FFmpeg does not read or reads wrong.
It decodes jpeg and webp, too, where a filter reads all pixels in RGB: it is faster then, and gives the colours that
models were trained with.

A picture that keeps its size keeps its transparency as a fourth plane. If a pipeline's layout has no such plane, the
transparency is left out: pixels have their stored colours, even where they are transparent.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import NamedTuple

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import Interpolation, VideoReformatter

from engines.media.decode import Convert
from engines.media.frames import blank_frame, no_frames, stack_frames
from engines.media.jpeg import JpegHeader, has_end, jpeg_header
from engines.media.limits import DEFAULT_LIMITS, Limits, decoder_options, decoder_pixels
from engines.media.orientation import UPRIGHT, orientation_of
from engines.media.pieces import most_images
from engines.media.png import has_chunk, without_packed_chunks
from engines.media.read_at import reader
from engines.media.reshape import EXACT, is_transparent
from engines.media.shared import NO_FOLDERS, SharedFolders
from engines.media.sniff import formats, image_format, is_animation
from engines.media.stills import Decoded, Still, as_frame, decode_still, still_size
from engines.part import Array, Part, Tick, no_tick
from engines.planned import DecodePlan
from schemas.errors import MediaError, RigflowError
from schemas.media import Item
from schemas.parts import PartMeta
from schemas.segments import Segment
from schemas.wire import Buffer

_PART_PIXELS = 60_000_000  # of files: a tenth of a second of decoding, for which other work waits
_PART_FILE_BYTES = 64 << 20
_CODECS = {"jpeg": av.Codec("mjpeg", "r"), "png": av.Codec("png", "r"), "webp": av.Codec("webp", "r")}
# Interpolate colours that are stored at half the size linearly, as libjpeg and libwebp do; otherwise swscale repeats
# them.
_FANCY = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP | EXACT
_WITHOUT_ALPHA = "transparency of images that have some was left out: the pipeline's layout has no place for it"
_DAMAGED = "where an image is damaged, what is missing is gray"


@dataclass(frozen=True, slots=True)
class _Image:
    """One item and its bytes; `head` is set unless `item.error` is."""

    item: Item
    data: Buffer
    head: "_Head | None" = None

    @property
    def pixels(self) -> int:
        """Return the number of pixels."""
        return prod(self.head.size) if self.head else 0


_DEEP = {  # pixel formats with 16 bits a sample, and what they become
    f"{name}{end}": to
    for name, to in (("gray16", "gray"), ("rgb48", "rgb24"), ("rgba64", "rgba"))
    for end in ("be", "le")
}


class _Head(NamedTuple):
    """Format, height and width of an image that appears complete, and the header of a jpeg."""

    name: str
    size: tuple[int, int]
    jpeg: JpegHeader | None


def decode_images(
    segment: Segment,
    buffers: Sequence[Buffer],
    plan: DecodePlan,
    convert: Convert,
    limits: Limits = DEFAULT_LIMITS,
    shared: SharedFolders = NO_FOLDERS,
    tick: Tick = no_tick,
) -> Iterator[Part]:
    """Yield the parts of a segment of images in order: at least one; the last one is marked as last.

    `buffers` are the images' files, one for each item of the segment; there are none if the items name files in
    `shared` folders. If an image fails, `meta.items[i].error` has the reason, and `meta.lost` counts it. Each other
    image has one row, in order, and one window that uses it `T` times. If the arrays of an image depend on its size,
    each image is a part of its own; otherwise a part holds at most 64 MB of pictures, of files of 60 million pixels.
    """
    given = zip(segment.items, buffers, strict=True) if buffers else shared.read(segment.items, limits)
    images = (_inspected(item, data, limits) for item, data in given)
    for number, (group, last) in enumerate(_groups(images, most_images(plan, segment.media))):
        rows: list[dict[str, Array]] = []
        items: list[Item] = []
        notes: dict[str, None] = {}
        for image in group:
            item, row = _outcome(image, plan, convert, limits, notes)
            tick()
            items.append(item)
            rows += [row] if row is not None else []
        arrays = stack_frames(rows) if rows else no_frames(convert(blank_frame(), UPRIGHT))
        index = np.repeat(np.arange(len(rows), dtype=np.int32)[:, None], plan.grid.frames, axis=1)
        meta = PartMeta(
            key=segment.key.model_copy(update={"part": number, "last": last}),
            media=segment.media,
            pts=(0,) * len(rows),
            items=tuple(items),
            frames=len(rows),
            lost=len(items) - len(rows),
            notes=tuple(notes),
        )
        yield Part(meta, {**arrays, "index": index})


def decode_image(data: Buffer, limits: Limits = DEFAULT_LIMITS) -> Still:
    """Decode one image file; of several pictures the first. Raises MediaError or ItemTooLarge."""
    return _decoded(data, _checked(data, limits), limits)


def _decoded(data: Buffer, head: _Head, limits: Limits, scaled: bool = False, filtered: bool = False) -> Still:
    """Decode as `decode_image` does, a file that was checked.

    `scaled`: its picture will be made smaller; `filtered`: of all its pixels, in RGB.
    """
    name, size, jpeg = head
    if (filtered and name != "png") or not _suits_ffmpeg(head, data, odd=not scaled and any(side % 2 for side in size)):
        return decode_still(name, data, limits)
    # a new decoder for each: FFmpeg's png decoder blends in the image before, and its jpeg decoder keeps that one's
    # tables
    decoder = av.CodecContext.create(_CODECS[name])
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_type, decoder.thread_count = "NONE", 1
    strict = {"err_detect": "explode"} if name == "jpeg" else {}  # otherwise it makes what is missing green
    decoder.options = decoder_options(decoder_pixels(*size)) | strict  # no more than the header states
    try:
        frames = decoder.decode(av.Packet(without_packed_chunks(data) if name == "png" else bytes(data)))
    except av.error.FFmpegError as error:
        if name == "jpeg":
            still = decode_still(name, data, limits)
            return replace(still, notes=(*still.notes, _DAMAGED))
        raise MediaError(f"the {name} image is damaged", "export it again") from error
    if not frames:
        raise MediaError(f"the {name} image has no picture that can be decoded", "export it as png")
    # to read a frame's side data costs as much as a tenth of decoding a small one
    turned = jpeg is None or jpeg.exif
    orientation = orientation_of(frames[0]) if turned else UPRIGHT
    return Still(_of_8_bits(frames[0]), _has_alpha(name, data), orientation)


def _size(name: str | None, data: Buffer, limits: Limits) -> tuple[int, int] | None:
    """Return `(height, width)` by the header of an image file; None if it has none.

    Raises MediaError and ItemTooLarge for the formats that Pillow reads. Sources: JPEG ITU-T T.81 annex B, PNG (ISO
    15948) section 11.2.2, the WebP container specification.
    """
    view = memoryview(data)
    if name == "png":
        return (int.from_bytes(view[20:24], "big"), int.from_bytes(view[16:20], "big")) if len(view) >= 24 else None
    if name == "jpeg":
        header = jpeg_header(reader(view))
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
    image: _Image, plan: DecodePlan, convert: Convert, limits: Limits, notes: dict[str, None]
) -> tuple[Item, dict[str, Array] | None]:
    """Return the item with its error, or else with its arrays; anything unusual is added to `notes`."""
    if image.head is None:
        return image.item, None
    planes, alpha = plan.planes, plan.alpha
    try:
        still = _decoded(image.data, image.head, limits, scaled=not planes, filtered=plan.filtered and not planes)
        row = convert(_plain(still.decoded, planes, alpha and still.alpha), still.orientation)
    except (RigflowError, av.error.FFmpegError) as error:
        return image.item.model_copy(update={"error": str(error)}), None
    notes |= dict.fromkeys(still.notes)
    if not alpha and still.alpha and _WITHOUT_ALPHA not in notes and is_transparent(still.frame):
        notes[_WITHOUT_ALPHA] = None
    return image.item.model_copy(update={"gray": still.gray}), row


def _checked(data: Buffer, limits: Limits) -> _Head:
    """Return the head of an image. Raises ItemTooLarge, and MediaError if it does not appear complete."""
    if not len(data):
        raise MediaError("the image is empty", "send the whole file")
    name = image_format(data)
    if name is None:
        raise MediaError("not an image of a format that rigflow reads", f"send {formats()}")
    jpeg = jpeg_header(reader(data)) if name == "jpeg" else None
    size = jpeg.size if jpeg else _size(name, data, limits)
    if size is None or not size[0] * size[1] or not _looks_complete(name, data):
        raise MediaError(f"the {name} image is truncated", "copy or download it again")
    limits.check_pixels("the image", size[1], size[0])
    return _Head(name, size, jpeg)


def _suits_ffmpeg(head: _Head, data: Buffer, odd: bool) -> bool:
    """Return whether FFmpeg decodes this file right; `odd`: it keeps its size, and a side of it is odd.

    With an odd side, FFmpeg's scaler stretches colours that are stored at half the size by up to a pixel.
    """
    name, _, jpeg = head
    if jpeg is not None:
        return jpeg.usual and not (odd and jpeg.subsampled)
    if name == "webp" and (is_animation(name, reader(data)) or (odd and b"VP8L" not in bytes(data[:64]))):
        return False
    return name in _CODECS


def _looks_complete(name: str, data: Buffer) -> bool:
    """Return whether the file's end is present; FFmpeg's decoders fill missing data with gray and report no error."""
    if name == "webp":
        return int.from_bytes(data[4:8], "little") + 8 <= len(data)
    if name == "jpeg":
        return has_end(data)
    return name != "png" or bytes(data).rfind(b"IEND") > 0


def _webp_size(chunk: bytes) -> tuple[int, int] | None:
    """Return the size by the first chunk of a WebP file; `chunk` is its first 18 bytes."""
    kind = chunk[:4]
    if kind == b"VP8X":
        return int.from_bytes(chunk[15:18], "little") + 1, int.from_bytes(chunk[12:15], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(chunk[9:13], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 ":
        return int.from_bytes(chunk[16:18], "little") & 0x3FFF, int.from_bytes(chunk[14:16], "little") & 0x3FFF
    return None


def _groups(images: Iterable[_Image], most: int) -> Iterator[tuple[list[_Image], bool]]:
    """Yield up to `most` images of each part, in order, and whether it is the last; one part is held in memory."""
    group: list[_Image] = []
    pixels = size = 0
    for image in images:
        full = pixels + image.pixels > _PART_PIXELS or size + len(image.data) > _PART_FILE_BYTES
        if group and (full or len(group) == most):
            yield group, False
            group, pixels, size = [], 0, 0
        group.append(image)
        pixels += image.pixels
        size += len(image.data)
    yield group, True


def _has_alpha(name: str, data: Buffer) -> bool:
    """Return whether a png or webp has transparency; FFmpeg's frames have an alpha plane even if the file has none."""
    if name == "png":
        return data[25] in (4, 6) or has_chunk(reader(data), b"tRNS")  # the colour type
    kind = bytes(data[12:16]) if name == "webp" else b""
    return bool((kind == b"VP8X" and data[20] & 16) or (kind == b"VP8L" and data[24] & 16))


def _of_8_bits(frame: av.VideoFrame) -> av.VideoFrame:
    """Round samples of 16 bits to 8: `255 / 65535` of them; FFmpeg's scaler rounds otherwise."""
    layout = _DEEP.get(frame.format.name)
    if layout is None:
        return frame
    deep = frame.to_ndarray().astype(np.uint32)
    return av.VideoFrame.from_ndarray(((deep * 255 + 32767) // 65535).astype(np.uint8), layout)


def _plain(picture: Decoded, planes: bool, alpha: bool) -> Decoded:
    """Convert a picture to a pixel format without a palette, to RGBA if `alpha` is, and to RGB if planes are wanted."""
    paletted = isinstance(picture, av.VideoFrame) and picture.format.name == "pal8"
    if not planes and not alpha and not paletted:
        return picture
    frame = as_frame(picture)
    layout = "rgba" if alpha else "rgb24"
    matrix = 5  # JFIF and WebP: BT.601 whatever the size
    return VideoReformatter().reformat(frame, format=layout, src_colorspace=matrix, interpolation=_FANCY, threads=1)
