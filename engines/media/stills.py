"""Decodes single pictures by Pillow: the formats that FFmpeg does not read here, or reads wrong.

Pillow gets bytes, one of the formats below, and no more pixels than the settings allow; none of these formats runs a
program or opens another file. HEIC needs the package pillow-heif.

Each picture becomes 8 bits a channel: gray, RGB, or RGBA if it has transparency. Deeper ones are rounded. A colour
profile is not applied.
"""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TypeAlias

import av
import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from engines.media.declared import check_declared
from engines.media.limits import Limits
from engines.media.orientation import MOST, UPRIGHT
from engines.media.png import without_packed_chunks
from engines.part import Array
from schemas.errors import ItemTooLarge, MediaError, RigflowError
from schemas.wire import Buffer

# Pillow's name, and its module that reads the format
_PLUGINS = {
    "avif": ("AVIF", "PIL.AvifImagePlugin"),
    "bmp": ("BMP", "PIL.BmpImagePlugin"),
    "gif": ("GIF", "PIL.GifImagePlugin"),
    "heif": ("HEIF", "pillow_heif.HeifImagePlugin"),
    "jpeg": ("JPEG", "PIL.JpegImagePlugin"),
    "jpeg2000": ("JPEG2000", "PIL.Jpeg2KImagePlugin"),
    "png": ("PNG", "PIL.PngImagePlugin"),
    "ppm": ("PPM", "PIL.PpmImagePlugin"),
    "tga": ("TGA", "PIL.TgaImagePlugin"),
    "tiff": ("TIFF", "PIL.TiffImagePlugin"),
    "webp": ("WEBP", "PIL.WebPImagePlugin"),
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112  # the tag of EXIF
_ONE_OF_SEVERAL = "of each image that has several pictures only the first is used"

# Pillow warns of pictures that `Limits` refuses, and of tags that nothing here reads
warnings.filterwarnings("ignore", module="PIL")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
logging.getLogger("PIL").setLevel(logging.CRITICAL)


Decoded: TypeAlias = av.VideoFrame | Image.Image
"""A picture as FFmpeg or Pillow decoded it; Pillow's is RGB without transparency."""


@dataclass(frozen=True, slots=True)
class Still:
    """A picture as it is stored, and whether its file has transparency.

    `orientation` is EXIF's number, 1 to 8, of how it is mirrored and turned until it is upright; `notes` describe
    anything unusual.
    """

    decoded: Decoded
    alpha: bool = False
    orientation: int = UPRIGHT
    notes: tuple[str, ...] = ()

    @property
    def frame(self) -> av.VideoFrame:
        """The picture as a frame."""
        return as_frame(self.decoded)

    @property
    def gray(self) -> bool:
        """Whether it has no colours."""
        if isinstance(self.decoded, Image.Image):
            return False
        return len(self.decoded.format.components) < 3 and self.decoded.format.name != "pal8"


def as_frame(picture: Decoded) -> av.VideoFrame:
    """Return a picture as a frame: Pillow's as `rgb24`, which copies it twice."""
    if isinstance(picture, Image.Image):
        return av.VideoFrame.from_ndarray(np.asarray(picture), "rgb24")
    return picture


def upright_image(image: Image.Image, orientation: int) -> Image.Image:
    """Mirror and turn a stored picture until it is upright, by EXIF's number."""
    return image if orientation == UPRIGHT else image.transpose(_TURNS[orientation])


def decode_still(name: str, data: Buffer, limits: Limits) -> Still:
    """Decode the first picture of a file of the format `name`. Raises MediaError, ItemTooLarge."""
    with open_still(name, data, limits) as image:
        image.load()
        limits.check_pixels("the image", *image.size)  # a GIF's first picture may be larger than its header states
        alpha = has_alpha(image)
        decoded = image if image.mode == "RGB" and not alpha else frame_of(image, alpha)
        orientation = _orientation(image)
        several = name != "jpeg" and getattr(image, "is_animated", False)  # cameras hide small previews in a jpeg
    return Still(decoded, alpha, orientation, (_ONE_OF_SEVERAL,) if several else ())


def still_size(name: str, data: Buffer, limits: Limits) -> tuple[int, int]:
    """Return `(height, width)` of the file's header, not yet turned upright. Raises MediaError, ItemTooLarge."""
    with open_still(name, data, limits) as image:
        return image.height, image.width


@contextmanager
def open_still(name: str, data: Buffer, limits: Limits) -> Iterator[ImageFile.ImageFile]:
    """Open the file by Pillow; no picture is decoded yet.

    Pillow's errors inside the `with` block become a MediaError: its readers raise many kinds of errors for damaged
    files.
    """
    pillow_name, module = _PLUGINS[name]
    try:
        plugin = import_module(module.partition(".")[0] if name == "heif" else module)
    except ImportError as error:
        what = "heic images need the package pillow-heif"
        raise MediaError(what, "install it on the workers, or export the image as jpeg") from error
    if name == "heif":
        plugin.register_heif_opener()
    check_declared(name, data, limits)
    Image.MAX_IMAGE_PIXELS = limits.pixels
    try:
        file = io.BytesIO(without_packed_chunks(data) if name == "png" else data)
        with Image.open(file, formats=(pillow_name,)) as image:
            limits.check_pixels("the image", *image.size)
            yield image
    except (RigflowError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        what = f"the image has more than {limits.pixels / 1e6:g} million pixels"
        raise ItemTooLarge(what, "scale it down or raise the setting max_pixels") from error
    except Exception as error:
        what = f"the {name} image cannot be decoded: {_reason(error)}"
        raise MediaError(what, "copy it again, or export it as png") from error


def has_alpha(image: Image.Image) -> bool:
    """Return whether pixels may be transparent."""
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def frame_of(image: Image.Image, alpha: bool) -> av.VideoFrame:
    """Return the picture that Pillow decoded, as a frame in `gray`, `rgb24` or `rgba`. Raises MediaError."""
    if image.mode.startswith("I") or image.mode == "F":
        return av.VideoFrame.from_ndarray(_from_deep(image), "gray")
    if alpha:
        return av.VideoFrame.from_ndarray(_in_mode(image, "RGBA"), "rgba")
    if image.mode in ("1", "L"):
        return av.VideoFrame.from_ndarray(_in_mode(image, "L"), "gray")
    return av.VideoFrame.from_ndarray(_in_mode(image, "RGB"), "rgb24")


def _in_mode(image: Image.Image, mode: str) -> Array:
    """Return the pixels, uint8; Pillow's own `convert` copies a picture that is in the mode already."""
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _from_deep(image: Image.Image) -> Array:
    """Return `[H, W]` uint8 of a gray picture with 16 bits. Raises MediaError for other types: white is unknown."""
    if not image.mode.startswith("I;16") and not (image.mode == "I" and image.format == "PPM"):
        kind = "floating-point" if image.mode == "F" else "32-bit"
        what = f"the image has {kind} pixels, and does not say which number is white"
        raise MediaError(what, "export it with 8 or 16 bits")
    deep = np.asarray(image).astype(np.uint32)
    return ((deep * 255 + 32767) // 65535).astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    found = image.getexif().get(_ORIENTATION, UPRIGHT)
    return found if UPRIGHT <= found <= MOST else UPRIGHT


def _reason(error: Exception) -> str:
    """Return Pillow's message in one line."""
    if isinstance(error, UnidentifiedImageError):
        return "its header is damaged, or it is of a kind that rigflow does not read"
    return " ".join(str(error).split())[:120] or type(error).__name__
