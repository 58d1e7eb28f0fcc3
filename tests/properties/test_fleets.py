"""Law 3 as a property: whatever media, however cut, whoever does which stage, whoever dies: the answer of one pass."""

import asyncio
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.part import Array
from pipelines.registry import builtin_pipeline
from tests.clips import Clip, generated
from tests.fleet import ONE_STAGE_EACH, ONE_WORKER, Fleet
from tests.own_pass import answers_of
from tests.properties.test_segments import CLIPS
from workers.inputs import JobOutcome

SPEC = builtin_pipeline("fingerprint")
ARRANGED = ONE_WORKER + ONE_STAGE_EACH  # each part finds its own way through these
MEDIA = st.lists(CLIPS, min_size=1, max_size=3, unique_by=lambda clip: clip.name)
SEGMENT_S = st.sampled_from([0.05, 0.2, 0.5, 60.0])
VICTIM = st.tuples(st.integers(0, len(ARRANGED) - 1), st.floats(0.0, 0.3))  # which worker, after how many seconds


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(ARRANGED, tmp_path_factory.mktemp("cache"), ack_wait_s=3.0) as fleet:
        yield fleet


@cache
def expected(path: Path) -> tuple[Array, Array]:
    return answers_of(path, SPEC)


def check(outcomes: list[JobOutcome]) -> None:
    """Each job is whole, and its times and descriptors are those of one sequential pass, bit for bit."""
    for outcome in outcomes:
        assert outcome.error is None, outcome.error
        assert outcome.done is not None
        assert (outcome.done.failures, outcome.done.lost) == ((), 0)
        times, descriptors = expected(outcome.inputs[0])
        with np.load(outcome.target.parent / outcome.done.files[0]) as found:
            np.testing.assert_array_equal(found["times"], times, err_msg=outcome.name)
            np.testing.assert_array_equal(found["descriptor"], descriptors, err_msg=outcome.name)


async def with_a_death(
    fleet: Fleet, paths: list[Path], segment_s: float, out: Path, victim: int, after_s: float
) -> None:
    spec = SPEC.model_copy(update={"segment_s": segment_s})
    jobs = asyncio.create_task(fleet.run_async(spec, paths, out))
    await asyncio.sleep(after_s)
    await asyncio.to_thread(fleet.kill, victim)
    check(await jobs)


# the same examples each time: what is new is found by the long one
@settings(max_examples=5, suppress_health_check=list(HealthCheck))
@given(clips=MEDIA, segment_s=SEGMENT_S)
def test_any_media_however_cut(fleet: Fleet, clips: list[Clip], segment_s: float) -> None:
    with tempfile.TemporaryDirectory() as out:
        spec = SPEC.model_copy(update={"segment_s": segment_s})
        check(fleet.run(spec, [generated(clip) for clip in clips], Path(out)))


@pytest.mark.slow
@settings(max_examples=60, derandomize=False, suppress_health_check=list(HealthCheck))
@given(clips=MEDIA, segment_s=SEGMENT_S, death=VICTIM)
def test_any_media_however_cut_whoever_dies(
    fleet: Fleet, clips: list[Clip], segment_s: float, death: tuple[int, float]
) -> None:
    with tempfile.TemporaryDirectory() as out:
        asyncio.run(with_a_death(fleet, [generated(clip) for clip in clips], segment_s, Path(out), *death))
