"""The broker of simulated workers: queues, the workers that wait at them, and the publisher of the jobs."""

from collections import deque
from collections.abc import Callable, Iterator

from placement.events import Clock
from placement.simulated_machine import Taker, WorkerRules
from placement.simulated_queues import Message, Piece, SimJob, SimQueue
from placement.simulated_stragglers import Stragglers
from placement.tail import PAUSE_S, Leaving, TailWorker


class SimBroker:
    """Queues in front of stages. `open` jobs have not ended; `repeated` counts parts with a second result.

    `on_flow_end` is called once, when the last piece of all jobs was taken.
    """

    def __init__(self, clock: Clock, rules: WorkerRules, jobs: int, on_flow_end: Callable[[], None]) -> None:
        self.queues: dict[tuple[str, int], SimQueue] = {}
        self.open, self.repeated = jobs, 0
        self.workers: list[Taker] = []
        self._leaving: dict[Taker, Leaving[tuple[int, int]]] = {}
        self._clock, self._rules = clock, rules
        self._on_flow_end = on_flow_end
        self._stragglers = Stragglers(clock, self)
        self._flowing = True
        self._arriving = jobs  # those whose pieces are not all published
        self.idle: dict[Taker, None] = {}  # workers that wait for a message, in the order of their requests
        self._publishing: tuple[deque[Iterator[Piece]], deque[Iterator[Piece]]] = (deque(), deque())
        self._next: list[Piece | None] = [None, None]
        self._busy = [False, False]

    def take(self, worker: Taker) -> Message | None:
        """The next message for a worker: by priority, then the latest stage. Without one, it waits."""
        bulk_first = (worker.taken + 1) % self._rules.bulk_turn == 0
        for bulk in (bulk_first, not bulk_first):
            found = None
            for (_, stage), queue in self.queues.items():
                waiting = queue.waiting[bulk]
                if (
                    waiting
                    and stage in worker.roles[waiting[0].piece.job.kind].takes
                    and (not found or stage > found.stage)
                ):
                    found = queue
            if found and not self._left(worker, found, found.waiting[bulk]):
                return found.waiting[bulk].popleft()
        self.idle[worker] = None
        if self._flowing and not self._arriving and not any(queue.messages_waiting for queue in self.queues.values()):
            self._flowing = False
            self._on_flow_end()
        if not self._flowing:
            self._stragglers.begin()
        return None

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
        if left:
            self._clock.after(PAUSE_S, worker.refill)
        return left

    def workers_wait(self, worker: Taker, stage: int, piece: Piece) -> bool:
        """Whether another worker waits at the queue of a stage; true once for each that waits."""
        kind, queue = piece.job.kind, self.queue_of(piece, stage)
        promised = queue.messages_waiting + queue.promised
        for other in self.idle:
            if other is not worker and stage in other.roles[kind].takes and other.wants():
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
        key = piece.job.work.pipeline, stage
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
        self._publishing[not job.interactive].append(pieces)
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
        """Publish pieces while their queues have room; interactive jobs do not wait behind bulk."""
        for bulk in (False, True):
            if not self._busy[bulk]:
                self._publish_next(bulk)

    def _publish_next(self, bulk: bool) -> None:
        self._busy[bulk] = False
        piece = self._following(bulk, self._publishing[bulk])
        if piece is None:
            return
        queue, nbytes = self.queue_of(piece, 0), piece.job.work.piece_bytes
        if not queue.has_room(nbytes):
            queue.when_room(self._pump)
            return
        self._next[bulk] = None
        self._busy[bulk] = True
        queue.push(Message(piece, queue, 0, piece.job.parts, nbytes))
        self._clock.after(self._rules.publish_s, self._publish_next, bulk)
        self._offer(queue)

    def _following(self, bulk: int, jobs: deque[Iterator[Piece]]) -> Piece | None:
        while self._next[bulk] is None and jobs:
            self._next[bulk] = next(jobs[0], None)
            if self._next[bulk] is None:
                jobs.popleft()
                self._arriving -= 1
        return self._next[bulk]
