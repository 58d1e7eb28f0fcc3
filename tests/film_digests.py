"""`python -m tests.film_digests h264 8 320x240 ...`: encodes moving pictures of each size, and prints a digest of each.

`digests` runs that in a process of its own, for an instruction set and with a heap that is filled with a given byte.
"""

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

FRAMES = 12
# an instruction set as x264's `asm` calls it, and what /proc/cpuinfo calls what it needs
_NEEDS = {"avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"}, "avx2": {"avx2", "bmi2", "fma"}, "sse2": {"sse2"}}
ASM_FOLDER = Path(__file__).parent / "encoder_asm"


def instruction_sets() -> list[str]:
    """Those of x264's instruction sets that this processor has, the widest first; none where it is no x86."""
    if platform.machine() != "x86_64":
        return []
    flags = set(Path("/proc/cpuinfo").read_text().split("flags", 1)[1].split("\n", 1)[0].split())
    return [name for name, needs in _NEEDS.items() if needs <= flags]


def digests(sizes: Sequence[str], asm: str, heap_byte: int, codec: str = "h264", bits: int = 8) -> list[str]:
    """A digest for each of `sizes`; `asm` may go on with further parameters of the encoder."""
    environment = {
        **os.environ,
        "MALLOC_PERTURB_": str(heap_byte),
        "PYTHONPATH": str(ASM_FOLDER),
        "TEST_ASM": asm,
    }
    command = [sys.executable, "-m", "tests.film_digests", codec, str(bits), *sizes]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return ran.stdout.split()


def _digest(options: dict[str, Any], width: int, height: int) -> str:
    from engines.encoding import Colour, Pictures, VideoOptions
    from engines.outputs.software import Software
    from schemas.media import MediaInfo

    noise = np.random.default_rng(0).integers(0, 255, (height + FRAMES, width + 2 * FRAMES))
    for _ in range(3):
        noise = (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1) + np.roll(noise, 1, (0, 1))) // 4
    luma = np.stack([noise[n : n + height, 2 * n : 2 * n + width] for n in range(FRAMES)]).astype(np.uint8)
    chroma = np.ascontiguousarray(luma[:, ::2, ::2])
    media = MediaInfo(kind="video", width=width, height=height, time_base=(1, 25), frame_rate=(25, 1))
    gop = Software().encode(Pictures([luma, chroma, 255 - chroma], Colour(1, 1, 1, 1), media), VideoOptions(**options))
    return hashlib.sha256(b"".join(array.tobytes() for array in gop.arrays.values())).hexdigest()


if __name__ == "__main__":
    codec, bits, *sizes = sys.argv[1:]
    for size in sizes:
        print(_digest({"codec": codec, "bits": int(bits)}, *map(int, size.split("x"))))
