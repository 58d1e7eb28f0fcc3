"""What is there of a job, what failed, what is missing."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.inventory import BODIES, FAILURES, Inventory
from pipelines.order import JobOrder
from pipelines.reasons import REASONS, nothing_whole, ranges
from schemas.jobs import JobRef, JobState, Key, Manifest
from schemas.media import Item, MediaInfo
from schemas.parts import PartHeader, PartMeta
from schemas.results import Done, Failure, Result

JOB = JobRef(id="j", pipeline="p", revision="r")
MEDIA = MediaInfo(kind="video")


def result(segment: int, part: int = 0, last: bool = True, final: bool = False, **counts: Any) -> Result:
    key = Key(job=JOB, segment=segment, part=part, last=last, final=final)
    return Result(meta=PartMeta(key=key, media=MEDIA, **({"frames": 1} | counts)), format="npz")


def failure(
    segment: int, part: int = 0, last: bool = True, final: bool = False, entire_segment: bool = False
) -> Failure:
    key = Key(job=JOB, segment=segment, part=part, last=last, final=final)
    return Failure(key=key, stage="infer", error="bad", entire_segment=entire_segment)


def inventory(*segments: Result | Failure) -> Inventory:
    taken = Inventory(Manifest(job=JOB, name="clip.mp4"))
    for segment_data in segments:
        taken.add(segment_data)
    return taken


def test_a_segment_is_whole_when_all_its_parts_are_there() -> None:
    taken = inventory(result(0, 1), result(2), result(1, 0, last=False))
    assert (taken.complete_segments, taken.missing, taken.total) == ([2], [0, 1], None)
    taken.add(result(0, 0, last=False))
    taken.add(result(3, final=True))
    assert (taken.complete_segments, taken.missing, taken.total) == ([0, 2, 3], [1], 4)
    assert not taken.complete


def gathering(*pieces: Result | Failure) -> Inventory:
    """Of a job with a stage that takes the entire media."""
    taken = inventory(*pieces)
    taken.manifest = taken.manifest.model_copy(update={"gathers": True})
    return taken


def test_a_job_of_an_entire_media_is_not_over_before_the_part_of_all_of_it() -> None:
    media = result(0), result(1, final=True)
    assert not inventory(*media).awaits_gathering
    taken = gathering(*media)
    assert (taken.awaits_gathering, taken.complete, taken.over) == (True, False, False)
    taken.add(result(2, final=True))
    assert (taken.awaits_gathering, taken.over, taken.progress.state) == (False, True, JobState.DONE)
    refused = gathering(*media, failure(2, entire_segment=True, final=True))
    assert (refused.over, refused.progress.state, refused.progress.reasons) == (True, JobState.FAILED, ("infer: bad",))


def test_the_part_of_an_entire_media_is_not_made_if_something_of_it_failed() -> None:
    for broken in (failure(0, entire_segment=True), result(0, items=(Item(name="a.png", error="bad"),))):
        taken = gathering(broken, result(1, final=True))
        assert (taken.awaits_gathering, taken.over, taken.progress.state) == (False, True, JobState.FAILED)
    begun = gathering(failure(0, 0, last=False), result(1, final=True))
    assert (begun.awaits_gathering, begun.over) == (False, False)


def test_a_failed_part_does_not_end_its_segment_but_a_failed_segment_is_over() -> None:
    taken = inventory(failure(0, 0, last=False), result(1, final=True))
    assert (taken.failed, taken.missing) == ([], [0])
    taken.add(result(0, 1))
    assert (taken.failed, taken.missing, taken.complete) == ([0], [], True)
    assert inventory(failure(0, entire_segment=True, final=True)).complete


def test_a_result_makes_a_failure_good() -> None:
    taken = inventory(failure(0, entire_segment=True, final=True), result(0, final=True))
    assert (taken.failed, taken.complete_segments) == ([], [0])


def test_all_failures_are_counted_and_the_first_are_held() -> None:
    taken = inventory(failure(0), result(0))
    for segment in range(1, FAILURES + 50):
        taken.add(failure(segment, entire_segment=True))
    taken.add(failure(-1, entire_segment=True))
    assert len(taken.failures) == FAILURES
    assert taken.open_failures == taken.failures[1:]
    assert (taken.progress.failures, len(taken.progress.reasons)) == (FAILURES + 50, REASONS)


def test_a_job_that_was_given_up_is_complete() -> None:
    assert inventory(result(0), failure(-1, entire_segment=True, final=True)).complete


@given(parts=st.lists(st.integers(1, 3), min_size=1, max_size=4), kept=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_it_is_complete_exactly_when_a_collector_would_finish(parts: list[int], kept: float, seed: int) -> None:
    dice = random.Random(seed)
    taken, order = inventory(), JobOrder[int]()
    for segment, count in enumerate(parts):
        for part in range(count):
            make = result if dice.random() < 0.7 else failure
            segment_data = make(segment, part, part == count - 1, segment == len(parts) - 1)
            if dice.random() <= kept:
                taken.add(segment_data)
                order.offer(segment_data, 0)
    while order.take() is not None:
        pass
    assert taken.complete == order.complete


def test_a_job_with_an_item_that_failed_is_failed_before_a_collector_has_read_it() -> None:
    items = (Item(name="good.png"), Item(name="bad.png", error="it is cut off"))
    known = inventory(result(0, final=True, lost=1, items=items, notes=("it is odd",))).progress
    assert (known.state, known.failures, known.reasons) == (JobState.FAILED, 1, ("bad.png: it is cut off",))
    assert known.notes == ("it is odd",)


def test_few_bodies_are_read_of_many_parts_that_have_the_same_note() -> None:
    taken, read = inventory(), 0
    for number in range(4 * BODIES):
        meta = result(number, notes=("it is odd",)).meta
        header = PartHeader.of(meta)
        read += taken.lacks_texts_of(header)
        taken.add_part(header, meta if taken.lacks_texts_of(header) else None)
    assert (read, taken.notes) == (BODIES, ["it is odd"])


@pytest.mark.parametrize(("unseen", "state"), [(9, JobState.DONE), (10, JobState.FAILED)])
def test_a_job_is_failed_when_no_frame_that_it_looks_at_could_be_decoded_whole(unseen: int, state: JobState) -> None:
    known = inventory(result(0, final=True, frames=10, lost=5, unseen=unseen)).progress
    assert known.state is state
    assert known.reasons == (() if state is JobState.DONE else (nothing_whole(10, unseen, 5),))


def test_a_job_that_a_worker_collects_is_over_once_its_files_are_there() -> None:
    taken = inventory(result(0, final=True))
    taken.manifest = taken.manifest.model_copy(update={"hosted": True, "state": JobState.PUBLISHED})
    assert taken.complete
    assert taken.progress.state is JobState.PUBLISHED
    taken.done = Done(job=JOB, segments=1, frames=1, lost=0)
    assert taken.progress.state is JobState.DONE


def test_ranges_are_for_people() -> None:
    assert ranges([]) == ""
    assert ranges([3]) == "3"
    assert ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"
