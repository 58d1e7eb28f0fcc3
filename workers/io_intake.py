"""Takes the messages of `split` and `collect`: up to a limit at a time, because these stages mostly wait."""

import asyncio
import contextlib
import functools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from pipelines.broker import Broker
from pipelines.delivery import Delivery
from pipelines.pull import Pull
from schemas.errors import RigflowError
from schemas.jobs import Priority
from schemas.pipeline import PipelineSpec
from schemas.settings import Settings
from schemas.subjects import SPLIT
from workers.in_flight import Queue

Accept = Callable[[Queue, Delivery], Coroutine[Any, Any, None]]
AGAIN_S = 60.0  # between two looks at a tenant that has used its day: its limit may have changed
IO_REQUESTS = 8  # open at a queue of `split` or `collect`


def queues_of(broker: Broker, spec: PipelineSpec, stage: str) -> list[Queue]:
    """The queues of a stage: those that tenants share, and those of each listed tenant."""
    tenants = ("", *sorted(broker.names.tenants))
    return [Queue(spec.name, stage, priority, tenant) for tenant in tenants for priority in Priority]


async def open_pull(broker: Broker, queue: Queue, stream: str, accept: Accept) -> Pull:
    """A pull at the consumer of a queue; no message comes before it is asked for."""

    async def on_delivery(delivery: Delivery) -> None:
        await accept(queue, delivery)

    pull = Pull(broker, stream, broker.names.consumer(queue.priority, queue.tenant), on_delivery)
    await pull.open()
    return pull


@dataclass(slots=True)
class _IoPull:
    """A queue of `split` or `collect`, and how many messages of it this worker has."""

    pull: Pull
    limit: int
    messages: int = 0
    withheld: bool = False


class IoIntake:
    """The queues of `split` and `collect` that this worker hosts."""

    def __init__(self, broker: Broker, settings: Settings) -> None:
        self._broker = broker
        self._settings = settings
        self._pulls: dict[Queue, _IoPull] = {}
        self._tasks: dict[asyncio.Task[None], Queue] = {}
        self._withheld: dict[str, asyncio.Task[None]] = {}  # tenants that have used their day
        self._nbytes = 0  # the own bytes of the messages in hand
        self._stopped = False

    async def host(self, spec: PipelineSpec, stage: str, handle: Accept, limit: int) -> None:
        """Take messages of a stage, up to `limit` of a queue; fewer where the bytes of all are over `credit_bytes`."""
        names = self._broker.names
        for queue in queues_of(self._broker, spec, stage):
            if queue in self._pulls:
                continue
            media = names.media_stream(spec.name, queue.tenant)
            stream = media if stage == SPLIT else names.work_stream(spec.name, stage)
            accept = functools.partial(self._take, handle)
            self._pulls[queue] = _IoPull(await open_pull(self._broker, queue, stream, accept), limit)
            self._ask(self._pulls[queue])

    async def leave(self) -> None:
        """Take nothing more from the queues of tenants that the fleet no longer has, and end what they have in hand."""
        for queue in [each for each in self._pulls if self._broker.names.lacks(each.tenant)]:
            await self._pulls.pop(queue).pull.close()
        for task, queue in self._tasks.items():
            if self._broker.names.lacks(queue.tenant):
                task.cancel()

    async def _take(self, handle: Accept, queue: Queue, delivery: Delivery) -> None:
        taken = self._pulls.get(queue)
        if self._stopped or taken is None:
            await delivery.release()
            return
        task = asyncio.create_task(handle(queue, delivery))
        self._tasks[task] = queue
        taken.messages, self._nbytes = taken.messages + 1, self._nbytes + len(delivery.content)
        task.add_done_callback(functools.partial(self._done, taken, len(delivery.content)))
        self._ask(taken)

    def _done(self, taken: _IoPull, nbytes: int, task: "asyncio.Task[None]") -> None:
        del self._tasks[task]
        full = self._full
        taken.messages, self._nbytes = taken.messages - 1, self._nbytes - nbytes
        for each in self._pulls.values() if full and not self._full else (taken,):
            self._ask(each)

    @property
    def _full(self) -> bool:
        return self._nbytes >= self._settings.credit_bytes

    def _ask(self, taken: _IoPull) -> None:
        """Request as many as there is credit for; one always, so that no queue waits for the messages of another."""
        if self._stopped or taken.withheld:
            return
        wanted = 1 - taken.messages if self._full else min(IO_REQUESTS, taken.limit - taken.messages)
        taken.pull.request(wanted - taken.pull.outstanding)

    def withhold(self, tenant: str) -> None:
        """Fetch no raw media of a tenant until its quota admits it: they would be delivered, and put back."""
        if self._stopped:  # nothing is fetched
            return
        self._hold(tenant, withheld=True)
        if tenant not in self._withheld:
            self._withheld[tenant] = asyncio.create_task(self._until_admitted(tenant))

    def _hold(self, tenant: str, withheld: bool) -> None:
        for queue, each in self._pulls.items():
            if (queue.tenant, queue.stage) == (tenant, SPLIT):
                each.withheld = withheld
                each.pull.withdraw() if withheld else self._ask(each)

    async def _until_admitted(self, tenant: str) -> None:
        admitted = False
        while not admitted:
            await asyncio.sleep(AGAIN_S)
            with contextlib.suppress(RigflowError):  # the quota is reached, or the broker is away
                await self._broker.quotas.check(tenant)
                admitted = True
        del self._withheld[tenant]
        self._hold(tenant, withheld=False)

    def stop(self) -> None:
        """Request nothing more until `go_on`."""
        self._stopped = True
        for each in self._pulls.values():
            each.pull.withdraw()

    def go_on(self) -> None:
        """Request messages again."""
        self._stopped = False
        for each in self._pulls.values():
            self._ask(each)

    async def close(self) -> None:
        """Request nothing more, and hand back what is in hand."""
        self._stopped = True
        for waiting in self._withheld.values():
            waiting.cancel()
        await asyncio.gather(*(each.pull.close() for each in self._pulls.values()))
        await self.hand_back()

    async def hand_back(self) -> None:
        """Hand back the messages in hand."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
