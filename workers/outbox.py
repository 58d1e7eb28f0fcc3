"""Publishes output while the worker computes. Limits the unacknowledged bytes, and keeps a task active until its output
is stored.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from engines.part import Part
from pipelines.broker import Broker
from schemas.parts import PartHeader
from schemas.subjects import HEADER_AGAIN, HEADER_TYPE
from workers.in_flight import Task
from workers.tracing import onward

UNSENT_BYTES = 32 << 20  # unacknowledged bytes at which computing pauses (law 4)
CLOSE_S = 1.0  # the broker may be away


class Outbox:
    """Publishes while the worker computes; a task stays active until its output is stored (law 1).

    `on_error` is called when something cannot be published, before its task is finished.
    """

    def __init__(self, broker: Broker, on_error: Callable[[Task, Exception], Awaitable[None]]) -> None:
        self._broker = broker
        self._on_error = on_error
        self._sending: set[asyncio.Task[None]] = set()
        self._unsent_bytes = 0
        self._sent = asyncio.Event()

    def send_result(self, task: Task, part: Part, body: bytes) -> None:
        """Publish a part's result."""
        headers = {HEADER_TYPE: "part", **PartHeader.of(part.meta).headers(), **onward(task)}
        self._send_later(task, part, self._broker.names.results(part.meta.key.job), body, "result", headers)

    def send_on(self, task: Task, part: Part, stage: str, body: bytes) -> None:
        """Publish a part to the queue of its next stage."""
        key = part.meta.key
        subject = self._broker.names.work(key.job.pipeline, stage, key.job.priority, key.job.tenant)
        self._send_later(task, part, subject, body, stage, onward(task))

    def _send_later(
        self, task: Task, part: Part, subject: str, body: bytes, stage: str, headers: Mapping[str, str]
    ) -> None:
        """Publish `body`, which a task made of `part`, for a stage. What is done again has an id of its own."""
        again = task.message.delivery.headers.get(HEADER_AGAIN, "")
        message_id = part.meta.key.message_id(stage, again)
        headers = {**headers, HEADER_AGAIN: again} if again else headers
        self._unsent_bytes += len(body)
        # the arrays are not needed to report an error: their memory is freed meanwhile
        task = Task(task.message, task.pipeline, task.stage, part=part.with_arrays({}))
        task.message.hold(task)
        sending = asyncio.create_task(self._send(task, subject, body, message_id, headers))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    async def _send(self, task: Task, subject: str, body: bytes, message_id: str, headers: Mapping[str, str]) -> None:
        try:
            await self._broker.publish_soon(subject, body, message_id, headers)
        except Exception as error:
            await self._on_error(task, error)
        finally:
            self._unsent_bytes -= len(body)
            self._sent.set()
        await task.message.finish(task)

    async def wait_for_space(self) -> None:
        """Wait while more than `UNSENT_BYTES` are unacknowledged."""
        while self._unsent_bytes > UNSENT_BYTES:
            self._sent.clear()
            await self._sent.wait()

    async def close(self) -> None:
        """Wait `CLOSE_S` for what is on its way, and cancel the rest: the caller hands its messages back."""
        if self._sending:
            await asyncio.wait(self._sending, timeout=CLOSE_S)
        for sending in self._sending:
            sending.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
