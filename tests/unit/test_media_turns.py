"""Turns of raw media: bounded, small ones beside large ones, the shorter one first."""

import asyncio
from types import SimpleNamespace
from typing import Any

from schemas.jobs import Priority
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
