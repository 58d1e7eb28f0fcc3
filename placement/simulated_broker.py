"""The broker of simulated workers: queues, the workers that wait at them, and the publisher of the jobs."""

import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from placement.events import Clock
from placement.fair_share import BURST_S
from placement.simulated_machine import Taker, WorkerRules
from placement.simulated_queues import Message, Piece, SimJob, SimQueue
from placement.simulated_stragglers import Stragglers
from placement.tail import PAUSE_S, Leaving, TailWorker


@dataclass(slots=True)
class _Feed:
    """What a publisher publishes one after the other: jobs of one tenant and priority."""

    jobs: deque[Iterator[Piece]] = field(default_factory=deque)
    next: Piece | None = None
    busy: bool = False

    @property
    def has_more(self) -> bool:
        return bool(self.next or self.jobs)


class SimBroker:
    """Queues in front of stages. `open` jobs have not ended; `repeated` counts parts with a second result.

    `on_flow_end` is called once, when the last piece of all jobs was taken. `shares` are the seconds of workers for
    each tenant, counted until one of them has nothing waiting any more.
    """

    def __init__(self, clock: Clock, rules: WorkerRules, jobs: int, on_flow_end: Callable[[], None]) -> None:
        self.queues: dict[tuple[str, int, str], SimQueue] = {}
        self.shares: defaultdict[str, float] = defaultdict(float)
        self.shared_s = math.inf  # when the first of them had nothing waiting
        self.open, self.repeated = jobs, 0
        self.workers: list[Taker] = []
        self._leaving: dict[Taker, Leaving[tuple[int, int]]] = {}
        self._clock, self._rules = clock, rules
        self._on_flow_end = on_flow_end
        self._stragglers = Stragglers(clock, self)
        self._again: set[Taker] = set()  # workers that ask again in a moment
        self._flowing = True
        self._arriving = jobs  # those whose pieces are not all published
        self.idle: dict[Taker, None] = {}  # workers that wait for a message, in the order of their requests
        self._feeds: dict[tuple[bool, str], _Feed] = {}  # whether it is bulk, and whose

    def take(self, worker: Taker) -> Message | None:
        """The next message for a worker: by priority, then the tenant whose share is next, then the latest stage.

        Without one, it waits.
        """
        bulk_first = (worker.taken + 1) % self._rules.bulk_turn == 0
        if self._rules.weights:
            self._wait(worker)
        for bulk in (bulk_first, not bulk_first):
            for queue in self._in_turn(worker, bulk):
                if not self._left(worker, queue, queue.waiting[bulk]):
                    return queue.waiting[bulk].popleft()
        self.idle[worker] = None
        if self._flowing and not self._arriving and not any(queue.messages_waiting for queue in self.queues.values()):
            self._flowing = False
            self._on_flow_end()
        if not self._flowing:
            self._stragglers.begin()
        return None

    def _in_turn(self, worker: Taker, bulk: bool) -> list[SimQueue]:
        """The queues with messages for a worker: of the tenant whose share is next, and of it the latest stage."""
        shares = worker.credit.shares
        found: list[tuple[float, int, int, SimQueue]] = []
        for (_, stage, tenant), queue in self.queues.items():
            waiting = queue.waiting[bulk]
            if waiting and stage in worker.roles[waiting[0].piece.job.kind].takes:
                tag = shares.tag(tenant) if self._rules.weights else 0.0
                if bulk or shares.ahead_s(tenant) <= BURST_S:  # others catch up; without any it is not ahead
                    found.append((tag, -stage, len(found), queue))
        return [queue for *_, queue in sorted(found)]

    def _wait(self, worker: Taker) -> None:
        """Tell the shares of a worker which tenants have work, and note when one has none."""
        waiting = {queue.tenant for queue in self.queues.values() if queue.messages_waiting}
        worker.credit.shares.wait(waiting)
        if self.shared_s == math.inf and not waiting >= self._rules.weights.keys():
            more = {tenant for (_, tenant), feed in self._feeds.items() if feed.has_more}
            self.shared_s = math.inf if waiting | more >= self._rules.weights.keys() else self._clock.now_s

    def serve(self, tenant: str, seconds: float, since_s: float) -> None:
        """A worker computed so many seconds for a tenant, from a moment until now."""
        took_s = self._clock.now_s - since_s
        while_all_wait_s = min(took_s, max(0.0, self.shared_s - since_s))
        self.shares[tenant] += seconds * while_all_wait_s / took_s if took_s else 0.0

    def _left(self, worker: Taker, queue: SimQueue, waiting: deque[Message]) -> bool:
        """Whether a worker leaves a queue to the others for now, which end all of it sooner; it asks again later."""
        kind = waiting[0].piece.job.kind
        key = kind, queue.stage
        if not (piece_s := worker.credit.message_s(key)):
            return False
        others = (other for other in self.workers if other is not worker and queue.stage in other.roles[kind].takes)
        paces = ((other.credit.message_s(key), bool(other.held)) for other in others)
        known = [TailWorker(each_s, each_s * busy) for each_s, busy in paces if each_s]
        leaving = self._leaving.setdefault(worker, Leaving())
        own_s = piece_s * (len(worker.held) + 1)
        left = leaving.leaves(key, piece_s, own_s, len(waiting), known, self._clock.now_s)
        if left and worker not in self._again:  # once, however many queues it leaves
            self._again.add(worker)
            self._clock.after(PAUSE_S, self._ask_again, worker)
        return left

    def _ask_again(self, worker: Taker) -> None:
        self._again.discard(worker)
        worker.refill()

    def workers_wait(self, worker: Taker, stage: int, piece: Piece) -> bool:
        """Whether another worker waits at the queue of a stage; true once for each that waits."""
        kind, queue = piece.job.kind, self.queue_of(piece, stage)
        promised = queue.messages_waiting + queue.promised
        for other in self.idle:
            able = other is not worker and stage in other.roles[kind].takes
            if able and not other.decoded_ahead and other.wants():
                promised -= 1
                if promised < 0:
                    return True
        return False

    def publish(self, piece: Piece, stage: int, part: int, nbytes: float) -> bool:
        """Put a part in front of a later stage; False: there is no room."""
        queue = self.queue_of(piece, stage)
        if not queue.has_room(nbytes):
            return False
        queue.promised = max(0, queue.promised - 1)
        queue.push(Message(piece, queue, part, 1, nbytes))
        self._offer(queue)
        return True

    def queue_of(self, piece: Piece, stage: int) -> SimQueue:
        """The queue of a stage."""
        key = piece.job.work.pipeline, stage, piece.job.tenant
        if key not in self.queues:
            self.queues[key] = SimQueue(*key, self._rules.queue_bytes)
        return self.queues[key]

    def _offer(self, queue: SimQueue) -> None:
        """Let workers that wait take what a queue has."""
        for worker in list(self.idle):
            waiting = queue.waiting[0] or queue.waiting[1]
            if not waiting:
                return
            if not worker.wants():
                del self.idle[worker]
            elif queue.stage in worker.roles[waiting[0].piece.job.kind].takes:
                del self.idle[worker]
                worker.give()

    def result(self, piece: Piece, part: int) -> None:
        """A part has its result; one that was there already counts as repeated work."""
        bit = 1 << part
        if piece.done & bit:
            self.repeated += 1
            return
        piece.done |= bit
        job = piece.job
        job.left -= 1
        if not job.left:
            job.end_s = self._clock.now_s
            self.open -= 1

    # the publisher

    def arrive(self, job: SimJob, pieces: Iterator[Piece]) -> None:
        """Publish a job from now on."""
        self._feeds.setdefault((not job.interactive, job.tenant), _Feed()).jobs.append(pieces)
        self._pump()

    def return_(self, message: Message) -> None:
        """A message that a worker did not finish waits again."""
        message.queue.return_(message)
        self._offer(message.queue)

    def copy(self, message: Message) -> None:
        """A copy of a message waits, too, if its queue has room."""
        message.copied = True
        queue = message.queue
        if queue.has_room(message.nbytes):
            again = Message(message.piece, queue, message.first, message.parts, message.nbytes)
            again.copied = True
            queue.push(again)
            self._offer(queue)

    def _pump(self) -> None:
        """Publish pieces while their queues have room; no job waits behind those of another tenant, or behind bulk."""
        for _, feed in sorted(self._feeds.items()):
            if not feed.busy:
                self._publish_next(feed)

    def _publish_next(self, feed: _Feed) -> None:
        feed.busy = False
        piece = self._following(feed)
        if piece is None:
            return
        queue, nbytes = self.queue_of(piece, 0), piece.job.work.piece_bytes
        if not queue.has_room(nbytes):
            queue.when_room(self._pump)
            return
        feed.next = None
        feed.busy = True
        queue.push(Message(piece, queue, 0, piece.job.parts, nbytes))
        self._clock.after(self._rules.publish_s, self._publish_next, feed)
        self._offer(queue)

    def _following(self, feed: _Feed) -> Piece | None:
        while feed.next is None and feed.jobs:
            feed.next = next(feed.jobs[0], None)
            if feed.next is None:
                feed.jobs.popleft()
                self._arriving -= 1
        return feed.next
