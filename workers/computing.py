"""The one thread of a worker that computes; the event loop talks to the broker meanwhile.

Sessions of the device compute, and are closed, on this thread: ONNX Runtime GenAI and CUDA let no other one free what
it made. Models that a step on the host uses compute on a thread of `workers.beside` where that is in use.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from engines.ports import Device

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

    def __init__(self, device: Device) -> None:
        self._device = device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._queued: set[object] = set()
        self.step: Step | None = None

    @property
    def others_wait(self) -> bool:
        """Whether calls wait for the running one to end. Called by that one."""
        return bool(self._queued)

    async def run_step(self, pipeline: str, stage: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The answer of a step of a pipeline."""

        def step() -> T:
            self.step = Step(pipeline, stage, time.monotonic())
            try:
                return call(*args, **kwargs)
            finally:
                self.step = None

        return await self.run(step)

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The answer of a call that is no step."""

        place = object()

        def begin() -> T:
            self._queued.discard(place)
            return call(*args, **kwargs)

        self._queued.add(place)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, begin)
        finally:
            self._queued.discard(place)  # it was cancelled before it began

    def another(self) -> "ComputingThread":
        """Return a further thread of the same device; it starts with its first call."""
        return ComputingThread(self._device)

    def close(self) -> None:
        """Leave the device once the running call has ended; does not wait for it."""
        self._thread.submit(self._device.leave)
        self._thread.shutdown(wait=False)
