"""The one sentence of `rigflow status`: fleets as they may be, and what it says of them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from pipelines.bottleneck import bottleneck
from pipelines.status import FleetStatus, PriorityStatus, QueueStatus, StreamStatus
from schemas.jobs import Priority

STAGES = ("decode", "resize", "infer", "encode")
GB = 10**9


def queue(
    stage: str, waiting: int, oldest_s: float = 10.0, asked: int = 0, pipeline: str = "up", held: int = 0
) -> QueueStatus:
    priorities = {
        Priority.INTERACTIVE: PriorityStatus(requests=1),  # that none waits of one priority says nothing of the other
        Priority.BULK: PriorityStatus(waiting=waiting, requests=asked, in_flight=held),
    }
    stored = waiting + held
    return QueueStatus(pipeline, stage, stage, StreamStatus(stored, 10**6 * stored, GB, oldest_s), priorities)


def worker(
    busy: Mapping[str, float],
    stages: tuple[str, ...] = STAGES,
    pipeline: str = "up",
    speed: float = 50.0,
    step_s: float = 0.0,
) -> dict[str, Any]:
    done = [
        {"pipeline": pipeline, "stage": stage, "busy": share, "frames_per_s": speed} for stage, share in busy.items()
    ]
    step = {"pipeline": pipeline, "stage": "infer", "seconds": step_s} if step_s else None
    return {"stages": stages, "done": done, "step": step}


def fleet(queues: list[QueueStatus], workers: list[dict[str, Any]], results: int = 0) -> FleetStatus:
    return FleetStatus(0, {"up": "1"}, queues, workers, [], StreamStatus(1, results, GB, 1.0), StreamStatus())


def full_of_claims() -> FleetStatus:
    return replace(fleet([], []), claims=StreamStatus(3, GB, GB, 1.0))


TWO = [worker({"decode": 0.2, "infer": 0.7, "encode": 0.1})] * 2


@pytest.mark.parametrize(
    ("now", "output"),
    [
        (
            full_of_claims(),
            "The bottleneck is the store of large bodies: 1 GB of 1 GB are kept, so publishers of "
            "bodies larger than a message wait.",
        ),
        (fleet([queue("decode", 0)], TWO), "No bottleneck: all queues are empty."),
        (
            fleet([queue("decode", 2, asked=2)], TWO),
            "No bottleneck: 0 messages are in process, and 2 workers are 100% busy, 70% of the time with up infer "
            "(100 frames/s).",
        ),
        (
            fleet([queue("decode", 0, held=1)], [worker({"infer": 1.0}, speed=0.0, step_s=95.0), worker({})]),
            "No bottleneck: 1 message is in process, and 2 workers are 50% busy, 50% of the time with up infer"
            "; a step of up infer has run for 95 s.",
        ),
        (
            fleet([queue("decode", 37, oldest_s=14.0)], [worker({"infer": 0.7}, stages=("all",))]),
            "The bottleneck is up infer: it takes 70% of the time of 1 worker (50 frames/s), while 37 messages wait "
            "(37 MB, the oldest for 14 s) in front of up decode.",
        ),
        (
            fleet([queue("infer", 3)], [worker({"infer": 1.0}, speed=0.0)]),  # a chat
            "The bottleneck is up infer: it takes 100% of the time of 1 worker, while 3 messages wait (3 MB, the "
            "oldest for 10 s) in front of it.",
        ),
        (
            fleet([queue("decode", 37, oldest_s=14.0)], [worker({"infer": 0.7}, stages=("all",), speed=0.0)]),
            "The bottleneck is up infer: it takes 70% of the time of 1 worker, while 37 messages wait (37 MB, the "
            "oldest for 14 s) in front of up decode.",
        ),
        (
            fleet([queue("decode", 37, oldest_s=14.0)], [worker({}) | {"declined": {"up": "it lacks a plugin"}}]),
            "The bottleneck is up decode: 37 messages wait (37 MB, the oldest for 14 s), and no worker hosts it.",
        ),
        (
            fleet([queue("decode", 37, oldest_s=14.0), queue("infer", 0)], TWO),
            "The bottleneck is up infer: it takes 70% of the time of 2 workers (100 frames/s), while 37 messages wait "
            "(37 MB, the oldest for 14 s) in front of up decode.",
        ),
        (
            fleet(
                [queue("decode", 90, oldest_s=60.0), queue("infer", 5, oldest_s=4.0)],
                [worker({"decode": 0.9}, ("decode", "resize")), worker({"infer": 0.99}, ("infer",))],
            ),
            "The bottleneck is up infer: it takes 99% of the time of 1 worker (50 frames/s), while 5 messages wait "
            "(5 MB, the oldest for 4 s) in front of it.",
        ),
        (
            fleet([queue("decode", 90, oldest_s=60.0), queue("infer", 1, oldest_s=0.1)], TWO),
            "The bottleneck is up infer: it takes 70% of the time of 2 workers (100 frames/s), while 90 messages wait "
            "(90 MB, the oldest for 60 s) in front of up decode.",
        ),
        (
            fleet([queue("infer", 1)], [worker({"decode": 0.9}, ("decode",))]),
            "The bottleneck is up infer: 1 message waits (1 MB, the oldest for 10 s), and no worker hosts it.",
        ),
        (
            fleet([queue("decode", 2)], [worker({"infer": 0.9}, pipeline="scenes")]),
            "The bottleneck is scenes infer: it takes 90% of the time of 1 worker (50 frames/s), while 2 messages wait "
            "(2 MB, the oldest for 10 s) in front of up decode.",
        ),
        (
            fleet([queue("decode", 2)], [worker({})]),
            "The bottleneck is up decode: 2 messages wait (2 MB, the oldest for 10 s), and its 1 worker has reported "
            "no work yet.",
        ),
        (
            fleet([queue("decode", 0, held=2)], [worker({})] * 2),
            "No bottleneck: 2 messages are in process, and 2 workers have reported no work yet.",
        ),
        (fleet([queue("decode", 0)], []), "No bottleneck: all queues are empty, and no worker has reported."),
        (fleet([queue("decode", 0, held=2)], []), "No bottleneck: no worker has reported."),
        (
            fleet([queue("decode", 2, held=1)], []),
            "The bottleneck is up decode: 2 messages wait and 1 is held (3 MB together, the oldest for 10 s), and no "
            "worker has reported.",
        ),
        (
            fleet(
                [queue("infer", 2, held=1)],
                [
                    {
                        "stages": STAGES,
                        "done": [{**worker({"infer": 0.9})["done"][0], "message_s": 2.0, "message_bytes": 1e6}],
                    }
                ],
            ),
            "The bottleneck is up infer: it takes 90% of the time of 1 worker (50 frames/s), while 2 messages wait and "
            "1 is held (3 MB together, about 6 s of work, the oldest for 10 s) in front of it.",
        ),
        (
            fleet([queue("decode", 2)], []),
            "The bottleneck is up decode: 2 messages wait (2 MB, the oldest for 10 s), and no worker has reported.",
        ),
        (
            fleet([queue("decode", 2)], [worker({"decode": 0.001})]),
            "The bottleneck is up decode: 2 messages wait (2 MB, the oldest for 10 s), and its 1 worker spends 0% of "
            "the time computing.",
        ),
        (
            fleet(
                [queue("decode", 3, oldest_s=0.4), queue("infer", 1, oldest_s=0.1, held=1)],
                [worker({"decode": 0.01})] * 2,
            ),
            "No bottleneck: no message has waited for 1 s, 1 message is in process, and 2 workers are 1% busy.",
        ),
        (
            fleet([queue("decode", 2, oldest_s=0.4)], []),
            "The bottleneck is up decode: 2 messages wait (2 MB, the oldest for 0 s), and no worker has reported.",
        ),
        (
            fleet([queue("decode", 2)], [worker({}) | {"ready": False}] * 2),
            "The bottleneck is up decode: 2 messages wait (2 MB, the oldest for 10 s), while 2 workers load their "
            "models.",
        ),
        (
            fleet([queue("decode", 2)], TWO, results=GB),
            "The bottleneck is the stream of results: 1 GB of 1 GB are kept, so encoders wait until "
            "results are collected or too old.",
        ),
    ],
    ids=[
        "claims",
        "idle",
        "passing",
        "a long step",
        "all stages",
        "a chat",
        "a chat behind",
        "declined",
        "local",
        "apart",
        "young",
        "nobody",
        "another",
        "young worker",
        "young workers in process",
        "none",
        "held by none",
        "backlog and held",
        "seconds of work",
        "backlog of none",
        "stuck",
        "passing through",
        "young backlog of none",
        "loading",
        "results",
    ],
)
def test_it_names_the_stage_and_the_evidence(now: FleetStatus, output: str) -> None:
    assert bottleneck(now) == output


def test_a_backlog_is_given_in_seconds_of_work_by_its_bytes() -> None:
    """A long message is not taken to be as quick as the short ones before it; those that are held count, too."""
    done = [{"pipeline": "up", "stage": "infer", "busy": 0.9, "frames_per_s": 5.0}]
    done[0] |= {"message_s": 0.5, "message_bytes": 100_000.0}
    workers = [{"stages": STAGES, "done": done}] * 2
    said = bottleneck(fleet([queue("infer", 4)], workers))
    assert "4 messages wait (4 MB, about 10 s of work, the oldest for 10 s)" in said
    said = bottleneck(fleet([queue("infer", 2, held=4)], workers))
    assert "2 messages wait and 4 are held (6 MB together, about 15 s of work, the oldest for 10 s)" in said


def test_sizes_of_small_messages_are_not_zero() -> None:
    small = queue("infer", 1)
    small = replace(small, stream=replace(small.stream, nbytes=93))
    assert "1 message waits (93 B, the oldest for 10 s)" in bottleneck(fleet([small], TWO))
