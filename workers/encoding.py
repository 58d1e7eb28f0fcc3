"""Encodes parts: on the computing thread, or on a thread apart where the device is to infer the next part meanwhile.

A GPU would be idle while an encoder works, which takes as long as a fast network does: NVENC is a unit of its own, and
x264 runs on the host.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from engines.part import Part
from schemas.pipeline import EncodeStage, OperatorStage
from workers.batching import part_of
from workers.computing import ComputingThread, P, T
from workers.heartbeats import Heartbeats
from workers.in_flight import InFlight, Task
from workers.last_steps import LastSteps
from workers.measured import Measured
from workers.outbox import Outbox
from workers.stages import LoadedPipeline
from workers.telemetry import Meter
from workers.tracing import Traces
from workers.trust import Trust

_MOST = 2  # parts on the thread apart: one is encoded, and one waits, so that memory stays bounded
_TOGETHER, _TOGETHER_S = 16, 0.005  # parts of a step on the computing thread, and seconds that it may take


class Runs(Protocol):
    """What encoding needs of a runner."""

    meter: Meter
    heartbeats: Heartbeats
    computing: ComputingThread
    measured: Measured
    trust: Trust
    traces: Traces
    counts: dict[str, int]

    async def begin(self, messages: Sequence[InFlight]) -> None:
        """Store that work on messages begins."""
        ...

    async def on_device(self, tasks: Sequence[Task], step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one step on the computing thread."""
        ...

    async def failed(self, task: Task, error: Exception) -> None:
        """A task failed."""
        ...

    def woken(self) -> None:
        """Tasks came or ended."""
        ...


class Encoding:
    """The last stage of a runner. `on_end` is called when a part that was encoded apart is done, or has failed."""

    def __init__(
        self, runner: Runs, outbox: Outbox, on_end: Callable[[], None], stays: Callable[[LoadedPipeline, str], bool]
    ) -> None:
        """`stays`: whether all parts for a stage stay in this process now."""
        self._runner, self._stays = runner, stays
        self._outbox = outbox
        self._on_end = on_end
        self._running: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()  # the wait for the part before is not measured as encoding
        self.apart = runner.computing.another()

    def beside(self, task: Task) -> int:
        """How many other parts are encoded in one step with this one: none before it is known how long one takes."""
        return max(0, min(_TOGETHER, int(_TOGETHER_S / max(1e-6, task.pipeline.encode_s))) - 1)

    def last_steps(self, tasks: Sequence[Task], stage: OperatorStage) -> LastSteps | None:
        """The step of an operator with the encoding behind it, if that is short, here, and in no trace as a step."""
        pipeline, name = tasks[0].pipeline, tasks[0].pipeline.after(stage.name)
        encode = None if name is None else pipeline.stage(name)
        if not isinstance(encode, EncodeStage) or name not in pipeline.hosted or pipeline.encodes_apart(encode):
            return None
        if (
            not self._stays(pipeline, encode.name)
            or self._runner.traces.on
            or len(tasks) * pipeline.encode_s > _TOGETHER_S
        ):
            return None
        return LastSteps(tasks, stage, encode, self._runner.trust.cards)

    async def send_next(self, steps: LastSteps, task: Task, part: Part) -> None:
        """Send what these steps encoded of `part`, which a task gave; it counts as handed on to the encoding."""
        if task.message.ended:
            return
        name, encode = task.pipeline.spec.name, steps.encode.name
        self._runner.meter.part(name, task.stage, part.meta.frames)
        self._runner.meter.task(name, encode)
        await self._sent(Task(task.message, task.pipeline, encode, part=part, trace=task.trace), steps.bodies[task])

    async def encode(self, tasks: Sequence[Task]) -> None:
        """Encode parts of one pipeline on the computing thread, together: a trip there costs as much as a short one."""
        signed = self._runner.trust.signed
        parts, tick = [signed(part_of(task)) for task in tasks], self._runner.heartbeats.tick
        bodies = await self._runner.on_device(tasks, tasks[0].pipeline.encode_all, parts, tick)
        for task, body in zip(tasks, bodies, strict=True):
            await self._sent(task, body)

    async def _sent(self, task: Task, body: bytes | Exception) -> None:
        try:
            if isinstance(body, Exception):
                raise body
            self._send(task, body)
        except Exception as error:  # an error of this part only
            await self._runner.failed(task, error)

    async def begin(self, task: Task) -> None:
        """Have a part encoded on the thread apart, once there is room; its task stays active until it is done."""
        while len(self._running) >= _MOST:
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        if task not in task.message.waiting:  # its job was cancelled meanwhile
            return
        task.message.start(task)
        running = asyncio.create_task(self._encode_apart(task))
        self._running.add(running)
        running.add_done_callback(self._ended)

    async def close(self) -> None:
        """Encode no more."""
        for running in self._running:
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self.apart.close()

    def _ended(self, running: asyncio.Task[None]) -> None:
        self._running.discard(running)
        self._on_end()

    async def _encode_apart(self, task: Task) -> None:
        encode, tick = task.pipeline.encode, self._runner.heartbeats.tick
        try:
            async with self._turn:
                part = self._runner.trust.signed(part_of(task))
                self._send(task, await run_apart(self._runner, self.apart, task, encode, part, tick))
        except Exception as error:
            await self._runner.failed(task, error)
        await task.message.finish(task)

    def _send(self, task: Task, body: bytes) -> None:
        if task.message.ended:
            return
        meter, part, names = self._runner.meter, part_of(task), (task.pipeline.spec.name, task.stage)
        self._runner.counts["results"] += 1
        meter.part(*names, part.meta.frames)
        meter.sent(*names, len(body))
        self._outbox.send_result(task, part, body)


async def run_apart(
    runner: Runs, thread: ComputingThread, task: Task, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run a step of a task on a thread apart, which is free. The seconds that it takes are recorded."""
    await runner.begin([task.message])
    began_s = time.monotonic()
    with runner.measured.step([task]):
        made = await thread.run_step(task.pipeline.spec.name, task.stage, step, *args, **kwargs)
    task.message.spent_s += time.monotonic() - began_s
    return made
