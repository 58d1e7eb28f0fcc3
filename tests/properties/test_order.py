"""Results come out in order, once each, whatever order and however often they come in."""

import random

from hypothesis import given
from hypothesis import strategies as st

from pipelines.order import JobOrder
from schemas.jobs import JobRef, Key
from schemas.media import MediaInfo
from schemas.parts import PartMeta
from schemas.results import Failure, Result
from schemas.segments import Fragment

JOB = JobRef(id="j", pipeline="p", revision="r")
MEDIA = MediaInfo(kind="video")


def segments_of(parts: list[int], with_sound: bool) -> list[Result | Fragment]:
    segments: list[Result | Fragment] = []
    for segment, count in enumerate(parts):
        final = segment == len(parts) - 1
        if with_sound:
            segments.append(Fragment(key=Key(job=JOB, segment=segment, final=final), media=MEDIA))
        for part in range(count):
            key = Key(job=JOB, segment=segment, final=final, part=part, last=part == count - 1)
            segments.append(Result(meta=PartMeta(key=key, media=MEDIA), format="npz"))
    return segments


def drain(order: JobOrder[int]) -> list[int]:
    taken = []
    while (entry := order.take()) is not None:
        taken.append(entry)
    return taken


@given(
    parts=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    with_sound=st.booleans(),
    repeats=st.integers(0, 20),
    seed=st.integers(0, 2**32),
)
def test_any_interleaving_with_repeats_gives_each_piece_once_in_order(
    parts: list[int], with_sound: bool, repeats: int, seed: int
) -> None:
    segments = segments_of(parts, with_sound)
    chance = random.Random(seed)
    arrivals = list(range(len(segments))) + [chance.randrange(len(segments)) for _ in range(repeats)]
    chance.shuffle(arrivals)
    if with_sound:  # split publishes a segment's tracks before the segment itself
        arrivals = [*(n for n, segment_data in enumerate(segments) if isinstance(segment_data, Fragment)), *arrivals]
    order: JobOrder[int] = JobOrder()
    taken = []
    for arrival in arrivals:
        order.offer(segments[arrival], arrival)
        taken += drain(order)
    assert taken == list(range(len(segments)))
    assert order.complete
    assert order.segments == len(parts)


def test_a_failed_part_stands_where_its_result_would_stand() -> None:
    order: JobOrder[str] = JobOrder()
    first, second, third = segments_of([3], with_sound=False)
    assert isinstance(second, Result)
    order.offer(third, "third")
    order.offer(Failure(key=second.meta.key, stage="infer", error="bad"), "failed")
    assert order.take() is None
    order.offer(first, "first")
    assert [order.take() for _ in range(3)] == ["first", "failed", "third"]
    assert order.complete


def test_a_failed_segment_ends_after_the_parts_it_gave() -> None:
    order: JobOrder[str] = JobOrder()
    first, _, after = segments_of([2, 1], with_sound=False)
    order.offer(first, "first")
    order.offer(Failure(key=Key(job=JOB, segment=0), stage="decode", entire_segment=True, error="bad"), "failed")
    order.offer(after, "after")
    assert [order.take() for _ in range(3)] == ["first", "failed", "after"]
    assert order.complete


def test_a_failed_job_is_complete_at_once() -> None:
    order: JobOrder[str] = JobOrder()
    failure = Failure(key=Key(job=JOB, segment=-1, final=True), stage="split", entire_segment=True, error="not media")
    assert order.offer(failure, "failed")
    assert order.take() == "failed"
    assert order.complete


@given(
    parts=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    failed=st.sets(st.tuples(st.integers(0, 4), st.integers(0, 3), st.booleans()), max_size=6),
    job_failed=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_results_make_good_every_failure_of_before(
    parts: list[int], failed: set[tuple[int, int, bool]], job_failed: bool, seed: int
) -> None:
    segments = segments_of(parts, with_sound=False)
    arrivals: list[tuple[Result | Fragment | Failure, int]] = [
        (segment_data, n) for n, segment_data in enumerate(segments)
    ]
    for segment, part, whole in failed:
        count = parts[segment % len(parts)]
        key = Key(job=JOB, segment=segment % len(parts), part=part % count, last=part % count == count - 1)
        arrivals.append((Failure(key=key, stage="infer", entire_segment=whole, error="bad"), -1))
    if job_failed:
        arrivals.append((Failure(key=Key(job=JOB, segment=-1), stage="split", entire_segment=True, error="bad"), -1))
    random.Random(seed).shuffle(arrivals)
    order: JobOrder[int] = JobOrder()
    taken = []
    for segment_data, entry in arrivals:  # all that there is, as `rigflow results` reads it, before a failure counts
        order.offer(segment_data, entry)
        while (given := order.take(failures=False)) is not None:
            taken.append(given)
    assert taken == list(range(len(segments)))
    assert order.complete
    assert order.take() is None


def test_a_failure_counts_once_nothing_better_is_to_come() -> None:
    order: JobOrder[str] = JobOrder()
    first, second = segments_of([2], with_sound=False)
    assert isinstance(first, Result)
    assert order.offer(Failure(key=first.meta.key, stage="infer", error="bad"), "failed")
    assert order.offer(second, "second")
    assert order.take(failures=False) is None
    assert order.take() == "failed"
    assert not order.offer(first, "too late")
    assert order.take() == "second"
    assert order.complete


def test_a_failed_job_gives_out_the_pieces_that_it_has_in_order() -> None:
    order: JobOrder[str] = JobOrder()
    first, _, after = segments_of([1, 1, 1], with_sound=False)
    order.offer(after, "after")
    order.offer(Failure(key=Key(job=JOB, segment=-1), stage="split", entire_segment=True, error="not media"), "failed")
    order.offer(first, "first")
    assert [order.take() for _ in range(3)] == ["first", "failed", None]
    assert order.complete
    assert not order.offer(first, "again")
