"""Where a picture lies when it is scaled, cropped and padded; all in integers, sizes are (height, width)."""

from typing import NamedTuple

from engines.media.orientation import UPRIGHT, reverses
from engines.part import Array
from schemas.picture import PictureSpec


class Middle(NamedTuple):
    """The part of a scaled picture that is kept, as it is stored: from `first` on, `size` large, (height, width)."""

    first: tuple[int, int]
    size: tuple[int, int]

    def cut(self, pixels: Array) -> Array:
        """Return that part of `[H, W, ...]`, a view."""
        (top, left), (height, width) = self
        return pixels[top : top + height, left : left + width]


class Piece(NamedTuple):
    """What is used of a tile's answer, and where it goes: all places are (top, left), sizes (height, width)."""

    tile: int  # number of the answer
    begin: tuple[int, int]  # in the answer
    size: tuple[int, int]
    frames: range  # the pictures that it goes to
    to: tuple[int, int]


def entire(size: tuple[int, int]) -> Middle:
    """Return all of a picture of `size` (height, width)."""
    return Middle((0, 0), size)


def square_of(source: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """Return the least size that holds `source` and has the shape of `target`; a side is rounded up."""
    (height, width), (to_height, to_width) = source, target
    return max(height, -(-width * to_height // to_width)), max(width, -(-height * to_width // to_height))


def middle_of(scaled: tuple[int, int], most: tuple[int, int], orientation: int = UPRIGHT) -> Middle:
    """Return what is kept of a stored picture of `scaled` where at most `most` (height, width) is wanted of it.

    It is the middle of the upright picture: where that lies half a pixel off, a side that is seen in reversed order
    begins one pixel later.
    """
    size = min(scaled[0], most[0]), min(scaled[1], most[1])
    top, left = (
        side - kept - cropped_from(side, kept) if is_reversed else cropped_from(side, kept)
        for side, kept, is_reversed in zip(scaled, size, reverses(orientation), strict=True)
    )
    return Middle((top, left), size)


def scaled_size(source: tuple[int, int], target: tuple[int, int], spec: PictureSpec) -> tuple[int, int]:
    """Size to scale `source` to before cropping or padding to `target`, in integer arithmetic.

    The side that `target` does not fix is rounded to nearest where the picture is padded; for `crop` it is rounded
    down, as in torchvision's Resize, which the evaluation of most models has.
    """
    if spec.fit == "stretch":
        return target
    if spec.short_side is not None:
        height, width = (side * spec.short_side // min(source) for side in source)
        return height, width
    (height, width), (to_height, to_width) = source, target
    by_width = to_width * height >= to_height * width if spec.fit == "crop" else to_width * height <= to_height * width
    half = 0 if spec.fit == "crop" else 1
    if by_width:
        return max(1, (2 * height * to_width + half * width) // (2 * width)), to_width
    return to_height, max(1, (2 * width * to_height + half * height) // (2 * height))


def cropped_from(side: int, kept: int) -> int:
    """Where the middle `kept` of `side` pixels begin; halves go to the even number, as in those transforms too."""
    return round((side - kept) / 2)


def padded_from(scaled: tuple[int, int], size: tuple[int, int], spec: PictureSpec) -> tuple[int, int]:
    """Where, from the top and from the left, an upright picture of `scaled` begins in one of `size`."""
    if spec.pad_place == "corner":
        return 0, 0
    return (size[0] - scaled[0]) // 2, (size[1] - scaled[1]) // 2
