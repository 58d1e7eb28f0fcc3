"""The messages that one worker holds, and how long the work on them will take."""

import math
import time
from collections.abc import Iterator, Sequence

from workers.in_flight import InFlight, Queue, Task

TAIL = 1 / 8  # the share of its own time that a long item may wait with a worker before it begins


class MessagesInFlight:
    """`messages` are for the computing thread; `io_messages` are those of `split` and `collect`, which mostly wait."""

    def __init__(self) -> None:
        self.messages: set[InFlight] = set()
        self.io_messages: set[InFlight] = set()
        self.idle = False  # all that is in hand waits for a batch to be filled
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
        return [message for message in self.messages if message.poison_candidate]

    @property
    def revisions(self) -> set[str]:
        """The pipeline revisions that the jobs in hand need, and those of a step that runs for a job that is over."""
        messages = (*self.messages, *self.io_messages, *self._computing)
        return {message.job.revision for message in messages if message.job is not None}

    def waiting(self) -> Iterator[Task]:
        """All tasks that wait for the computing thread."""
        for message in self.messages:
            yield from message.waiting

    def take(self, message: InFlight) -> None:
        """A message came in."""
        message.expected_s = self.pace_s(message.queue)
        self.messages.add(message)

    def drop(self, message: InFlight) -> None:
        """Remove a settled message; its computing time goes into the average of its queue."""
        self.io_messages.discard(message)
        if message not in self.messages:
            return
        self.messages.discard(message)
        known = self.pace_s(message.queue)
        pace = message.spent_s if known == math.inf else 0.7 * known + 0.3 * message.spent_s
        self._pace_s[message.queue.pipeline, message.queue.stage] = pace

    def pace_s(self, queue: Queue) -> float:
        """Seconds that one message of a queue takes, as a moving average; infinite before the first is measured."""
        return self._pace_s.get((queue.pipeline, queue.stage), math.inf)

    def prefetch_s(self, most_s: float) -> float:
        """How long before the work in hand ends a worker fetches more: `most_s`, less while a long message is in hand.

        A message that is fetched early waits here while another worker could compute it. Several short ones fit into
        that time, and it covers a slow answer of the broker; before a long one only the round trip needs covering.
        """
        longest_s = max((message.expected_s for message in self.messages), default=0.0)
        return min(most_s, max(most_s * most_s / longest_s, TAIL * longest_s)) if longest_s else most_s

    def computing(self, messages: Sequence[InFlight]) -> None:
        """A step on `messages` together begins; none: the step ends. Its time is shared among them."""
        now = time.monotonic()
        for message in self._computing:
            message.spent_s += (now - self._since_s) / len(self._computing)
        self._computing, self._since_s = messages, now

    def remaining_s(self) -> float:
        """Seconds until all messages in hand are through, as far as the measured paces say.

        One that takes longer than expected is expected to exceed its time by as much again.
        """
        if self.idle:
            return 0.0
        running_s = (time.monotonic() - self._since_s) / max(1, len(self._computing))
        remaining_s = 0.0
        for message in self.messages:
            if message in self._computing:
                remaining_s += abs(message.expected_s - message.spent_s - running_s)
            else:
                remaining_s += max(0.0, message.expected_s - message.spent_s)
        return remaining_s
