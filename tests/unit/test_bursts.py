"""Decoding in bursts gives what PyAV gives frame by frame, of whole and of damaged media."""

import random
from typing import Any

import pytest

from schemas.errors import RigflowError
from schemas.pipeline import PipelineSpec
from tests.bursts import HostBursts, as_frame
from tests.clips import generated
from tests.damage import SMALL, changed
from tests.host_gpu import COMPILER
from tests.unit.media_passes import decoded, pipeline, raw, segments_of

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler here")
PIPELINES = (pipeline(), pipeline(fps=5), pipeline(warm_up=6), pipeline(fps=5, frames=2, warm_up=3))


def outcome(data: bytes, spec: PipelineSpec, segment_s: float, decoders: Any) -> tuple[list[Any], list[Any]] | None:
    """Metas and arrays of all parts; None where the file is refused."""
    try:
        parts = decoded(*segments_of(data, spec, segment_s), spec, _raw, decoders)
    except RigflowError:
        return None
    return [part.meta for part in parts], [{n: a.tobytes() for n, a in part.arrays.items()} for part in parts]


def _raw(frame: Any, orientation: int) -> Any:
    return raw(as_frame(frame), orientation)


@pytest.mark.parametrize("seed", range(24))
def test_of_a_changed_file_comes_what_comes_frame_by_frame(seed: int) -> None:
    _, data = changed(random.Random(seed))
    for spec in PIPELINES:
        for segment_s in (3600, 0.9):
            assert outcome(data, spec, segment_s, HostBursts()) == outcome(data, spec, segment_s, None)


@pytest.mark.parametrize("spec", PIPELINES)
def test_a_whole_film_is_decoded_in_bursts_alone(spec: PipelineSpec) -> None:
    for clip in SMALL[:3]:
        decoders = HostBursts()
        assert outcome(generated(clip).read_bytes(), spec, 0.9, decoders) is not None
        assert decoders.leases == [True] * len(decoders.leases)
        assert len(decoders.leases) > 1
