"""How much of a job is done, by what its manifest has."""

import pytest

from schemas.jobs import JobRef, JobState, Manifest

JOB = JobRef(id="j", pipeline="p", revision="0" * 16)


@pytest.mark.parametrize(
    ("known", "share"),
    [
        ({}, None),
        ({"segments": 8, "segments_done": 4}, None),
        ({"segments": 8, "segments_done": 4, "sent_s": 40.0, "duration_s": 120.0}, 1 / 6),
        ({"segments": 8, "segments_done": 9, "sent_s": 130.0, "duration_s": 120.0}, 1.0),
        ({"segments": 24, "segments_done": 6, "total": 24, "sent_s": 120.0, "duration_s": 120.0}, 0.25),
        ({"segments": 24, "segments_done": 6, "total": 24, "state": JobState.FAILED}, 0.25),
        ({"segments": 24, "segments_done": 23, "total": 24, "state": JobState.DONE}, 1.0),
        ({"total": 0, "segments_done": 0, "duration_s": 120.0}, None),
    ],
)
def test_the_share_is_of_the_media_s_seconds_until_the_number_of_segments_is_known(
    known: dict[str, object], share: float | None
) -> None:
    found = Manifest(job=JOB, name="film.mp4", **known).share  # type: ignore[arg-type]
    assert found == (None if share is None else pytest.approx(share))
