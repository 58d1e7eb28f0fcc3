"""Parts that are decoded in advance: the event loop is woken when one is ready, and takes it itself.

A trip to the computing thread costs two switches between threads, and with one part after the other the slowest segment
would hold up all that are ready.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from engines.part import Part
from workers.computing import Step
from workers.in_flight import Task, charge
from workers.messages_in_flight import MessagesInFlight
from workers.telemetry import Meter


def waker(wake: asyncio.Event) -> Callable[[], None]:
    """Return a function that sets an event of the running loop, for any thread."""
    loop = asyncio.get_running_loop()

    def on_ready() -> None:
        if not wake.is_set():  # if it is, the loop has not yet looked at what is ready
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(wake.set)

    return on_ready


def busy(step: Callable[[], Step | None], in_flight: MessagesInFlight) -> Callable[[], bool]:
    """Return a function that returns whether something must move, or else is stuck; `step` returns what runs now."""
    return lambda: step() is not None or in_flight.decoding


async def next_part(task: Task, on_device: Callable[..., Awaitable[Part | None]], meter: Meter) -> Part | None:
    """Return the next part of a task, `on_device` if it is not ready; None after the last. Raises decoding errors."""
    assert task.parts is not None
    if task.prefetch is None or not task.prefetch.ready:
        return await on_device([task], next, task.parts, None)
    began_s = time.monotonic()
    part = next(task.parts, None)
    took_s = time.monotonic() - began_s
    charge([task], took_s)
    meter.step(task.pipeline.spec.name, task.stage, took_s)
    return part
