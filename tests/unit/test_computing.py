"""The computing thread: one call at a time, and a call can see that others wait."""

import asyncio
import threading
from pathlib import Path

from engines.device import open_device
from schemas.settings import Settings
from workers.computing import ComputingThread


def test_a_call_sees_that_others_wait_and_that_one_was_cancelled() -> None:
    async def seen() -> list[bool]:
        computing, found, go = ComputingThread(open_device("cpu", Settings(), Path())), [], threading.Semaphore(0)

        def look() -> None:
            for _ in range(3):
                go.acquire()
                found.append(computing.others_wait)

        first = asyncio.create_task(computing.run(look))
        await asyncio.sleep(0)
        go.release()
        while len(found) < 1:
            await asyncio.sleep(0.001)
        second = asyncio.create_task(computing.run(found.append, True))
        await asyncio.sleep(0)
        go.release()
        while len(found) < 2:
            await asyncio.sleep(0.001)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        go.release()
        await first
        computing.close()
        return found

    assert asyncio.run(seen()) == [False, True, False]


def test_the_step_is_the_one_that_runs() -> None:
    async def names() -> tuple[str, bool]:
        computing = ComputingThread(open_device("cpu", Settings(), Path()))
        running = await computing.run_step("p", "chat", lambda: computing.step)
        computing.close()
        assert running is not None
        return f"{running.pipeline} {running.stage}", computing.step is None

    assert asyncio.run(names()) == ("p chat", True)
