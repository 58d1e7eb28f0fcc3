"""What is encoded is the same bytes on every run and processor; the long version for H.264 is in tests/faults."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from engines.outputs.colour import picture_planes
from engines.outputs.pictures import decode_jpeg, encode_jpeg, encode_png
from engines.outputs.shot_sheet import ShotSheet
from tests.h264_digests import digests, instruction_sets
from tests.unit.outputs_parts import VIDEO, make_part

SIZES = ("64x48", "322x241", "480x270")


def test_every_run_and_instruction_set_gives_the_same_h264() -> None:
    wanted = digests(SIZES, "auto", 0)
    for asm in ("auto", *instruction_sets()):
        assert digests(SIZES, asm, 85) == wanted, asm


@pytest.mark.skipif("avx2" not in instruction_sets(), reason="one instruction set has nothing to differ from")
def test_these_pictures_show_a_difference_where_there_is_one() -> None:
    free = ":cpu-independent=0"
    assert digests(SIZES, "avx2" + free, 85) != digests(SIZES, "sse2" + free, 85)


@contextmanager
def without_vector_units() -> Iterator[None]:
    """FFmpeg computes as on a processor that has none."""
    loaded = Path("/proc/self/maps").read_text().split()
    library = ctypes.CDLL(next(word for word in loaded if Path(word).name.startswith("libavutil")))
    library.av_force_cpu_flags(0)
    try:
        yield
    finally:
        library.av_force_cpu_flags(-1)


def _pictures() -> list[bytes]:
    noise = np.random.default_rng(0).integers(0, 255, (91, 163, 3))
    for _ in range(2):
        noise = (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1) + np.roll(noise, 1, (0, 1))) // 4
    pixels = noise.astype(np.uint8)
    jpeg = encode_jpeg(pixels)
    sheet = ShotSheet(VIDEO)
    sheet.add(jpeg, 0.0, 1.0)
    planes, _ = picture_planes(make_part(VIDEO, {"pixels": pixels[None]}, [0]))
    return [encode_png(pixels), jpeg, decode_jpeg(jpeg).tobytes(), sheet.draw().tobytes(), *map(bytes, planes)]


def test_pictures_are_the_same_bytes_without_vector_units() -> None:
    wanted = _pictures()
    with without_vector_units():
        assert _pictures() == wanted
