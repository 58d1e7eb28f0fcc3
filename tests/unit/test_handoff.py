"""What a worker asks the broker before it gives a part to another."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from schemas.jobs import Priority
from schemas.settings import Settings
from schemas.subjects import Names
from workers import enough_decoded, handoff
from workers.batching import Batching
from workers.handoff import Handoff
from workers.in_flight import Queue
from workers.options import WorkerOptions, with_gpu_peers

QUEUE = Queue("p", "infer", Priority.BULK)


def counted(idle: list[int]) -> tuple[Handoff, list[int]]:
    """A hand-off for steps of a second, whose broker answers `idle` in turn; and what it was asked so far."""
    made, asked = Handoff(None, None, worth_s=0.1), []  # type: ignore[arg-type]

    async def idle_at(queue: Queue) -> int:
        asked.append(len(asked))
        return idle[len(asked) - 1]

    made.idle_at = idle_at  # type: ignore[method-assign]
    made.took("p", "infer", 1.0)
    return made, asked


@pytest.fixture
def now_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock of the hand-off, which stands still until a test changes it."""
    now_s = [1000.0]
    monkeypatch.setattr(handoff, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    return now_s


async def test_the_broker_is_not_asked_again_at_once_whatever_it_answered(now_s: list[float]) -> None:
    made, asked = counted([0, 2])
    assert not any([await made.workers_wait(QUEUE) for _ in range(50)])
    assert len(asked) == 1
    now_s[0] += 1.01 * handoff.FRESH_S
    assert all([await made.workers_wait(QUEUE) for _ in range(50)])
    assert len(asked) == 2


async def test_each_request_gets_one_part_and_then_the_broker_is_asked_again(now_s: list[float]) -> None:
    made, asked = counted([2, 0])
    assert await made.workers_wait(QUEUE)
    assert [made.spill(QUEUE) for _ in range(4)] == [True, True, False, False]
    assert not await made.workers_wait(QUEUE)
    assert len(asked) == 2


async def test_short_steps_ask_nothing() -> None:
    made, asked = counted([5])
    made.took("p", "infer", 0.01)
    assert not await made.workers_wait(QUEUE)
    assert not asked


@pytest.mark.parametrize("withdrawn", ["before", "meanwhile"])
async def test_a_request_of_its_own_that_it_withdraws_is_not_that_of_another(withdrawn: str) -> None:
    """The broker knows it until the withdrawal is sent, and may have counted it before."""
    own, at_broker, sending = [1], [1], list[asyncio.Task[None]]()

    async def send() -> None:
        at_broker[0] = 0

    def withdraw() -> None:
        own[0] = 0
        sending.append(asyncio.create_task(send()))

    async def api(_: str) -> dict[str, int]:
        info = {"num_waiting": at_broker[0], "num_pending": 0}
        if withdrawn == "meanwhile":
            withdraw()
        return info

    broker: Any = SimpleNamespace(names=Names(), api=api)
    intake: Any = SimpleNamespace(outstanding=lambda _: own[0])
    if withdrawn == "before":
        withdraw()
    assert await Handoff(broker, intake, worth_s=0.1).idle_at(QUEUE) == 0


async def test_workers_that_share_the_gpu_do_not_count(now_s: list[float]) -> None:
    """Seven others may all be of the same GPU; of eight, one is elsewhere."""
    made, _ = counted([7, 8])
    made.gpu_peers = 7
    assert not await made.workers_wait(QUEUE)
    assert not made.spill(QUEUE)
    now_s[0] += 1.01 * handoff.FRESH_S
    assert await made.workers_wait(QUEUE)
    assert [made.spill(QUEUE) for _ in range(2)] == [True, False]


def test_each_worker_of_a_rig_knows_how_many_share_its_gpu() -> None:
    devices = ["cuda:0", "cpu", "cuda:1", "cuda:0", "cpu", "cuda:0"]
    options = [WorkerOptions(settings=Settings(), name=str(n), device=each) for n, each in enumerate(devices)]
    assert [each.gpu_peers for each in with_gpu_peers(options)] == [2, 0, 0, 2, 0, 2]


def waiting(pending: bool, in_flight: int, concurrency: int) -> tuple[Batching, Any, Any]:
    """The choice of tasks where workers wait: a part could be inferred, or the next one of its segment be decoded."""
    pipeline: Any = SimpleNamespace(stage=lambda name: None)
    message: Any = SimpleNamespace(waiting=[])
    infer: Any = SimpleNamespace(
        message=message, depth=1, beside=False, pending=False, pipeline=pipeline, stage="infer"
    )
    decode: Any = SimpleNamespace(message=message, depth=0, beside=False, pending=pending, part=None)
    infer.queue, infer.part, infer.alike = QUEUE, b"", lambda other: other is infer
    message.waiting += [infer, decode]
    held: Any = SimpleNamespace(messages=[message] * in_flight, waiting=lambda: message.waiting)
    made, _ = counted([1])
    return Batching(held, SimpleNamespace(concurrency=concurrency), made, None), infer, decode  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pending", "in_flight", "concurrency", "feeds"),
    [(False, 4, 4, True), (True, 4, 4, False), (True, 3, 4, True), (True, 1, 4, True), (False, 8, 1, True)],
)
async def test_a_device_whose_decoders_have_work_does_not_wait_for_them(
    now_s: list[float], pending: bool, in_flight: int, concurrency: int, feeds: bool
) -> None:
    batching, infer, decode = waiting(pending, in_flight, concurrency)
    assert await batching._feeding(infer) is (decode if feeds else infer)


def test_queues_of_parts_are_skipped_while_enough_is_decoded_here(
    now_s: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enough_decoded, "time", handoff.time)
    held: Any = SimpleNamespace(decoded_ahead=False)
    segments = Queue("p", "decode", Priority.BULK)
    depth = {segments: 0, QUEUE: 1}
    made, core = (
        enough_decoded.EnoughDecoded(held, depth, concurrency=4),
        enough_decoded.EnoughDecoded(held, depth, concurrency=1),
    )
    assert not made.update()
    assert not made.skips(QUEUE)
    held.decoded_ahead = True
    assert not made.update()
    assert not made.skips(QUEUE), "requests stay for a moment"
    now_s[0] += 1.01 * enough_decoded.HELD_S
    assert made.update()
    assert (made.skips(QUEUE), made.skips(segments)) == (True, False)
    assert not core.update()
    assert not core.skips(QUEUE)
    now_s[0] += enough_decoded.LOOK_EVERY_S
    assert not made.update()
    assert not made.skips(QUEUE), "parts that others sent are looked for"
    now_s[0] += 1.01 * enough_decoded.HELD_S
    assert made.update()
    held.decoded_ahead = False
    assert not made.update()
    assert not made.skips(QUEUE)
