"""annotated: draws a model's results on the video or picture in which they were found.

With `track = true` boxes of videos have the numbers of their tracks, see `engines.outputs.tracked_video`. With
`lines = true` a part's result has the lines of `detections` too, which become `<target>.jsonl`.

It draws `boxes` with `classes`, `scores`, `keypoints`, `corners` and `masks` (see engines.outputs.objects), the `mask`
of segmentation, and the labels and scores of `classes` or `tags` of a whole picture. The pictures are `plane0` ... or
`pixels`, as in `video`; coordinates are those of the source, and are scaled to the picture.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import Field

from engines.cuda.arrays import GpuRows
from engines.cuda.draw import GpuDrawing
from engines.encoding import Assembler, Encoded, Pictures
from engines.outputs.colour import check_pictures, picture_planes
from engines.outputs.detections import DetectionsAssembler, DetectionsFormat, DetectionsOptions
from engines.outputs.draw import Canvas, channel_paint, ycbcr_paint
from engines.outputs.findings import FORMAT, findings_of
from engines.outputs.image import PictureOptions
from engines.outputs.images import Channels, channels_of, encode_images
from engines.outputs.lines_beside import LinesBeside
from engines.outputs.objects import check_objects
from engines.outputs.overlay import DRAWN, Finding, Wanted
from engines.outputs.picture_format import PictureFormat
from engines.outputs.pictures import encode_file
from engines.outputs.surfaces import HostDrawing, HostSurface
from engines.outputs.tracked_video import TrackedVideo, undrawn
from engines.part import Part, Tick, no_tick
from engines.planned import Tensor
from engines.tracking.media import TrackOptions
from schemas.errors import PipelineError
from schemas.media import MediaInfo
from schemas.model import describe
from schemas.pipeline import EncodeStage


class AnnotatedOptions(PictureOptions, TrackOptions):
    """The options of `image`, and what to write: `labels` and `scores`; keypoints below `least_score` are not drawn.

    `lines`: write the lines of `detections` too. The options of `TrackOptions` are for videos.
    """

    labels: bool = True
    scores: bool = True
    least_score: float = Field(default=0.3, ge=0, le=1)
    lines: bool = False


class AnnotatedFormat(PictureFormat[AnnotatedOptions]):
    """H.264 of video with the source's sound; a file of each image. Planes that are on a GPU are drawn on there."""

    options_class = AnnotatedOptions
    anywhere = True

    def check(self, arrays: Mapping[str, Tensor], media: Sequence[str]) -> None:
        """Check that there are pictures, and something to draw on them."""
        check_pictures(arrays, media, FORMAT)
        if not any(name in arrays for name in DRAWN):
            names = ", ".join(f"`{name}`" for name in DRAWN)
            what = f"format annotated needs one of {names} to draw"
            raise PipelineError(what, "take a model whose card has a head that makes one, or add `keeps`")
        if "boxes" in arrays or self._options.track or self._options.lines:
            check_objects(arrays, FORMAT)
        if "mask" in arrays and (arrays["mask"].dtype != "uint8" or len(arrays["mask"].shape) != 3):
            found = describe(arrays["mask"].dtype, arrays["mask"].shape)
            raise PipelineError(f"`mask` is {found}", "format annotated takes uint8 [W, H, W'], a class for each pixel")

    def encode(self, part: Part, tick: Tick = no_tick) -> Encoded:
        """Return a closed GOP of the part's pictures, or a file of each image; and the lines."""
        timed = part.meta.media.timed
        if timed and not part.meta.pts:
            return Encoded({})
        encoded = self._video(part, tick) if timed else self._images(part.on_host(), tick)
        if not self._options.lines:
            return encoded
        lines = DetectionsFormat(EncodeStage(kind="encode", format="detections"), self._labels).encode(part, tick)
        return replace(encoded, arrays=encoded.arrays | lines.arrays)

    def _video(self, part: Part, tick: Tick) -> Encoded:
        options, encoder = self._options, self.encoder
        planes, colour = picture_planes(part)
        if options.track:
            return undrawn(part, Pictures(planes, colour, part.meta.media), encoder, options, self._labels, tick)
        drawing = GpuDrawing(planes) if isinstance(planes[0], GpuRows) else HostDrawing(planes)
        paint = ycbcr_paint(colour, planes[0].shape[1])
        for number, finding in enumerate(findings_of(part, self._labels, self._wanted)):
            finding.draw(Canvas(drawing.surface(number), paint))
            tick()
        drawn = drawing.finish()
        if not encoder.on_gpu:
            drawn = [np.asarray(plane) for plane in drawn]
        return encoder.encode(Pictures(drawn, colour, part.meta.media), options, tick)

    def assemble(self, target: Path, media: MediaInfo) -> Assembler:
        """Write `<target>.mp4` from the first part on, or the folder `<target>` of images, and the lines."""
        options = self._options
        pictures = super().assemble(target, media)
        if options.track and media.timed:
            pictures = TrackedVideo(target, media, options, options, self._wanted)
        if not options.lines:
            return pictures
        of_lines = DetectionsOptions(**{name: getattr(options, name) for name in TrackOptions.model_fields})
        return LinesBeside(pictures, DetectionsAssembler(target, media, of_lines))

    def _images(self, part: Part, tick: Tick) -> Encoded:
        options = self._options
        pairs = zip(channels_of(part, FORMAT), findings_of(part, self._labels, self._wanted), strict=True)
        pictures = (_drawn(picture, finding) for picture, finding in pairs)
        return encode_images(pictures, lambda each: encode_file(each, options.file, options.quality), tick)

    @property
    def _wanted(self) -> Wanted:
        return Wanted(self._options.labels, self._options.scores, self._options.least_score)


def _drawn(picture: Channels, finding: Finding) -> Channels:
    """Return a copy of a picture with the results drawn on it."""
    if isinstance(picture, np.ndarray):
        picture = (picture,) if picture.ndim == 2 else tuple(picture[..., n] for n in range(picture.shape[2]))
    channels = tuple(np.array(channel) for channel in picture)
    finding.draw(Canvas(HostSurface(channels), channel_paint(len(channels))))
    return channels[0] if len(channels) == 1 else channels
