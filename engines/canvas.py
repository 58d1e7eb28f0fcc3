"""What lies around and behind a picture: padding, and a background for transparent pixels."""

import numpy as np

from engines.part import Array
from schemas.picture import PadValue


def padded(pixels: Array, size: tuple[int, int], first: tuple[int, int], value: PadValue) -> Array:
    """Return `[H, W, ...]` uint8 in a picture of `size` (height, width), from `first` (top, left) on.

    Around it is the grey level `value`, or with "edge" the nearest pixel of the picture.
    """
    height, width = pixels.shape[:2]
    if (height, width) == size:
        return pixels
    top, left = first
    if value == "edge":
        around = ((top, size[0] - height - top), (left, size[1] - width - left))
        return np.pad(pixels, (*around, *((0, 0),) * (pixels.ndim - 2)), "edge")
    canvas = np.full((*size, *pixels.shape[2:]), value, np.uint8)
    canvas[top : top + height, left : left + width] = pixels
    return canvas


def laid_on(rgba: Array, grey: int) -> Array:
    """Lay `[H, W, 4]` uint8 on a grey level: `[H, W, 3]`, each value rounded to nearest.

    The same as Pillow's `paste` with the transparency as its mask.
    """
    alpha = rgba[..., 3:].astype(np.uint16)
    mixed: Array = rgba[..., :3] * alpha  # at most 255 * 255, as is its sum with the rest
    mixed += (255 - alpha) * grey + 128
    mixed += mixed >> 8  # with the shift below a division by 255, exact for such numbers
    return (mixed >> 8).astype(np.uint8)
