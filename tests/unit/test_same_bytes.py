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
from engines.outputs.software import SVT_AV1_PARAMS, _svt_params
from tests.film_digests import digests, instruction_sets
from tests.unit.outputs_parts import VIDEO, make_part

SIZES = ("64x48", "322x241", "480x270")


def test_every_run_and_instruction_set_gives_the_same_h264() -> None:
    wanted = digests(SIZES, "auto", 0)
    for asm in ("auto", *instruction_sets()):
        assert digests(SIZES, asm, 85) == wanted, asm


@pytest.mark.skipif("avx2" not in instruction_sets(), reason="one instruction set has nothing to differ from")
def test_hevc_and_av1_are_the_same_bytes_of_the_instruction_sets_that_are_used() -> None:
    """SVT-AV1's kernels for SSE4.1 make other bytes than those in C and for AVX2: they are not used."""
    sizes = SIZES[1:2]
    assert digests(sizes, "sse2", 85, "hevc", 10) == digests(sizes, "avx2", 0, "hevc", 10)
    assert digests(sizes, "c", 85, "av1") == digests(sizes, "avx2", 0, "av1") != digests(sizes, "sse4_1", 0, "av1")


def test_av1_on_a_processor_without_avx2_uses_the_kernels_in_c(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_text
    for flags, params in (("sse4_1 avx", ":asm=c"), ("avx avx2", ""), ("", ":asm=c")):
        monkeypatch.setattr(Path, "read_text", lambda path, *_, has=flags: f"flags\t\t: sse2 {has}\nbugs\t: avx2\n")
        _svt_params.cache_clear()
        monkeypatch.setattr("platform.machine", lambda: "x86_64")
        assert _svt_params() == SVT_AV1_PARAMS + params
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    _svt_params.cache_clear()
    assert _svt_params() == f"{SVT_AV1_PARAMS}:asm=c"
    monkeypatch.setattr(Path, "read_text", read)
    _svt_params.cache_clear()


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
    part = make_part(VIDEO, {"pixels": pixels[None]}, [0])
    planes = [np.asarray(plane).tobytes() for bits in (8, 10) for plane in picture_planes(part, bits)[0]]
    return [encode_png(pixels), jpeg, decode_jpeg(jpeg).tobytes(), sheet.draw().tobytes(), *planes]


def test_pictures_are_the_same_bytes_without_vector_units() -> None:
    wanted = _pictures()
    with without_vector_units():
        assert _pictures() == wanted
