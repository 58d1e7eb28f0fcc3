"""Makes one small picture of a media file, by which a person recognises it."""

from fractions import Fraction
from pathlib import Path

import av

from engines.media.animation import film_of
from engines.media.images import decode_image
from engines.media.orientation import orientation_of, transposes
from engines.media.source import media_errors, media_kind, open_media, picture_stream
from engines.part import Array
from engines.transforms import Picture
from schemas.errors import MediaError
from schemas.model import PictureSpec

_MOST_FRAMES = 250  # decoded after a keyframe: the picture may be an earlier one if keyframes are rare


def thumbnail(path: Path, at_s: float, box: tuple[int, int]) -> Array:
    """Return the picture at `at_s` seconds from the first frame, upright, `[H, W, 3] uint8`, the largest that fits
    `box`.

    Raises UsageError and MediaError if the file cannot be opened or decoded.
    """
    if media_kind(path) == "image":
        with media_errors(str(path)):
            still = decode_image(path.read_bytes())
        frame, aspect, orientation = still.frame, Fraction(1), still.orientation
    else:
        frame, aspect = _frame_at(path, at_s)
        orientation = orientation_of(frame)
    shape = aspect * frame.width / frame.height
    shape = min(max(1 / shape if transposes(orientation) else shape, Fraction(1, 4)), Fraction(4))
    height, width = (box[0], round(box[0] * shape)) if box[0] * shape <= box[1] else (round(box[1] / shape), box[1])
    return Picture(PictureSpec(size=(max(1, height), max(1, width)))).convert(frame, orientation)[0]


def _frame_at(path: Path, at_s: float) -> tuple[av.VideoFrame, Fraction]:
    """Return the last frame at or before `at_s`, and the shape of its pixels."""
    with open_media(film_of(path)) as container:
        stream = picture_stream(container, str(path))
        base = stream.time_base or Fraction(1)
        target = (stream.start_time or 0) + round(at_s / base)
        if at_s > 0:
            container.seek(target, stream=stream)
        found: av.VideoFrame | None = None
        for number, frame in enumerate(container.decode(stream)):
            if found is not None and (number > _MOST_FRAMES or (frame.pts is not None and frame.pts > target)):
                break
            found = frame
        if found is None:
            raise MediaError(f"{path} has no picture that can be decoded", "see whether `ffprobe` can read it")
        return found, Fraction(stream.sample_aspect_ratio or 1) or Fraction(1)
