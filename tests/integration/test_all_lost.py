"""A job of which nothing is left is no success."""

from pathlib import Path

import pytest

from cli.run_task import exit_code
from pipelines.registry import builtin_pipeline
from tests.damage import overwritten
from tests.fleet import ONE_WORKER, Fleet


@pytest.mark.parametrize(("pipeline", "codec"), [("fingerprint", "mpeg4"), ("upscale2x", "h264")])
def test_a_job_in_which_every_frame_is_lost_has_failed(tmp_path: Path, pipeline: str, codec: str) -> None:
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        lost, rest = (overwritten(tmp_path, codec, rest) for rest in (0, 3))
        outcomes = fleet.run(builtin_pipeline(pipeline), [lost, rest], tmp_path / "out")
    done = {outcome.name: outcome.done for outcome in outcomes}
    assert all(done.values())
    assert (done["lost0.mp4"].frames, done["lost0.mp4"].lost) == (0, 12)
    assert done["lost0.mp4"].failures == (
        "no frame that it looks at could be decoded whole, 12 are damaged: copy it again",
    )
    assert (done["lost3.mp4"].frames, done["lost3.mp4"].lost, done["lost3.mp4"].failures) == (3, 9, ())
    assert exit_code(outcomes[:1]) == 1


def test_a_job_in_which_every_frame_that_windows_look_at_is_lost_has_failed(tmp_path: Path) -> None:
    """Sampled H.264 counts keyframes that no window looks at as whole: they alone are no success."""
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        lost, rest = (overwritten(tmp_path, "h264", rest) for rest in (0, 3))
        outcomes = fleet.run(builtin_pipeline("fingerprint"), [lost, rest], tmp_path / "out")
    done = {outcome.name: outcome.done for outcome in outcomes}
    assert all(done.values())
    for each in done.values():
        assert each.frames + each.lost == 12
    (reason,) = done["lost0.mp4"].failures
    assert reason.startswith("no frame that it looks at could be decoded whole")
    assert exit_code(outcomes[:1]) == 1
    assert done["lost3.mp4"].failures == ()
