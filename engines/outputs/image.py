"""image: writes pictures that a model made, as a png, jpeg or webp file of each image, or as a film of a film.

It takes `image`, `alpha` or `mask`, or the array of the option: `[W, H, W']` or `[W, H, W', 3]` uint8, a row a window
(of images also with alpha). The arrays of a result are those of `video`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from pydantic import Field

from engines.encoding import Encoded, Pictures, VideoOptions
from engines.outputs.colour import check_picture, picture_planes
from engines.outputs.images import channels_of, encode_images, join_files
from engines.outputs.picture_format import PictureFormat
from engines.outputs.pictures import encode_file
from engines.part import Part, Tick, no_tick
from engines.planned import Tensor
from schemas.errors import PipelineError

_ARRAYS = ("image", "alpha", "mask")  # arrays that heads make
_HINT = "take a model whose card has a head image, matte or segment, or name another array of pictures by encode.array"
_SUFFIXES = {"png": "png", "jpeg": "jpg", "webp": "webp"}


class PictureOptions(VideoOptions):
    """The options of `video`, and for images: the kind of `file`, and the `quality` of jpeg and webp."""

    file: Literal["png", "jpeg", "webp"] = "png"
    quality: int = Field(default=90, ge=1, le=100)

    @property
    def suffix(self) -> str:
        """The suffix of the files of images."""
        return _SUFFIXES[self.file]


class ImageOptions(PictureOptions):
    """`array`: the one to write; by default the first of `image`, `alpha` and `mask` that exists."""

    array: str = ""


class ImageFormat(PictureFormat[ImageOptions]):
    """A file of each image, a film of a film. For films, pictures on a GPU become planes there."""

    options_class = ImageOptions
    anywhere = True

    def check(self, arrays: Mapping[str, Tensor], media: Sequence[str]) -> None:
        """Check that there is one array of pictures, with colours that suit each kind of media."""
        name = self._array_in(arrays)
        check_picture(name, arrays[name], media, "image")

    def encode(self, part: Part, tick: Tick = no_tick) -> Encoded:
        """Return a closed GOP of the part's pictures, or a file of each image."""
        if not part.meta.pts:
            return join_files([])
        shown = part.with_arrays({"pixels": part.arrays[self._array_in(part.arrays)]})
        if not part.meta.media.timed:
            pictures = channels_of(shown.on_host(), "image")
            return encode_images(
                pictures, lambda each: encode_file(each, self._options.file, self._options.quality), tick
            )
        planes, colour = picture_planes(shown, self._options.bits)
        return self.encoder.encode(Pictures(planes, colour, part.meta.media), self._options, tick)

    def _array_in(self, arrays: Collection[str]) -> str:
        wanted = (self._options.array,) if self._options.array else _ARRAYS
        for name in wanted:
            if name in arrays:
                return name
        held = ", ".join(f"`{name}`" for name in arrays) or "nothing"
        names = " or ".join(f"`{name}`" for name in wanted)
        raise PipelineError(f"format image needs {names}, the part holds {held}", _HINT)
