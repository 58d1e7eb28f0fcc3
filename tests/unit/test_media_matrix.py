"""Codecs, containers and pixel formats against a plain decode by PyAV: each frame, and when it is shown."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from engines.media.decode import decode_video
from engines.media.split import Splitter
from engines.part import Array, Part
from schemas.jobs import JobRef, Key
from tests.plans import decode_plan
from tests.unit.media_passes import pipeline
from tests.unit.plain import CONTAINERS, ENCODERS, REORDERING, Kind, digest, shown, write, written

JOB = JobRef(id="job", pipeline="test", revision="0")
_UNDECLARED = 2  # frames that a decoder holds back
TRAITS = ("", "b-frames", "vfr", "interlaced", "odd")


def kinds() -> list[Kind]:
    """What is tried; containers refuse many of these."""
    found = []
    for encoder, layouts in ENCODERS.items():
        for container in CONTAINERS:
            for layout in layouts:
                for trait in TRAITS:
                    plain = trait in ("b-frames", "interlaced") and encoder not in REORDERING
                    if not plain and not (trait and layout != layouts[0]):
                        found.append(Kind(encoder, container, layout, frozenset((trait,)) - {""}))
    return found


ALL = kinds()


def check(folder: Path, kind: Kind) -> bool:
    """Holds a file of that kind against a plain decode; False where there can be none."""
    path = write(folder, kind)
    if path is None:
        return False
    try:
        pictures, times = shown(path)
    except (av.error.FFmpegError, IndexError):
        return False
    results = []
    for segment_s in (0.001, 0.5, 3600):
        parts = parts_of(path, segment_s)
        found = [row.tobytes().decode() for part in parts for row in part.arrays["digest"]]
        pts = [each for part in parts for each in part.meta.pts]
        assert found == pictures, (kind.name, segment_s)
        assert [part.meta.lost for part in parts] == [0] * len(parts), kind.name
        assert sum(part.meta.frames for part in parts) == len(pictures), kind.name
        assert all(a < b for a, b in pairwise(pts)), kind.name
        base = parts[0].meta.media.clock.time_base
        results.append([(each - pts[0]) * base for each in pts])
        untimed = "vfr" in kind.traits and None in times  # many frames have one time together: they are numbered
        assert untimed or results[-1] == times or _is_truth(kind, results[-1]), kind.name
    assert results[0] == results[1] == results[2], kind.name
    return True


def _is_truth(kind: Kind, times: list[Fraction]) -> bool:
    """Whether the frames are shown when they were written to be: a plain decoder may know less of that than packets do.

    Of a stream with times of decoding alone, those of the last frames are told by no packet.
    """
    reported = len(times) - _UNDECLARED if "vfr" in kind.traits else len(times)
    return all(
        abs(found - Fraction(written(kind, number), 25)) < Fraction(1, 500)
        for number, found in enumerate(times[:reported])
    )


def parts_of(path: Path, segment_s: float) -> list[Part]:
    spec = pipeline()
    parts: list[Part] = []
    with Splitter(path, spec.grid, segment_s) as splitter:
        for number, segment_data in enumerate(splitter.segments()):
            segment = segment_data.segment(Key(job=JOB, segment=number, final=segment_data.final))
            # planes would be brought to one format, and these are to be as the decoder gives them
            parts += decode_video(
                segment, segment_data.buffers, decode_plan(pipeline(size=(8, 8), layout="rgb")), _digest
            )
    return parts


def _digest(frame: av.VideoFrame, rotation: int) -> dict[str, Array]:
    return {"digest": np.frombuffer(digest(frame).encode(), np.uint8)}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_frames_and_times_of_a_few_kinds(encoder: str, tmp_path: Path) -> None:
    few = [kind for kind in ALL if kind.encoder == encoder]
    assert sum(check(tmp_path, kind) for kind in few[:: max(1, len(few) // 12)]) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ENCODERS)
def test_frames_and_times_of_all_kinds(encoder: str, tmp_path: Path) -> None:
    tried = [check(tmp_path, kind) for kind in ALL if kind.encoder == encoder]
    print(f"{encoder}: {sum(tried)} of {len(tried)} kinds can be written and read")
    assert sum(tried) >= 4
