"""Runs a step that writes files in a thread, so that nothing is left of one that is cancelled."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

STOP_S = 0.1  # between two requests to stop a step

T = TypeVar("T")


async def in_thread(step: Callable[..., T], *arguments: object, stop: Callable[[], None] = lambda: None) -> T:
    """Run a step that writes files in a thread. When cancelled, call `stop`, and wait for its end.

    A thread goes on after its task was cancelled, and would write files that are not removed any more.
    """
    running = asyncio.ensure_future(asyncio.to_thread(step, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            stop()
            await asyncio.wait({running}, timeout=STOP_S)
        with contextlib.suppress(BaseException):
            running.result()
        raise
