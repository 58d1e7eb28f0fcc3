"""Reports what a command waits for, when nothing has moved for a while."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import ParamSpec

from pipelines.broker import Broker
from pipelines.waits import ANSWER_S, goes_on, is_away, why_waiting
from schemas.errors import RigflowError
from schemas.jobs import JobRef

P = ParamSpec("P")
Repair = Callable[[], Awaitable[Sequence[str]]]  # creates what was deleted from the broker; the names of that
SILENT_S = 10.0  # without progress before the first report
AGAIN_S = 60.0  # before the same reason is reported again
LOOK_S = 1.0
_FIGURES = re.compile(r"[\d.,]+")  # the same reason with other figures is not reported at once


@asynccontextmanager
async def explained(
    broker: Broker,
    report: Callable[[str], None],
    waiting: Callable[[], Sequence[JobRef]],
    repair: Repair | None = None,
) -> AsyncIterator[Callable[[], None]]:
    """While the block runs, call `report` with the reason when nothing has moved for 10 s, and when the broker is back.

    Yields a function to call at each progress. `waiting` returns the jobs that are not done; while there is none, only
    a broker that is away is reported. `repair` is called first.
    """
    moved_s = time.monotonic()

    def moved(*_: object) -> None:
        nonlocal moved_s
        moved_s = time.monotonic()

    async def look() -> None:
        reported, reported_s, away = "", 0.0, False
        while True:
            await asyncio.sleep(LOOK_S)
            if away and broker.connection.connected:
                away = False
                report("the broker is back")
            jobs = waiting()
            if not jobs and broker.connection.connected:
                moved()
            silent_s = time.monotonic() - moved_s
            if silent_s < SILENT_S:
                reported = ""
                continue
            why = await repaired(broker, repair) or await why_waiting(broker, jobs)
            reason = _FIGURES.sub("", why)
            if reason != reported or time.monotonic() - reported_s > AGAIN_S:
                report(
                    f"no result for {silent_s:.0f} s, {why}" if goes_on(why) else f"waiting for {silent_s:.0f} s: {why}"
                )
                reported, reported_s, away = reason, time.monotonic(), away or is_away(why)
            await asyncio.sleep(SILENT_S)

    looking = asyncio.create_task(look())
    try:
        yield moved
    finally:
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking


async def repaired(broker: Broker, repair: Repair | None) -> str:
    """What was created again, as a line; empty when nothing was missing, or it could not be created."""
    if repair is None or not broker.connection.connected:
        return ""
    try:
        async with asyncio.timeout(ANSWER_S):
            made = await repair()
    except (TimeoutError, RigflowError):
        return ""
    return f"deleted from the broker, and created again: {', '.join(made)}" if made else ""


def both(show: Callable[P, None], moved: Callable[[], None]) -> Callable[P, None]:
    """A function that calls both: `show` with its arguments, and `moved`."""

    def both(*args: P.args, **kwargs: P.kwargs) -> None:
        moved()
        show(*args, **kwargs)

    return both
