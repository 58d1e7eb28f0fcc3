"""Decides when a worker fetches messages, and how many: credit in items, bytes and seconds.

A worker that has work for longer than `prefetch_s` (less where items are long) requests nothing and withdraws its
requests, so that work does not wait in a slow worker while a fast one is idle. A worker that is about to run out of
work requests more in time to hide the broker's round trip.
"""

import asyncio
import math
import time

from pipelines.broker import Broker
from pipelines.delivery import Delivery
from pipelines.pull import Pull
from schemas.jobs import Priority
from schemas.pipeline import PipelineSpec
from schemas.settings import Settings
from workers.continuing import is_urgent
from workers.credit import Credit
from workers.enough_decoded import EnoughDecoded
from workers.in_flight import Queue, Task
from workers.io_intake import Accept, IoIntake, open_pull, queues_of
from workers.messages_in_flight import MessagesInFlight
from workers.roles import WorkerRoles
from workers.tail import Tail
from workers.turns import Turns

PATIENCE_S = 0.005  # a queue with messages answers within this
LATE_S = 0.1  # and of a busy broker within this: a batch that is not full waits so long for its answer
PREEMPTING = 2  # interactive messages that a worker takes while it has bulk work for long: the next one waits here


class Intake:
    """Keeps the right number of requests open on every queue that this worker hosts."""

    def __init__(
        self, broker: Broker, settings: Settings, in_flight: MessagesInFlight, accept: Accept, concurrency: int = 1
    ) -> None:
        """`concurrency`: items that the device works on at a time; with fewer in flight it is partly idle."""
        self._broker = broker
        self.concurrency = concurrency
        self._settings = settings
        self._credit = Credit(settings, in_flight, concurrency)
        self._in_flight = in_flight
        self._accept = accept
        self._pulls: dict[Queue, Pull] = {}
        self._turns = Turns(in_flight.shares)
        self._enough_decoded = EnoughDecoded(in_flight, self._turns.depth, concurrency)
        self._full: set[Queue] = set()  # queues that had more messages at the last delivery
        self._late_until_s: dict[Queue, float] = {}  # queues that had more and have not answered: until when they may
        self._asked: Queue | None = None  # the one of them with an open request
        self._asked_s = 0.0
        self.io = IoIntake(broker, settings)
        self._later: asyncio.TimerHandle | None = None
        self._soon = False  # it refills after this step of the event loop
        self._paused = False
        self.cordoned = self.off_hours = self.quarantined = False
        self._closed = False
        self.tail = Tail(in_flight)
        self._turns.weigh(broker.tenants)
        self.roles = WorkerRoles()
        self.roles.on_change = self._roles_changed

    def _roles_changed(self) -> None:
        for queue in [queue for queue in self._pulls if not self._takes(queue)]:
            self._full.discard(queue)
            self._pulls[queue].withdraw()
        self.refill()

    def _takes(self, queue: Queue) -> bool:
        return self.roles.takes(queue.pipeline, queue.stage) and not self.tail.left(queue)

    async def host(self, spec: PipelineSpec, stages: list[str]) -> None:
        """Also take from the queues of these stages, both priorities of all tenants."""
        for depth, stage in enumerate(stages):
            stream = self._broker.names.work_stream(spec.name, stage)
            for queue in queues_of(self._broker, spec, stage):
                if queue not in self._pulls:
                    self._turns.depth[queue] = depth
                    self._pulls[queue] = await open_pull(self._broker, queue, stream, self._take)
        self.refill()

    async def leave_tenants(self) -> None:
        """Take the weights of the tenants that the fleet has now, and nothing more from the queues of others.

        What they have in flight is dropped: no stream takes its results any more.
        """
        self._turns.weigh(self._broker.tenants)
        for message in list(self._in_flight.messages):
            if self._broker.names.lacks(message.queue.tenant):
                await message.cancel()
        for queue in [each for each in self._pulls if self._broker.names.lacks(each.tenant)]:
            self._full.discard(queue)
            self._late_until_s.pop(queue, None)
            self._asked = None if self._asked == queue else self._asked
            await self._pulls.pop(queue).close()
        await self.io.leave()

    def refill_soon(self) -> None:
        """`refill` once after this step of the event loop; called when a message comes, ends or makes progress."""
        if not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self._refill_if_due)

    def step_begins(self) -> None:
        """The computing thread begins a step. A device that works on several items takes more as these are decoded."""
        if self.concurrency == 1:
            self.refill_soon()

    def _refill_if_due(self) -> None:
        if self._soon:
            self.refill()

    def refill(self) -> None:
        """Request as many messages as there is credit for."""
        self._soon = False
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._closed or self._paused or self.cordoned:
            return
        if self._enough_decoded.update():
            for queue in [each for each in self._pulls if self._enough_decoded.skips(each) and each not in self._full]:
                self._pulls[queue].withdraw()
                self._late_until_s.pop(queue, None)
        left_s = self.tail.left_s  # before a queue is passed over: one whose time ends meanwhile must be asked later
        free_items, shortfall_s = self._credit.free_items, self._credit.shortfall_s
        if not self._credit.allows(free_items, shortfall_s):
            if self._credit.lacks_long(shortfall_s):
                self._withdraw(urgent_too=not (self._in_flight.continuing.busy or self._preempts()))
            self._ask_urgent()
            again_s = max(0.001, -shortfall_s) if shortfall_s <= 0.0 else PATIENCE_S
        else:
            self._credit.is_back()
            self._ask(free_items, shortfall_s)
            again_s = PATIENCE_S if self._asked is not None or self._full else self._settings.prefetch_s
        again_s = min(again_s, left_s or math.inf)
        # the queues of other tenants are passed over until these answer, or are late: then they must be asked
        late = self._turns.shared and bool(self._unanswered(time.monotonic()))
        again_s = PATIENCE_S if late else again_s
        waits = late or self._in_flight.messages or self._full or self._asked is not None or left_s
        if again_s < math.inf and waits:
            self._later = asyncio.get_running_loop().call_later(again_s, self.refill)

    def coming(self, task: Task, work_s: float) -> bool:
        """Whether messages of a task's stage, or of earlier ones, wait at the broker, and there is credit for them.

        Not for a worker whose work takes long already, `work_s`: it would only keep them from faster ones.
        """
        enough = self._credit.free_items <= 0 or work_s >= self._settings.prefetch_s
        if self._closed or self._paused or self.cordoned or enough:
            return False
        now, name, depth = time.monotonic(), task.pipeline.spec.name, task.depth
        late = [queue for queue, until_s in self._late_until_s.items() if now < until_s]
        return not self._credit.too_large and any(
            queue.pipeline == name and self._turns.depth[queue] <= depth for queue in (*self._full, *late)
        )

    def _ask(self, free_items: int, shortfall_s: float) -> None:
        """Keep a request at every queue that seems empty, and at one of the queues that had more messages.

        That one answers at once. With requests at all of them, a slow worker would get a message of each.
        """
        now = time.monotonic()
        if self._asked is not None:
            if now - self._asked_s < PATIENCE_S:
                return
            self._full.discard(self._asked)
            self._late_until_s[self._asked] = self._asked_s + LATE_S
        if self._turns.shared:
            self._turns.wait(self._full | self._unanswered(now))
        for queue, pull in self._pulls.items():
            if queue in self._full or pull.outstanding or self._turns.ahead(queue) or self._enough_decoded.skips(queue):
                continue
            if self._takes(queue):
                pull.request(1)
                if queue in self._late_until_s:  # its last request was withdrawn
                    self._late_until_s[queue] = now + LATE_S
        self._asked = min(
            (each for each in self._full if not self._turns.ahead(each)), key=self._turns.turn, default=None
        )
        if self._asked is not None:
            pull, prefetch_s = self._pulls[self._asked], max(0.0, shortfall_s)
            more = int(prefetch_s / max(PATIENCE_S / free_items, self._in_flight.pace_s(self._asked)))
            wanted = min(free_items, max(self._credit.more_to_decode, 1) + more)
            pull.request(wanted - pull.outstanding)
            self._asked_s = now

    def _unanswered(self, now: float) -> set[Queue]:
        """Queues that had more messages and have not answered since: they have work, most likely.

        One whose request was withdrawn stays among them until a new request stands for `LATE_S`: its tenant would lose
        its turn otherwise, and what it is owed. Where nothing is taken, no tenant waits: all others would wait for it.
        """
        late = {queue: until_s for queue, until_s in self._late_until_s.items() if self._takes(queue)}
        return {queue for queue, until_s in late.items() if now < until_s or not self.outstanding(queue)}

    def _ask_urgent(self) -> None:
        """Keep requests at interactive queues while a message of them could join the work that is going on, or go
        before it at its next step.
        """
        if self._urgent_room() and not self._credit.too_large:
            urgent = (each for each in self._pulls if each.priority is Priority.INTERACTIVE and self._takes(each))
            for queue in urgent:
                if not self._pulls[queue].outstanding and not self._turns.ahead(queue):
                    self._pulls[queue].request(1)

    def _urgent_room(self) -> bool:
        return self._in_flight.urgent_room > 0 or self._preempts()

    def _excess(self, queue: Queue) -> bool:
        """Whether a person's message is one too many beside bulk work: each of their queues had a request."""
        held = self._in_flight.messages
        urgent = sum(map(is_urgent, held))
        if queue.priority is not Priority.INTERACTIVE or not PREEMPTING <= urgent < len(held):
            return False
        credit = self._credit
        return not (self._urgent_room() or credit.allows(credit.free_items, credit.shortfall_s))

    def _preempts(self) -> bool:
        """Whether a person would wait for bulk work that is in hand, and more of it waits for the whole fleet."""
        urgent = sum(map(is_urgent, self._in_flight.messages))
        return bool(self._full) and urgent < PREEMPTING

    async def _take(self, queue: Queue, delivery: Delivery) -> None:
        if self._paused or self.cordoned or self.tail.leaves(queue, delivery.pending + 1):
            await delivery.release()
            self._roles_changed()
            return
        if self._excess(queue):  # others have time for it
            self._withdraw()
            await delivery.release()
            return
        self._turns.took(queue)
        if queue == self._asked:
            self._asked = None
        self._late_until_s.pop(queue, None)
        if delivery.pending and self._takes(queue):
            self._full.add(queue)
        else:
            self._full.discard(queue)
        await self._accept(queue, delivery)

    def outstanding(self, queue: Queue) -> int:
        """How many open requests this worker has at a queue."""
        return self._pulls[queue].outstanding if queue in self._pulls else 0

    def pause(self) -> None:
        """Withdraw all requests: the computing thread is stuck, and new messages would wait for it."""
        self._paused = True
        self._withdraw()

    def resume(self) -> None:
        """Request messages again."""
        self._paused = False
        self.refill()

    def cordon(self) -> None:
        """Request nothing more of any stage until `uncordon`; what is in flight goes on."""
        self.cordoned = True
        self._withdraw()
        self.io.stop()

    def uncordon(self) -> None:
        """Request messages again."""
        self.cordoned = False
        self.io.go_on()
        self.refill()

    def _withdraw(self, urgent_too: bool = True) -> None:
        self._asked = None
        for queue, pull in self._pulls.items():
            if urgent_too or queue.priority is not Priority.INTERACTIVE:
                pull.withdraw()

    async def close(self) -> None:
        """Request nothing more; messages that still arrive are handed back."""
        if self._closed:
            return
        self._closed = True
        if self._later is not None:
            self._later.cancel()
        await asyncio.gather(self.io.close(), *(pull.close() for pull in self._pulls.values()))
