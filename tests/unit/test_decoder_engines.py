"""How many engines a GPU's video decoder has: by a stand-in for NVIDIA's library with the SDK's own structure."""

import subprocess
from pathlib import Path

import pytest

from engines.cuda.decoder_engines import decoder_engines
from placement.fleet import decoded_at_a_time, pieces_to_decode

SOURCE = """
typedef struct {
    int eCodecType, eChromaFormat;
    unsigned int nBitDepthMinus8, reserved1[3];
    unsigned char bIsSupported, nNumNVDECs;
    unsigned short nOutputFormatMask;
    unsigned int nMaxWidth, nMaxHeight, nMaxMBCount;
    unsigned short nMinWidth, nMinHeight;
    unsigned char bIsHistogramSupported, nCounterBitDepth;
    unsigned short nMaxHistogramBins;
    unsigned int reserved3[10];
} CUVIDDECODECAPS;
int cuvidGetDecoderCaps(CUVIDDECODECAPS *caps) {
    if (caps->eCodecType != 4 || caps->eChromaFormat != 1 || caps->nBitDepthMinus8) return 1;
    caps->bIsSupported = SUPPORTED;
    caps->nNumNVDECs = ENGINES;
    caps->nMaxWidth = 4096;
    caps->reserved3[9] = 7;
    return FAILED;
}
"""


@pytest.mark.parametrize(
    ("supported", "engines", "failed", "expected"),
    [(1, 7, 0, 7), (1, 1, 0, 1), (1, 0, 0, None), (0, 0, 0, 0), (1, 3, 201, None)],
)
def test_the_driver_says_how_many(tmp_path: Path, supported: int, engines: int, failed: int, expected: int) -> None:
    source, library = tmp_path / "cuvid.c", tmp_path / "libnvcuvid.so.1"
    source.write_text(SOURCE)
    values = (f"-DSUPPORTED={supported}", f"-DENGINES={engines}", f"-DFAILED={failed}")
    subprocess.run(["cc", "-shared", "-fPIC", *values, "-o", library, source], check=True)
    assert decoder_engines(str(library)) == expected


def test_without_the_library_nothing_is_known(tmp_path: Path) -> None:
    assert decoder_engines(str(tmp_path / "none.so")) is None


@pytest.mark.parametrize(
    ("engines", "cores", "most", "expected"),
    [
        (None, 2, 16, 8),
        (None, 2, 4, 4),
        (1, 2, 16, 3),
        (2, 2, 16, 4),
        (4, 8, 16, 7),
        (7, 16, 16, 10),
        (7, 16, 8, 8),
        (0, 1, 16, 3),
        (0, 16, 16, 8),
        (1, 2, 1, 1),
    ],
)
def test_segments_that_are_decoded_at_a_time(engines: int | None, cores: int, most: int, expected: int) -> None:
    """Two more than there are engines, three of four and more, or cores if there are none; eight if none are known."""
    assert decoded_at_a_time(engines, cores, most) == expected


@pytest.mark.parametrize(
    ("at_a_time", "every_s", "expected"),
    [(8, 0.0, 3), (2, 0.0, 2), (8, 0.014, 10), (8, 0.001, 12), (8, 0.031, 8), (8, 4.0, 8), (3, 0.01, 4), (1, 0.001, 1)],
)
def test_decoders_of_short_segments_have_the_next_ones_waiting(at_a_time: int, every_s: float, expected: int) -> None:
    """As many as begin while one is fetched; none of long ones, which another worker could begin with."""
    assert pieces_to_decode(at_a_time, every_s, prefetch_s=0.03) == expected
