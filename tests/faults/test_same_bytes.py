"""H.264 of twelve sizes, twenty runs from each instruction set, each with another heap: the same bytes."""

from itertools import product

import pytest

from tests.h264_digests import digests, instruction_sets

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
