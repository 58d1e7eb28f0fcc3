"""Law 3: the fleet cannot change the answer. Every codec and container, every arrangement of workers and segments."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest

from engines.models.catalogue import builtin_model
from engines.part import Array
from pipelines.registry import builtin_pipeline
from schemas.results import Done
from tests import own_pass, reference
from tests.clips import Clip, make_clip, real_clip
from tests.fleet import ONE_STAGE_EACH, ONE_WORKER, Fleet
from tests.reference import frames_of
from workers.inputs import JobOutcome

CLIPS = (
    Clip(),
    Clip(container="mkv", sound="aac"),
    Clip(container="ts"),
    Clip(open_gop=True, b_frames=3),
    Clip(vfr=True),
    Clip(rotation=90),
    Clip(codec="hevc", open_gop=True, b_frames=3),
    Clip(codec="hevc", container="mkv"),
    Clip(codec="vp9", container="webm", sound="libopus"),
    Clip(codec="av1"),
    Clip(codec="mpeg4", container="avi", sound="mp2"),
    Clip(codec="mpeg4", container="mp4"),
    Clip(size=(75, 131), pixel_format="yuv444p"),
)
REAL = ("bikes", "carphone_pristine")
CUTS = {"bikes": 5, "carphone_pristine": 0}  # generated clips have one, half-way
ARRANGEMENTS = {"one worker": ONE_WORKER, "a process for each stage": ONE_STAGE_EACH, "three workers": ONE_WORKER * 3}


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("media")
    return [*(make_clip(folder, clip) for clip in CLIPS), *(real_clip(name) for name in REAL)]


@pytest.fixture(scope="module", params=ARRANGEMENTS, ids=str)
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(ARRANGEMENTS[request.param], tmp_path_factory.mktemp("cache")) as fleet:
        yield fleet


def done_of(outcome: JobOutcome) -> Done:
    assert outcome.error is None, outcome.error
    assert outcome.done is not None
    assert not outcome.done.failures, outcome.done.failures
    assert outcome.done.lost == 0
    return outcome.done


def file_of(outcome: JobOutcome, suffix: str) -> Path:
    return next(outcome.target.parent / name for name in done_of(outcome).files if name.endswith(suffix))


@pytest.fixture(scope="module")
def digests() -> dict[str, str]:
    """What the first arrangement's jobs came to; the other ones' must come to the same."""
    return {}


@cache
def expected(path: Path, pipeline: str) -> tuple[Array, Array]:
    """Times and answers of rigflow's own sequential pass, which knows no segments."""
    return own_pass.answers_of(path, builtin_pipeline(pipeline))


@cache
def independent(path: Path) -> tuple[Array, Array]:
    """Times and descriptors of the reference that shares no code with rigflow."""
    return reference.answers_of(path, builtin_model("fingerprint")[1], reference.FINGERPRINT)


@pytest.mark.parametrize("segment_s", [0.1, 1000.0])
def test_fingerprints_equal_one_sequential_pass(
    fleet: Fleet, media: list[Path], segment_s: float, tmp_path: Path
) -> None:
    spec = builtin_pipeline("fingerprint").model_copy(update={"segment_s": segment_s})
    for outcome in fleet.run(spec, media, tmp_path):
        times, descriptors = expected(outcome.inputs[0], spec.name)
        with np.load(file_of(outcome, ".npz")) as found:
            np.testing.assert_array_equal(found["times"], times, err_msg=outcome.name)
            np.testing.assert_array_equal(found["descriptor"], descriptors, err_msg=outcome.name)
            times, descriptors = independent(outcome.inputs[0])
            np.testing.assert_array_equal(found["times"], times, err_msg=outcome.name)
            assert (found["descriptor"] * descriptors).sum(axis=-1).min() > reference.COSINE, outcome.name


def test_shots_equal_one_sequential_pass(fleet: Fleet, media: list[Path], tmp_path: Path) -> None:
    spec = builtin_pipeline("scenes").model_copy(update={"segment_s": 0.1})
    for outcome in fleet.run(spec, media, tmp_path):
        times, scores = expected(outcome.inputs[0], spec.name)
        shots = [json.loads(line) for line in file_of(outcome, ".jsonl").read_text().splitlines()]
        assert done_of(outcome).frames == len(times), outcome.name
        cuts = np.flatnonzero(scores.reshape(-1) >= 0.3)  # in these clips no two are close to one another
        assert len(cuts) == CUTS.get(outcome.inputs[0].stem, 1), outcome.name
        assert [shot["start"] for shot in shots] == pytest.approx([0.0, *times[cuts + 1]], abs=1e-3), outcome.name
        assert [shot["score"] for shot in shots[1:]] == pytest.approx(scores.reshape(-1)[cuts], abs=1e-4), outcome.name
        assert file_of(outcome, ".png").stat().st_size > 0


def test_upscaled_videos_have_every_frame_at_its_time(
    fleet: Fleet, media: list[Path], digests: dict[str, str], tmp_path: Path
) -> None:
    spec = builtin_pipeline("upscale2x").model_copy(update={"segment_s": 0.5})
    for outcome in fleet.run(spec, media[:-2], tmp_path):
        given, given_base, turns = frames_of(outcome.inputs[0])
        with av.open(file_of(outcome, "")) as container:
            found = [frame for frame in container.decode(video=0) if frame.pts is not None]
            base = container.streams.video[0].time_base
        assert base is not None
        assert [frame.pts * base for frame in found] == [pts * given_base for pts, _ in given], outcome.name
        size = (given[0][1].height, given[0][1].width)
        assert (found[0].height, found[0].width) == tuple(2 * side for side in (size[::-1] if turns % 2 else size))
        digest = done_of(outcome).digest
        assert digests.setdefault(outcome.name, digest) == digest, outcome.name
