"""Results come out in order, once each, whatever order and however often they come in."""

import random

from hypothesis import given
from hypothesis import strategies as st

from pipelines.order import JobOrder
from schemas.messages import Failure, Fragment, JobRef, Key, MediaInfo, PartMeta, Result

JOB = JobRef(id="j", pipeline="p", revision="r")
MEDIA = MediaInfo(kind="video")


def pieces_of(parts: list[int], with_sound: bool) -> list[Result | Fragment]:
    pieces: list[Result | Fragment] = []
    for segment, count in enumerate(parts):
        final = segment == len(parts) - 1
        if with_sound:
            pieces.append(Fragment(key=Key(job=JOB, segment=segment, final=final), media=MEDIA, container="mkv"))
        for part in range(count):
            key = Key(job=JOB, segment=segment, final=final, part=part, last=part == count - 1)
            pieces.append(Result(meta=PartMeta(key=key, media=MEDIA), format="npz"))
    return pieces


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
    pieces = pieces_of(parts, with_sound)
    chance = random.Random(seed)
    arrivals = list(range(len(pieces))) + [chance.randrange(len(pieces)) for _ in range(repeats)]
    chance.shuffle(arrivals)
    if with_sound:  # split publishes a segment's sound before the segment itself
        arrivals = [*(n for n, piece in enumerate(pieces) if isinstance(piece, Fragment)), *arrivals]
    order: JobOrder[int] = JobOrder()
    taken = []
    for arrival in arrivals:
        order.offer(pieces[arrival], arrival)
        taken += drain(order)
    assert taken == list(range(len(pieces)))
    assert order.complete
    assert order.segments == len(parts)


def test_a_failed_part_stands_where_its_result_would_stand() -> None:
    order: JobOrder[str] = JobOrder()
    first, second, third = pieces_of([3], with_sound=False)
    assert isinstance(second, Result)
    order.offer(third, "third")
    order.offer(Failure(key=second.meta.key, stage="infer", error="bad"), "failed")
    assert order.take() is None
    order.offer(first, "first")
    assert [order.take() for _ in range(3)] == ["first", "failed", "third"]
    assert order.complete


def test_a_failed_segment_ends_after_the_parts_it_gave() -> None:
    order: JobOrder[str] = JobOrder()
    first, _, after = pieces_of([2, 1], with_sound=False)
    order.offer(first, "first")
    order.offer(Failure(key=Key(job=JOB, segment=0), stage="decode", whole=True, error="bad"), "failed")
    order.offer(after, "after")
    assert [order.take() for _ in range(3)] == ["first", "failed", "after"]
    assert order.complete


def test_a_failed_job_is_complete_at_once() -> None:
    order: JobOrder[str] = JobOrder()
    failure = Failure(key=Key(job=JOB, segment=-1, final=True), stage="split", whole=True, error="not media")
    assert order.offer(failure, "failed")
    assert order.take() == "failed"
    assert order.complete
