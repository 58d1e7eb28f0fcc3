"""What a worker asks the broker before it gives a part to another."""

from types import SimpleNamespace

import pytest

from schemas.jobs import Priority
from workers import handoff
from workers.handoff import Handoff
from workers.in_flight import Queue

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
