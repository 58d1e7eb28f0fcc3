"""Makes all frames of a media alike before any other step, and describes the resulting pictures.

A container may omit a frame's colours, a stream may change in its middle, fields may be woven into one frame, and there
are many pixel formats. After this module all frames of a media are alike, and `presented` describes them.
"""

import threading
from fractions import Fraction
from typing import Self, cast

import av

from engines.media.colours import (
    BT709,
    HDR,
    LIMITED,
    UNNAMED,
    frame_formats,
    has_alpha,
    plane_format,
    plane_range,
    source_matrix,
    what_changes,
)
from engines.media.filters import FrameFilter
from engines.media.orientation import UPRIGHT, transposes
from engines.media.reshape import Reshape, is_transparent
from engines.options import Options, parse_decode_options
from engines.planned import DecodePlan
from schemas.media import MediaInfo

_NO_RANGE, _BT2020 = 0, 9
_kept = threading.local()
_TONE_MAPPED = "yuv420p"
_TRANSPARENT = "transparency is left out"
# FFmpeg's own mapping, from the light level that the file states (10,000 cd/m2 if it states none) to that of BT.709
_TONE_MAP = (
    "out_color_matrix=bt709:out_primaries=bt709:out_transfer=bt709:out_range=limited:intent=perceptual"
    ":flags=bicubic+accurate_rnd+bitexact"
)


class VideoDecodeOptions(Options):
    """The decode stage's options for video.

    `deinterlace` makes whole pictures of frames that are coded as two fields, `tonemap` BT.709 of PQ and HLG.
    """

    deinterlace: bool = False
    tonemap: bool = False

    @classmethod
    def of(cls, plan: DecodePlan) -> Self:
        """Return those of a plan. Raises PipelineError."""
        return parse_decode_options(cls, plan.stage)


def presented(media: MediaInfo, plan: DecodePlan) -> MediaInfo:
    """Return `media` as a pipeline's decode delivers it: upright, scaled, with its colours set.

    `sample_aspect` is the shape of the pixels of the scaled picture, so that it is still shown in the source's shape.
    """
    shown = plan.shown
    height, width, aspect = media.height, media.width, Fraction(*media.sample_aspect)
    if transposes(media.orientation):
        height, width, aspect = width, height, 1 / aspect if aspect else aspect
    if shown and shown.size != "source":
        if shown.fit == "stretch" and height and width:
            aspect = (aspect or Fraction(1)) * Fraction(width, height) * Fraction(*shown.size)
        height, width = shown.size
    changes: dict[str, object] = {"orientation": UPRIGHT, "height": height, "width": width}
    changes["sample_aspect"] = _ratio(aspect)
    return media.model_copy(update=changes | _colours(media, plan))


def _colours(media: MediaInfo, plan: DecodePlan) -> dict[str, object]:
    if VideoDecodeOptions.of(plan).tonemap and media.color_transfer in HDR:
        named = {"color_space": BT709, "color_primaries": BT709, "color_transfer": BT709, "color_range": LIMITED}
        return {**named, "pixel_format": _TONE_MAPPED}
    name = media.pixel_format
    colours: dict[str, object] = {"color_space": source_matrix(media.color_space, media.height)}
    if name and plan.planes:
        colours |= {
            "pixel_format": plane_format(name, transposes(media.orientation)),
            "color_range": plane_range(name, media.color_range),
        }
    return colours


def _ratio(value: Fraction) -> tuple[int, int]:
    near = value.limit_denominator(1 << 15)
    return near.numerator, near.denominator


def _tone_map() -> FrameFilter:
    """Return this thread's filter. It is reused for all segments: FFmpeg needs seconds to compute its colour table."""
    if not hasattr(_kept, "tone_map"):
        _kept.tone_map = FrameFilter(("scale", _TONE_MAP), ("format", _TONE_MAPPED))
    return cast(FrameFilter, _kept.tone_map)


class Uniform:
    """Makes every frame of a media alike, and notes anything unusual. Not thread-safe."""

    def __init__(self, media: MediaInfo, plan: DecodePlan, notes: dict[str, None]) -> None:
        self._media = media
        self._shown = presented(media, plan)
        self._planes = plan.planes
        options = VideoDecodeOptions.of(plan)
        self._deinterlace = options.deinterlace
        self._tonemap = options.tonemap and media.color_transfer in HDR
        turned = self._planes and self._shown.pixel_format != plane_format(media.pixel_format)
        self._host_only = self._tonemap or turned  # no GPU kernel does these
        name = media.pixel_format
        wanted = self._shown.pixel_format if self._planes else name and frame_formats(name)[-1]
        as_it_is = name and name == wanted and not self._tonemap
        self._plain = (name, media.height, media.width) if as_it_is else None  # most frames need no conversion
        self._has_alpha = bool(name) and has_alpha(name)
        self._notes = notes
        # it uses only lines of this frame: yadif uses the frames before and after, which may be in another segment
        self._from_fields = FrameFilter(("estdif", "mode=frame:deint=interlaced"), waits=True)
        self._as_progressive = FrameFilter(("setparams", "field_mode=prog"))
        self._reshape = Reshape()
        self._note_format()

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return the frame at the media's size, in its colours, progressive, and in the format of its planes if set."""
        media = self._media
        if int(frame.colorspace) in UNNAMED:
            frame.colorspace = self._shown.color_space if not self._tonemap else media.color_space
        if int(frame.color_range) == _NO_RANGE:
            frame.color_range = media.color_range
        fields, name = frame.interlaced_frame, frame.format.name
        if self._has_alpha and _TRANSPARENT not in self._notes and is_transparent(frame):
            self._notes[_TRANSPARENT] = None
        if not fields and (name, frame.height, frame.width) == self._plain:
            return frame
        if fields:
            self._note_fields()
        same_size = (frame.height, frame.width) == (media.height, media.width)
        if name == "cuda":
            if same_size and not self._host_only and not (fields and self._deinterlace):
                return frame
            frame = frame.reformat(format=media.pixel_format or _TONE_MAPPED)
        if not same_size or (media.pixel_format and self._planes and frame.format.name != media.pixel_format):
            self._notes["the picture's size or format changes in mid-stream; it was brought back to the first"] = None
        if fields:
            frame = (self._from_fields if self._deinterlace else self._as_progressive)(frame)
        if self._tonemap:
            frame = self._tone_mapped(frame)
        return self._shaped(frame)

    def _shaped(self, frame: av.VideoFrame) -> av.VideoFrame:
        name, size = frame.format.name, (self._media.height, self._media.width)
        for step in frame_formats(name):
            frame = self._reshape(frame, step, (frame.height, frame.width))
        if not self._planes:
            return self._reshape(frame, frame.format.name, size)
        wanted = self._shown.pixel_format or plane_format(name)
        return self._reshape(frame, wanted, size, self._shown.color_range or None)

    def _tone_mapped(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Convert a frame of PQ or HLG, which its container may have failed to state, to BT.709."""
        media = self._media
        frame.color_trc, frame.color_primaries = media.color_transfer, media.color_primaries
        if int(frame.colorspace) in UNNAMED:
            frame.colorspace = _BT2020
        return _tone_map()(frame)

    def _note_format(self) -> None:
        name, shown = self._media.pixel_format, self._shown.pixel_format
        if name != shown and (changes := what_changes(name, shown)):
            self._notes[f"pixels are converted from {name} to {shown}: {changes}"] = None
        hdr = HDR.get(self._shown.color_transfer)
        if hdr:
            what = f"its colours are HDR ({hdr}) and stay so in 8 bits"
            self._notes[f"{what}: `tonemap = true` in the decode stage makes BT.709 of them"] = None
        if self._tonemap:
            self._notes[f"{HDR[self._media.color_transfer]} was tone-mapped to BT.709"] = None

    def _note_fields(self) -> None:
        done = "deinterlaced" if self._deinterlace else "fields stay woven; `deinterlace = true` in the decode stage"
        self._notes[f"it is interlaced: {done}" + ("" if self._deinterlace else " makes whole pictures of them")] = None
