"""Steps of work that goes on: parts begin, every session does a step, and what is done is handed on."""

import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from engines.continuous import Stepping
from engines.part import Part
from pipelines.broker import Broker
from schemas.errors import BrokerError, RigflowError
from schemas.pipeline import OperatorStage
from schemas.results import Delta
from schemas.subjects import HEADER_TYPE
from workers.batching import part_of
from workers.computing import ComputingThread
from workers.continuing import Work, is_urgent
from workers.heartbeats import Heartbeats
from workers.in_flight import Task
from workers.intake import BULK_TURN
from workers.messages_in_flight import MessagesInFlight
from workers.telemetry import Meter

STEPS_S = 0.01  # a step takes from 3 ms on a GPU, and the way to the computing thread and back about 1 ms


class Steps(Protocol):
    """The parts of a runner that steps need, and what it does with tasks."""

    meter: Meter
    in_flight: MessagesInFlight
    computing: ComputingThread
    heartbeats: Heartbeats

    @property
    def on_device(self) -> Callable[..., Awaitable[Any]]:
        """Run one step of some tasks on the computing thread."""
        ...

    async def hand_over(self, task: Task, part: Part) -> None:
        """Give a part to the next stage."""
        ...

    async def failed(self, task: Task, error: Exception) -> None:
        """A task failed."""
        ...


def _stepped(session: Stepping, works: Sequence[Work], runner: Steps) -> None:
    """Do steps of a session for a short time, at least one, and begin what follows from answers that have ended.

    One alone while a person waits for a message here: its tasks come between the steps.
    """
    until_s = time.monotonic() + STEPS_S
    while True:
        session.step(runner.heartbeats.tick)
        for work in works:
            work.running.advance()
        if not session.busy or time.monotonic() >= until_s or runner.in_flight.urgent:
            return


class ContinuousSteps:
    """Does the steps of the work that goes on in a runner."""

    def __init__(self, broker: Broker, runner: Steps) -> None:
        self._broker = broker
        self._runner = runner
        self._work = runner.in_flight.continuing
        self._passed = 0  # steps in a row that were left out

    async def begin(self, task: Task, stage: OperatorStage) -> None:
        """Have a part join the work of its stage's session; its task stays active until it is done."""
        task.message.start(task)
        try:
            urgent = is_urgent(task.message)
            begun = await self._runner.on_device([task], task.pipeline.begin, stage, part_of(task), urgent)
            self._work.add(Work(task, *begun))
        except Exception as error:
            await self._end(task, error)

    async def step(self) -> bool:
        """Do a step of the work of each session, send what is new to subscribers, and hand on what is done.

        Returns whether there was work. A step is left out while parts that can join at once come before it.
        """
        if not self._work.busy:
            return False
        if self._passed < BULK_TURN and self._joining():
            self._passed += 1
            return True
        self._passed = 0
        if self._work.useless:
            await self._runner.computing.run(self._work.drop_useless)
        for session, works in list(self._work.by_session()):
            try:
                await self._runner.on_device([work.task for work in works], _stepped, session, works, self._runner)
            except Exception as error:
                for work in self._work.take(works):
                    await self._end(work.task, error)
                continue
            for work in works:
                self._runner.meter.written(work.task.pipeline.spec.name, work.task.stage, *work.new_tokens())
                await self._send(work.deltas(time.monotonic()))
        for work in self._work.take_done():
            await self._end(work.task, work)
        return True

    def _joining(self) -> bool:
        """Whether a task waits that a person waits for, or any task while there is room for its answers."""
        waiting = [is_urgent(task.message) for task in self._runner.in_flight.waiting()]
        return any(waiting) or (bool(waiting) and self._work.has_room)

    async def _end(self, task: Task, result: Work | Exception) -> None:
        """A part is done, or its work has failed."""
        stage = task.pipeline.stage(task.stage)
        assert isinstance(stage, OperatorStage)
        try:
            if isinstance(result, Exception):
                raise result
            outcome = task.pipeline.outcome(stage, part_of(task), result.running)
            if isinstance(outcome, RigflowError):
                raise outcome
            await self._runner.hand_over(task, outcome)
        except Exception as error:
            await self._runner.failed(task, error)
        await task.message.finish(task)

    async def _send(self, deltas: Sequence[Delta]) -> None:
        """Send what is new to those who listen now. What cannot be sent is left out: the result has it all."""
        for delta in deltas:
            with contextlib.suppress(BrokerError):
                subject = self._broker.names.deltas(delta.key.job)
                await self._broker.connection.send(subject, delta.encode(), headers={HEADER_TYPE: delta.type})
