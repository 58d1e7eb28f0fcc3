"""annotated: draws a model's results on the video or picture in which they were found.

It draws `boxes` with `classes`, `scores`, `keypoints`, `corners` and `masks` (see engines.outputs.objects), the `mask`
of segmentation, and the labels and scores of `classes` or `tags` of a whole picture. The pictures are `plane0` ... or
`pixels`, as in `video`; coordinates are those of the source, and are scaled to the picture.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from pydantic import Field

from engines.cuda.arrays import GpuRows
from engines.cuda.draw import GpuDrawing
from engines.encoding import Encoded, Pictures
from engines.outputs.base import check_rows, is_output, row_of
from engines.outputs.colour import check_pictures, picture_planes
from engines.outputs.draw import Canvas, channel_paint, ycbcr_paint
from engines.outputs.image import PictureOptions
from engines.outputs.images import Channels, channels_of, encode_images
from engines.outputs.objects import check_objects, objects_of, source_sizes
from engines.outputs.overlay import DRAWN, Finding, Wanted
from engines.outputs.picture_format import PictureFormat
from engines.outputs.pictures import encode_file
from engines.outputs.surfaces import HostDrawing, HostSurface
from engines.part import Part, Tick, Value, no_tick
from engines.planned import Tensor
from schemas.errors import PipelineError
from schemas.model import describe

_NAME = "annotated"
_OF_PICTURES = ("mask", "classes", "tags", "scores")


class AnnotatedOptions(PictureOptions):
    """The options of `image`, and what to write: `labels` and `scores`; keypoints below `least_score` are not drawn."""

    labels: bool = True
    scores: bool = True
    least_score: float = Field(default=0.3, ge=0, le=1)


class AnnotatedFormat(PictureFormat[AnnotatedOptions]):
    """H.264 of video with the source's sound; a file of each image. Planes that are on a GPU are drawn on there."""

    options_class = AnnotatedOptions
    anywhere = True

    def check(self, arrays: Mapping[str, Tensor], media: Sequence[str]) -> None:
        """Check that there are pictures, and something to draw on them."""
        check_pictures(arrays, media, _NAME)
        if not any(name in arrays for name in DRAWN):
            names = ", ".join(f"`{name}`" for name in DRAWN)
            what = f"format annotated needs one of {names} to draw"
            raise PipelineError(what, "take a model whose card has a head that makes one, or add `keeps`")
        if "boxes" in arrays:
            check_objects(arrays, _NAME)
        if "mask" in arrays and (arrays["mask"].dtype != "uint8" or len(arrays["mask"].shape) != 3):
            found = describe(arrays["mask"].dtype, arrays["mask"].shape)
            raise PipelineError(f"`mask` is {found}", "format annotated takes uint8 [W, H, W'], a class for each pixel")

    def encode(self, part: Part, tick: Tick = no_tick) -> Encoded:
        """Return a closed GOP of the part's pictures, or a file of each image."""
        options = self._options
        if not part.meta.media.timed:
            part = part.on_host()
            pairs = zip(channels_of(part, _NAME), self._findings(part), strict=True)
            pictures = (_drawn(picture, finding) for picture, finding in pairs)
            return encode_images(pictures, lambda each: encode_file(each, options.file, options.quality), tick)
        if not part.meta.pts:
            return Encoded({})
        encoder = self.encoder
        planes, colour = picture_planes(part)
        drawing = GpuDrawing(planes) if isinstance(planes[0], GpuRows) else HostDrawing(planes)
        paint = ycbcr_paint(colour, planes[0].shape[1])
        for number, finding in enumerate(self._findings(part)):
            finding.draw(Canvas(drawing.surface(number), paint))
            tick()
        drawn = drawing.finish()
        if not encoder.on_gpu:
            drawn = [np.asarray(plane) for plane in drawn]
        return encoder.encode(Pictures(drawn, colour, part.meta.media), options, tick)

    def _findings(self, part: Part) -> Iterator[Finding]:
        """Yield what to draw on the picture of each window."""
        part = part.with_arrays({name: each for name, each in part.arrays.items() if is_output(name)}).on_host()
        held: Mapping[str, Value] = part.arrays
        wanted = Wanted(self._options.labels, self._options.scores, self._options.least_score)
        objects = objects_of(part, _NAME) if "boxes" in held else iter([None] * len(part.meta.pts))
        whole = {name: held[name] for name in _OF_PICTURES if name in held}
        for name, array in whole.items():
            check_rows(name, array, len(part.meta.pts))
        for number, (size, found) in enumerate(zip(source_sizes(part), objects, strict=True)):
            rows = {name: row_of(array, number) for name, array in whole.items()}
            if "mask" in rows and (rows["mask"].ndim != 2 or rows["mask"].dtype != np.uint8):
                raise PipelineError("`mask` is no uint8 [W, H, W']", "format annotated takes a class for each pixel")
            yield Finding(size, found, rows, self._labels, wanted)


def _drawn(picture: Channels, finding: Finding) -> Channels:
    """Return a copy of a picture with the results drawn on it."""
    if isinstance(picture, np.ndarray):
        picture = (picture,) if picture.ndim == 2 else tuple(picture[..., n] for n in range(picture.shape[2]))
    channels = tuple(np.array(channel) for channel in picture)
    finding.draw(Canvas(HostSurface(channels), channel_paint(len(channels))))
    return channels[0] if len(channels) == 1 else channels
