"""Turns of raw media: bounded, small ones beside large ones, the shorter one first."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from schemas.jobs import Priority
from workers import media_turns
from workers.in_flight import Queue
from workers.media_turns import LARGE, SMALL, MediaTurns

MIB = 1 << 20
BULK = Queue("p", "split", Priority.BULK)


def media(nbytes: int, queue: Queue = BULK) -> Any:
    return SimpleNamespace(queue=queue, nbytes=nbytes)


async def test_media_take_turns() -> None:
    turns, running, ends = MediaTurns(), [], {}

    async def split(name: str, message: Any) -> None:
        async with turns.turn(message):
            running.append(name)
            ends[name] = asyncio.Event()
            await ends[name].wait()
            running.remove(name)

    def started(name: str, message: Any) -> "asyncio.Task[None]":
        return asyncio.create_task(split(name, message))

    async def settled() -> list[str]:
        for _ in range(5):
            await asyncio.sleep(0)
        return sorted(running)

    tasks = [started(f"large {number}", media(2000 * MIB)) for number in range(LARGE)]
    first = await settled()
    waiting = [started("larger", media(3000 * MIB)), started("less large", media(20 * MIB))]
    assert await settled() == first, "so many large ones at a time"
    small = [started(f"small {number}", media(MIB)) for number in range(SMALL + 1)]
    urgent = started("urgent", media(2000 * MIB, Queue("p", "split", Priority.INTERACTIVE)))
    assert len(await settled()) == LARGE + SMALL + 1, "neither a small one nor an urgent one waits for large ones"
    assert "urgent" in running
    ends["urgent"].set()
    await settled()
    ends["large 0"].set()
    assert "less large" in await settled()
    assert "larger" not in running, "it came first, and is longer"
    cancelled = started("given up", media(MIB))
    await settled()
    cancelled.cancel()
    ends["less large"].set()
    assert "larger" in await settled()
    for task in (*tasks, *waiting, *small, urgent, cancelled):
        task.cancel()
    await asyncio.gather(*tasks, *waiting, *small, urgent, cancelled, return_exceptions=True)
    again = [started(f"again {number}", media(MIB)) for number in range(SMALL)]
    assert len(await settled()) >= SMALL, "all places are free again"
    for task in again:
        task.cancel()
    await asyncio.gather(*again, return_exceptions=True)


async def test_media_of_bulk_pause_while_a_person_s_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """They begin when those are done; and after a while in any case, however many there are."""
    monkeypatch.setattr(media_turns, "PAUSE_S", 3600.0)
    turns, order = MediaTurns(), []
    one, two = asyncio.Event(), asyncio.Event()

    async def person(done: asyncio.Event) -> None:
        async with turns.turn(media(MIB, Queue("p", "split", Priority.INTERACTIVE))):
            await done.wait()
            order.append("person")

    async def bulk(name: str) -> None:
        message = media(MIB)
        async with turns.turn(message):
            await turns.let_pass(message)
            order.append(name)

    people = [asyncio.create_task(person(done)) for done in (one, two)]
    await asyncio.sleep(0)
    others = [asyncio.create_task(bulk(f"bulk {number}")) for number in range(3)]
    await asyncio.sleep(0.01)
    one.set()
    await asyncio.sleep(0.01)
    assert order == ["person"], "one of two is still split"
    two.set()
    await asyncio.gather(*people, *others)
    assert order == ["person", "person", "bulk 0", "bulk 1", "bulk 2"]
    monkeypatch.setattr(media_turns, "PAUSE_S", 0.01)
    never = asyncio.create_task(person(asyncio.Event()))
    await asyncio.sleep(0)
    await bulk("bulk 3")
    assert order[-1] == "bulk 3"
    never.cancel()
    await asyncio.gather(never, return_exceptions=True)
    assert not turns._urgent
