"""Makes one small picture of a media file, by which a person recognises it."""

from fractions import Fraction
from pathlib import Path

from engines.media.medium import Input, any_recognised
from engines.media.orientation import transposes
from engines.part import Array
from engines.transforms import Picture
from schemas.picture import PictureSpec


def thumbnail(path: Path, at_s: float, box: tuple[int, int]) -> Array:
    """Return the picture at `at_s` seconds from the first frame, upright, `[H, W, 3] uint8`, the largest that fits
    `box`.

    Raises UsageError and MediaError if the file cannot be opened or decoded.
    """
    frame, orientation, aspect = any_recognised(Input(path, path.name)).picture(path, at_s)
    shape = aspect * frame.width / frame.height
    shape = min(max(1 / shape if transposes(orientation) else shape, Fraction(1, 4)), Fraction(4))
    height, width = (box[0], round(box[0] * shape)) if box[0] * shape <= box[1] else (round(box[1] / shape), box[1])
    return Picture(PictureSpec(size=(max(1, height), max(1, width)))).convert(frame, orientation)[0]
