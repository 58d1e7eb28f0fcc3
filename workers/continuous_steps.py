"""Steps of work that goes on: parts begin, sessions do steps, new text is sent, and what is done is handed on.

Steps run in slices on the computing thread, one slice after the other, while the event loop sends what the slice before
made. A slice ends early for other tasks of that thread.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakSet

from engines.continuous import NewText, Stepping
from engines.part import Part
from pipelines.broker import Broker
from schemas.errors import BrokerError, RigflowError
from schemas.pipeline import OperatorStage
from schemas.subjects import HEADER_TYPE, SPLIT
from workers.batching import part_of
from workers.computing import ComputingThread
from workers.continuing import DELTA_EVERY_S, Work, is_urgent
from workers.handoff import Handoff
from workers.heartbeats import Heartbeats
from workers.in_flight import InFlight, Task, charge
from workers.intake import Intake
from workers.messages_in_flight import MessagesInFlight
from workers.telemetry import Meter
from workers.tracing import Traces
from workers.turns import BULK_TURN

SLICE_S = DELTA_EVERY_S
_JOINED_S = 0.05  # most that steps wait for a task that can join at once
_COMING_S = 0.1  # so long they wait for a question, from when it came, whose media is split or whose model is loaded


class Steps(Protocol):
    """The parts of a runner that steps need, and what it does with tasks."""

    meter: Meter
    traces: Traces
    in_flight: MessagesInFlight
    computing: ComputingThread
    heartbeats: Heartbeats
    handoff: Handoff
    intake: Intake

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


@dataclass(slots=True)
class _Slice:
    """What some steps of a session made: new text of parts, and tokens; or why it failed."""

    works: Sequence[Work]
    steps: int = 0
    seconds: float = 0.0
    news: list[tuple[Work, list[NewText]]] = field(default_factory=list)
    tokens: list[tuple[Work, int, list[float]]] = field(default_factory=list)
    done: list[Work] = field(default_factory=list)
    error: Exception | None = None


class ContinuousSteps:
    """Does the steps of the work that goes on in a runner, as long as there is any."""

    def __init__(self, broker: Broker, runner: Steps, on_end: Callable[[], None]) -> None:
        """`on_end` is called when there are no more steps: there was no more work, or they failed."""
        self._broker = broker
        self._runner = runner
        self._on_end = on_end
        self._work = runner.in_flight.continuing
        self._driving: asyncio.Task[None] | None = None
        self._advanced = asyncio.Event()
        self._joined = False  # a part has joined since the running slice began, which does not know of it
        self._begun: WeakSet[InFlight] = WeakSet()  # messages of which a part has joined
        self._passed = 0  # tasks in a row that joined before the next steps

    async def begin(self, task: Task, stage: OperatorStage) -> None:
        """Have a part join the work of its stage's session; its task stays active until it is done."""
        task.message.start(task)
        try:
            urgent = is_urgent(task.message)
            begun = await self._runner.on_device([task], task.pipeline.begin, stage, part_of(task), urgent)
            self._work.add(Work(task, *begun))
            self._joined = True
        except Exception as error:
            await self._end(task, error)
            return
        finally:  # not before: steps of a slice that does not know of a part would not send its first text
            self._begun.add(task.message)
        if self._driving is None or self._driving.done():
            self._driving = asyncio.create_task(self._drive())
            self._driving.add_done_callback(lambda _: self._on_end())

    def advanced(self) -> None:
        """A task may have had its turn on the computing thread. Raises the error by which steps have failed."""
        self._advanced.set()
        if self._driving is not None and self._driving.done() and not self._driving.cancelled():
            self._driving.result()

    async def close(self) -> None:
        """Do no more steps."""
        if self._driving is not None:
            self._driving.cancel()
            await asyncio.gather(self._driving, return_exceptions=True)

    async def _drive(self) -> None:
        """Do slices of steps. The next one begins before what the last one made is handed on, but for urgent text."""
        made: list[_Slice] = []
        while self._work.busy or made:
            await self._let_join()
            running = self._slices() if self._work.busy else None
            await self._hand_on(made)
            made = [] if running is None else await running
            for each in made:
                self._work.take(each.works if each.error is not None else each.done)
            await self._send_urgent(made)

    async def _let_join(self) -> None:
        """Wait while tasks that can join at once come before the next steps."""
        while self._passed < BULK_TURN and self._joining():
            self._passed += 1
            self._advanced.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._advanced.wait(), _JOINED_S)
        self._passed = 0

    def _joining(self) -> bool:
        """Whether a person's question is on its way to the model, a task waits that a person waits for, or any task
        while there is room for its answers.
        """
        waiting = [is_urgent(task.message) for task in self._runner.in_flight.waiting()]
        return any(waiting) or bool(waiting and self._work.has_room) or self._coming()

    def _coming(self) -> bool:
        """Whether a person's question to a model at work is on its way to it. Called by any thread."""
        in_flight, pipelines, since_s = self._runner.in_flight, self._work.pipelines, time.monotonic() - _COMING_S
        asked = [each for each in list(in_flight.messages) if each not in self._begun]
        asked = [each for each in asked if each.begun or each.taken_s > since_s]
        if not self._work.urgent:  # else other people would wait for it
            media = [each for each in list(in_flight.io_messages) if each.queue.stage == SPLIT]
            asked += [each for each in media if each.taken_s > since_s]
        return any(is_urgent(each) and each.queue.pipeline in pipelines for each in asked)

    def _slices(self) -> "asyncio.Future[list[_Slice]]":
        """Begin a slice of each session."""
        useless = self._work.useless
        self._work.take(useless)
        self._joined = False
        slices = [(session, _Slice(list(works))) for session, works in self._work.by_session()]
        self._runner.heartbeats.move()
        stage = (useless or slices[0][1].works)[0].task
        names = stage.pipeline.spec.name, stage.stage
        return asyncio.ensure_future(self._runner.computing.run_step(*names, self._sliced, slices, useless))

    def _sliced(self, slices: "Sequence[tuple[Stepping, _Slice]]", useless: Sequence[Work]) -> list[_Slice]:
        """On the computing thread: end useless work, and do steps of each session."""
        for work in useless:
            work.running.cancel()
        for session, each in slices:
            began_s = time.monotonic()
            try:
                self._step(session, each, began_s + SLICE_S)
            except Exception as error:
                each.error = error
            each.seconds = time.monotonic() - began_s
        return [each for _, each in slices]

    def _step(self, session: Stepping, made: _Slice, until_s: float) -> None:
        """Do steps for a short time, at least one, and begin what follows from answers that have ended."""
        while True:
            session.step(self._runner.heartbeats.tick)
            made.steps += 1
            for work in made.works:
                work.running.advance()
            made.done = [work for work in made.works if work.running.done]
            waited_for = self._joined or self._runner.computing.others_wait or self._coming()
            if waited_for or made.done or any(work.begins for work in made.works):
                break
            if not session.busy or time.monotonic() >= until_s:
                break
        now_s = time.monotonic()
        made.news = [(work, news) for work in made.works if (news := work.news(now_s))]
        made.tokens = [(work, *work.new_tokens()) for work in made.works]

    async def _hand_on(self, slices: Sequence[_Slice]) -> None:
        """Send what is new to subscribers, and end what is done or has failed."""
        runner = self._runner
        runner.heartbeats.move()
        for each in slices:
            charge([work.task for work in each.works], each.seconds)
            for work in each.works:
                work.message.spent_s += each.seconds / len(each.works)
            for work, tokens, firsts in each.tokens:
                runner.meter.written(work.task.pipeline.spec.name, work.task.stage, tokens, firsts)
            if each.steps:
                task = each.works[0].task
                runner.meter.step(task.pipeline.spec.name, task.stage, each.seconds)
                runner.handoff.took(task.pipeline.spec.name, task.stage, each.seconds / each.steps)
            for work, news in each.news:
                if not is_urgent(work.message):
                    await self._send(work, news)
            ended = [(work, each.error or work) for work in (each.works if each.error is not None else each.done)]
            await asyncio.gather(*(self._end(work.task, result) for work, result in ended))
        runner.intake.refill_soon()

    async def _send_urgent(self, slices: Sequence[_Slice]) -> None:
        """Send the new text that people wait for, before the next steps and the text of bulk."""
        for each in slices:
            for work, news in each.news:
                if is_urgent(work.message):
                    await self._send(work, news)

    async def _end(self, task: Task, result: Work | Exception) -> None:
        """A part is done, or its work has failed."""
        stage = task.pipeline.stage(task.stage)
        assert isinstance(stage, OperatorStage)
        self._runner.traces.ended(task, str(result) if isinstance(result, Exception) else "")
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

    async def _send(self, work: Work, news: Sequence[NewText]) -> None:
        """Send what is new to those who listen now. What cannot be sent is left out: the result has it all."""
        for delta in work.deltas(news):
            with contextlib.suppress(BrokerError):
                subject = self._broker.names.deltas(delta.key.job)
                self._broker.connection.send(subject, delta.encode(), headers={HEADER_TYPE: delta.type})
