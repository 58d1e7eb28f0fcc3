"""Films of twelve sizes, twenty runs from each instruction set, each with another heap: the same bytes."""

from itertools import product

import pytest

from tests.film_digests import digests, instruction_sets

SIZES = (
    "16x16",
    "64x48",
    "176x144",
    "320x240",
    "322x241",
    "352x288",
    "427x240",
    "480x270",
    "640x360",
    "848x480",
    "960x540",
    "1280x720",
)
RUNS = 20
LARGER = ("66x66", "66x320", "320x66", "98x130", "176x144", "322x242", "426x240", "640x360")


@pytest.mark.slow
def test_h264_is_the_same_bytes_everywhere() -> None:
    asms = instruction_sets() or ["auto"]
    found = {
        (asm, run): digests(SIZES, asm, heap_byte=run * 255 // RUNS) for asm, run in product(asms, range(1, RUNS + 1))
    }
    for number, size in enumerate(SIZES):
        of_size = {rows[number] for rows in found.values()}
        print(f"{size}: {len(of_size)} digest of {len(found)} runs ({', '.join(asms)}, {RUNS} each)")
        assert len(of_size) == 1, size


@pytest.mark.slow
@pytest.mark.parametrize(
    ("codec", "asms"), [("hevc", ["avx512", "avx2", "sse4.1", "sse2", "0"]), ("av1", ["avx512", "avx2", "c"])]
)
@pytest.mark.parametrize("bits", [8, 10])
def test_hevc_and_av1_are_the_same_bytes_everywhere(codec: str, asms: list[str], bits: int) -> None:
    if "avx512" not in instruction_sets():
        pytest.skip("this processor has too few instruction sets")
    found = {(asm, heap): digests(LARGER, asm, heap, codec, bits) for asm in asms for heap in (1, 85, 254)}
    assert len({tuple(rows) for rows in found.values()}) == 1, found
