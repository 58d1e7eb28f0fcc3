"""Poison candidates beside the device: each runs alone, so that the one that ends the process is known."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from schemas.jobs import Priority
from schemas.results import Attempt
from workers.batching import Batching
from workers.beside import Beside
from workers.in_flight import InFlight, Queue
from workers.messages_in_flight import MessagesInFlight

EARLIER = Attempt(number=1, worker="w", host="h", device="cpu", at_s=1.0)


class Hands:
    """A runner whose decoders give no part until the test ends."""

    def __init__(self) -> None:
        self.computing = SimpleNamespace(another=lambda: SimpleNamespace(step=None, close=lambda: None))
        self.heartbeats = SimpleNamespace(tick=None)
        self.began: list[InFlight] = []

    async def decode(self, task: Any) -> None:
        self.began.append(task.message)
        await asyncio.Event().wait()


def with_task(attempts: tuple[Attempt, ...]) -> InFlight:
    delivery = SimpleNamespace(nbytes=1, headers={})
    message = InFlight(cast(Any, delivery), Queue("p", "decode", Priority.BULK), lambda _: None)
    message.attempts = attempts
    pipeline = SimpleNamespace(works_beside=True, stage=str)
    facts: dict[str, Any] = {"part": None, "parts": iter(()), "pending": False, "beside": True, "depth": 0}
    task = SimpleNamespace(**facts, stage="decode", message=message, pipeline=pipeline, since_s=0.0)
    task_of_its_own = type("OwnTask", (SimpleNamespace,), {"__hash__": object.__hash__, "__eq__": object.__eq__})
    message.waiting.append(task_of_its_own(**vars(task)))
    return message


async def begun_together(*attempts: tuple[Attempt, ...]) -> int:
    """How many of the messages with these earlier attempts begin at one look."""
    in_flight, hands = MessagesInFlight(), Hands()
    in_flight.messages.update(map(with_task, attempts))
    beside = Beside(cast(Any, hands), Batching(in_flight, *cast(Any, [None] * 3)))
    beside.needed = True
    beside.look()
    running = asyncio.create_task(beside.run())
    for _ in range(10):
        await asyncio.sleep(0)
    began = len(hands.began)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await beside.close()
    return began


async def test_poison_candidates_begin_one_at_a_time() -> None:
    assert await begun_together((EARLIER,), (EARLIER,), (EARLIER,)) == 1


async def test_others_begin_together() -> None:
    assert await begun_together((), (), ()) == 3
