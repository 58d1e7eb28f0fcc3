"""What simulated workers have for too long while a faster one is free is done again there, as workers/stragglers.py.

Here only once no piece waits any more: while a publisher waits for room in a queue, real workers copy messages, too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from placement.events import Clock
from placement.simulated_machine import Held, Taker
from placement.simulated_queues import Message
from placement.tail import WORTH_S, repeats

_LOOK_S, _LOOK_SHARE = 1.0, 0.001  # between two looks, and of the time so far: few of a job of years
_STATUS_S = 3.0  # how old what is known of the others may be


class AtBroker(Protocol):
    """What the broker does with messages that are done again."""

    @property
    def workers(self) -> Sequence[Taker]:
        """All of them."""
        ...

    @property
    def idle(self) -> Mapping[Taker, None]:
        """The workers that wait for a message."""
        ...

    def return_(self, message: Message) -> None:
        """A message waits again."""
        ...

    def copy(self, message: Message) -> None:
        """A copy of a message waits, too, if its queue has room."""
        ...


@dataclass(slots=True)
class _Known:
    """What workers know of each other: the paces of those that were free, by worker, and since when."""

    free: dict[Taker, dict[tuple[int, int], float]]
    seen_s: float = -_STATUS_S


class Stragglers:
    """Looks every second or so, for as long as some worker waits while another has work and anything else happens."""

    def __init__(self, clock: Clock, broker: AtBroker) -> None:
        self._clock, self._broker = clock, broker
        self._known = _Known({})
        self._looking = False

    def begin(self) -> None:
        """A worker waits for a message."""
        if not self._looking:
            self._looking = True
            self._clock.after(max(_LOOK_S, _LOOK_SHARE * self._clock.now_s), self._look)

    def _look(self) -> None:
        self._looking = False
        if not self._broker.idle or self._clock.is_over:
            return
        now_s = self._clock.now_s
        if now_s - self._known.seen_s >= _STATUS_S:
            self._known = _Known({}, now_s)
            self._known.free = {worker: {} for worker in self._broker.idle if not worker.held}
        for worker in self._broker.workers:
            for message, held in sorted(worker.held.items(), key=lambda each: each[1].taken_s):
                self._look_at(worker, message, held, now_s - held.taken_s)
        self.begin()

    def _look_at(self, worker: Taker, message: Message, held: Held, age_s: float) -> None:
        if age_s < WORTH_S or message.copied:
            return
        kind, stage = message.piece.job.kind, message.queue.stage
        free = [other for other in self._known.free if other is not worker and stage in other.roles[kind].takes]
        paces = [pace_s for other in free if (pace_s := other.credit.message_s((kind, stage)))]
        if not paces or not repeats(age_s, min(paces), 0, min(paces)):
            return
        waits = (other for other in self._broker.idle if other is not worker and stage in other.roles[kind].takes)
        if next(waits, None) is None:
            return
        if worker.hand_back(message):
            self._broker.return_(message)
        else:
            self._broker.copy(message)
