"""The one thread of a worker that computes; the event loop talks to the broker meanwhile."""

import asyncio
import functools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from engines.ports import Device
from workers.handoff import Handoff
from workers.telemetry import Meter

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """The step that the computing thread runs, since `began_s` of the monotonic clock."""

    pipeline: str
    stage: str
    began_s: float


class ComputingThread:
    """Runs one call at a time; `step` is the step of a pipeline that it runs now. `close` leaves the device."""

    def __init__(self, device: Device, meter: Meter, handoff: Handoff) -> None:
        self._device = device
        self._meter = meter
        self._handoff = handoff
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self.step: Step | None = None

    async def run_step(self, pipeline: str, stage: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The answer of a step of a pipeline. The seconds that it takes are recorded."""
        self.step = now = Step(pipeline, stage, time.monotonic())
        try:
            return await self.run(call, *args, **kwargs)
        finally:
            self.step, took_s = None, time.monotonic() - now.began_s
            self._meter.step(pipeline, stage, took_s)
            self._handoff.took(pipeline, stage, took_s)

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The answer of a call that is no step."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, functools.partial(call, *args, **kwargs))

    def close(self) -> None:
        """Leave the device once the running call has ended; does not wait for it."""
        self._thread.submit(self._device.leave)
        self._thread.shutdown(wait=False)
