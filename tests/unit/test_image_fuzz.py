"""Images with bytes changed, cut out or cut off end as a picture or as one line, whatever their format."""

import resource
from collections.abc import Iterator

import numpy as np
import pytest

from engines.media.animation import film_of
from engines.media.images import decode_image
from engines.media.limits import Limits
from schemas.errors import RigflowError
from tests.kinds import kind_of
from tests.unit.test_animations import LASTS_MS, animation
from tests.unit.test_image_formats import written

LIMITS = Limits(pixels=4_000_000)


def originals() -> list[bytes]:
    still = [
        written(name, mode, (64, 48), **options)
        for name, mode, options in (
            ("jpeg", "RGB", {}),
            ("jpeg", "CMYK", {}),
            ("png", "RGBA", {}),
            ("png", "P", {}),
            ("webp", "RGBA", {}),
            ("gif", "P", {}),
            ("avif", "RGBA", {}),
            ("bmp", "P", {}),
            ("tiff", "RGB", {"compression": "tiff_lzw"}),
            ("tiff", "L", {"compression": "jpeg"}),
            ("ppm", "RGB", {}),
            ("tga", "RGB", {"compression": "tga_rle"}),
            ("jpeg2000", "RGB", {}),
        )
    ]
    return [*still, *(animation(name, LASTS_MS) for name in ("png", "webp"))]


def mutants(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    dice = np.random.default_rng(seed)
    for number in range(count):
        changed = bytearray(data)
        head = min(len(data), 200 if number % 2 else len(data))
        for at in dice.integers(0, head, dice.integers(1, 6)):
            changed[at] = dice.choice([0, 255, 128, dice.integers(256)])
        if number % 3 == 0:
            start = int(dice.integers(len(changed)))
            del changed[start : start + int(dice.integers(1, 40))]
        yield bytes(changed[: int(dice.integers(1, len(changed)))] if number % 7 == 0 and changed else changed)


def outcome(data: bytes) -> str:
    """What becomes of an image, as a publisher and a worker would meet it."""
    try:
        kind = kind_of(data) if data else "image"
        if kind == "image":
            decode_image(data, LIMITS)
        else:
            film_of(data, LIMITS)
    except RigflowError as error:
        return str(error)
    return ""


def check(count: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed, data in enumerate(originals()):
        assert outcome(data) == ""
        for mutant in mutants(data, count, seed):
            words = outcome(mutant)
            assert "\n" not in words
            assert len(words) < 300
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


def test_changed_images_end_as_pictures_or_in_one_line() -> None:
    check(40)


@pytest.mark.slow
def test_many_changed_images_end_as_pictures_or_in_one_line() -> None:
    check(1500)
