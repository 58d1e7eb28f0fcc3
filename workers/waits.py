"""No wait is silent: who waits for long is told what for."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import ParamSpec

from pipelines.broker import Broker
from pipelines.waits import why_waiting
from schemas.messages import JobRef

P = ParamSpec("P")
SILENT_S = 10.0  # without a step forward
AGAIN_S = 60.0  # before the same is said again
LOOK_S = 1.0


@asynccontextmanager
async def explained(
    broker: Broker, say: Callable[[str], None], waiting: Callable[[], Sequence[JobRef]]
) -> AsyncIterator[Callable[[], None]]:
    """While the block runs, `say` why when nothing has moved for 10 s; yields what is to be called when something has.

    `waiting` gives the jobs that are not done. Without any, only a broker that is away is worth a line.
    """
    moved_s = time.monotonic()

    def moved(*_: object) -> None:
        nonlocal moved_s
        moved_s = time.monotonic()

    async def look() -> None:
        said, said_s = "", 0.0
        while True:
            await asyncio.sleep(LOOK_S)
            jobs = waiting()
            if not jobs and broker.connection.connected:
                moved()
            silent_s = time.monotonic() - moved_s
            if silent_s < SILENT_S:
                said = ""
                continue
            why = await why_waiting(broker, jobs)
            if why != said or time.monotonic() - said_s > AGAIN_S:
                say(f"waiting for {silent_s:.0f} s: {why}")
                said, said_s = why, time.monotonic()
            await asyncio.sleep(SILENT_S)

    looking = asyncio.create_task(look())
    try:
        yield moved
    finally:
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking


def both(show: Callable[P, None], moved: Callable[[], None]) -> Callable[P, None]:
    """Show a step forward, and note that there was one."""

    def both(*args: P.args, **kwargs: P.kwargs) -> None:
        moved()
        show(*args, **kwargs)

    return both
