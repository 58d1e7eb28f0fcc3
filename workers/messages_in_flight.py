"""The messages in flight in one worker, and an estimate of the time that they need."""

import itertools
import math
import time
from collections.abc import Iterable, Sequence

from pipelines.cancelled import Cancelled
from placement.fair_share import UNKNOWN_S, FairShare
from placement.fleet import AHEAD_PARTS, AHEAD_S, pieces_to_decode
from schemas.subjects import SPLIT
from workers.continuing import Continuing, is_urgent
from workers.in_flight import InFlight, Queue, Task
from workers.throughput import Throughput

TAIL = 1 / 8  # the share of its own time that a long item may wait with a worker before it begins


class MessagesInFlight:
    """`messages` are for the computing thread; `io_messages` are those of `split` and `collect`."""

    def __init__(self) -> None:
        self.messages: set[InFlight] = set()
        self.io_messages: set[InFlight] = set()
        self.idle = False  # all messages wait until a batch is full
        self.continuing = Continuing()
        self.throughput = Throughput()
        self.shares = FairShare()  # of the device, among the tenants
        self._predicted_s: dict[InFlight, float] = {}  # as the shares count it
        self._undecoded: set[InFlight] = set()  # when they were last counted, and those that came since
        self._pace_s: dict[tuple[str, str], float] = {}
        self._computing: Sequence[InFlight] = ()
        self._since_s = 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of all messages for the computing thread."""
        return sum(message.nbytes for message in self.messages)

    @property
    def poison_candidates(self) -> list[InFlight]:
        """Messages that an earlier attempt did not finish."""
        return [message for message in self.messages if message.attempts]

    async def follow(self, cancelled: Cancelled) -> None:
        """Drop the messages of each job that is cancelled; runs until this asyncio task is."""
        async for _ in cancelled.follow():
            for message in list(self.messages):
                if message.job is not None and cancelled.has(message.job):
                    await message.cancel()

    @property
    def urgent(self) -> bool:
        """Whether there is a message that a person waits for. Called by any thread."""
        return any(map(is_urgent, (*list(self.messages), *list(self.io_messages))))

    @property
    def urgent_room(self) -> int:
        """How many more messages that a person waits for can join the work that is going on."""
        if not self.continuing.busy:
            return 0
        return self.continuing.places - sum(map(is_urgent, self.messages))

    @property
    def revisions(self) -> set[str]:
        """The pipeline revisions of the messages in flight, and of a step that still runs for a settled message."""
        messages = (*self.messages, *self.io_messages, *self._computing)
        return {message.job.revision for message in messages if message.job is not None}

    @property
    def undecoded(self) -> int:
        """How many messages keep a decoder busy, or will."""
        self._undecoded = {each for each in self._undecoded if not each.decoded}
        return len(self._undecoded)

    def busy(self, concurrency: int) -> int:
        """Messages that keep a device busy, or will, which works on so many at a time."""
        return len(self.messages) if concurrency == 1 else self.undecoded

    def more_to_decode(self, concurrency: int, prefetch_s: float) -> int:
        """How many more messages keep the device busy, those included that will begin within `prefetch_s`.

        None while its decoders are ahead of the computing thread.
        """
        if concurrency > 1 and self._decoders_ahead():
            return 0
        return pieces_to_decode(concurrency, self.throughput.slowest_s, prefetch_s) - self.busy(concurrency)

    def _decoders_ahead(self) -> bool:
        """Whether parts are decoded that will keep the computing thread busy until more are."""
        return self.remaining_s() >= AHEAD_S and _are_ahead(self.waiting())

    @property
    def decoded_ahead(self) -> bool:
        """Whether parts of segments that are decoded here are ready: the computing thread needs no parts of others."""
        own = (task for task in self.waiting() if task.part is not None or task.prefetch is not None)
        return _are_ahead(task for task in own if task.message.queue.stage == task.pipeline.spec.decode.name)

    @property
    def part_bytes(self) -> int:
        """Bytes of the decoded parts that wait for their next stage."""
        return sum(task.nbytes for task in self.waiting())

    @property
    def decoding(self) -> bool:
        """Whether a part is being decoded in advance. Called by any thread."""
        return any(task.pending for message in list(self.messages) for task in list(message.waiting))

    def waiting(self) -> list[Task]:
        """All tasks that wait for the computing thread."""
        return [task for message in self.messages for task in message.waiting]

    async def hand_back_all(self) -> None:
        """Hand back all messages for the computing thread."""
        for message in list(self.messages):
            await message.hand_back()

    def take(self, message: InFlight) -> None:
        """A message came in."""
        message.expected_s = self.pace_s(message.queue)
        predicted_s = UNKNOWN_S if message.expected_s == math.inf else message.expected_s
        self._predicted_s[message] = predicted_s
        self.shares.serve(message.queue.tenant, predicted_s)
        self.messages.add(message)
        self._undecoded.add(message)
        self._hurry(message)

    def take_io(self, message: InFlight) -> None:
        """A message of `split` or `collect` came in."""
        self.io_messages.add(message)
        if message.queue.stage == SPLIT:
            self._hurry(message)

    def _hurry(self, message: InFlight) -> None:
        """Have no step for bulk alone stand before a part that a person waits for."""
        if is_urgent(message):
            self.continuing.hurry(message.queue.pipeline)

    def drop(self, message: InFlight) -> None:
        """Remove a settled message; its computing time goes into the average of its queue."""
        self.io_messages.discard(message)
        if message not in self.messages:
            return
        self.messages.discard(message)
        self._undecoded.discard(message)
        self.shares.end(message.queue.tenant, message.spent_s - self._predicted_s.pop(message))
        self.throughput.ended(message, time.monotonic())
        known = self.pace_s(message.queue)
        pace = message.spent_s if known == math.inf else 0.7 * known + 0.3 * message.spent_s
        self._pace_s[message.queue.pipeline, message.queue.stage] = pace

    def pace_s(self, queue: Queue) -> float:
        """Seconds of computing of a message of a queue, as a moving average; infinite before the first is measured."""
        return self._pace_s.get((queue.pipeline, queue.stage), math.inf)

    def prefetch_s(self, most_s: float) -> float:
        """How long before its work ends a worker fetches more: `most_s`, less while it has a long message.

        A message that is fetched early waits here while another worker could compute it. For short messages `most_s`
        also covers a slow answer of the broker; before a long one it only has to cover the round trip.
        """
        longest_s = max((message.expected_s for message in self.messages), default=0.0)
        return min(most_s, max(most_s * most_s / longest_s, TAIL * longest_s)) if longest_s else most_s

    def computing(self, messages: Sequence[InFlight]) -> None:
        """Record that a step on `messages` begins, or with none that it ends. Its time is divided among them."""
        now = time.monotonic()
        for message in self._computing:
            message.spent_s += (now - self._since_s) / len(self._computing)
        self._computing, self._since_s = messages, now

    def remaining_s(self) -> float:
        """Seconds until all messages in flight are computed, by the measured times.

        A message that takes longer than expected is expected to take as much longer again.
        """
        if self.idle or self.continuing.has_room:
            return 0.0
        running_s = (time.monotonic() - self._since_s) / max(1, len(self._computing))
        remaining_s = 0.0
        for message in self.messages:
            left_s = message.expected_s - message.spent_s
            if message in self._computing:
                remaining_s += abs(left_s - running_s)
            elif left_s > 0.0:
                remaining_s += left_s
        return remaining_s


def _are_ahead(tasks: Iterable[Task]) -> bool:
    """Whether enough of these tasks have a part that is decoded."""
    ready = (task for task in tasks if task.part is not None or (task.prefetch and task.prefetch.ready))
    return len(list(itertools.islice(ready, AHEAD_PARTS))) == AHEAD_PARTS
