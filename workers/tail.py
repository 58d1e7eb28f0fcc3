"""The tail of a job in one worker: a slow worker leaves the last messages of a queue to those that end them sooner."""

import math
import time
from collections.abc import Sequence

from placement.tail import PAUSE_S, WORTH_S, Leaving, TailWorker
from schemas.jobs import Priority
from workers.in_flight import Queue
from workers.messages_in_flight import MessagesInFlight
from workers.peers import Peer

FRESH_S = 8.0  # how long what is known of the others counts
WAIT_S = 3.0  # most seconds to wait for what they do


class Tail:
    """Which queues this worker leaves to others now. `update` says what the others do."""

    def __init__(self, in_flight: MessagesInFlight) -> None:
        self._in_flight = in_flight
        self._peers: Sequence[Peer] = ()
        self._seen_s = -FRESH_S
        self._waits_since_s = math.inf
        self._leaving = Leaving[Queue]()

    def update(self, peers: Sequence[Peer], seen_s: float) -> None:
        """Take what is known of the others."""
        self._peers, self._seen_s = peers, seen_s

    @property
    def left_s(self) -> float:
        """Seconds until the first queue that is left now is asked again; 0: none is."""
        now_s = time.monotonic()
        return min((until_s - now_s for until_s in self._leaving.until_s.values() if until_s > now_s), default=0.0)

    def left(self, queue: Queue) -> bool:
        """Whether a queue is left to the others now."""
        return self._leaving.until_s.get(queue, 0.0) > time.monotonic()

    def leave(self, queue: Queue) -> None:
        """Leave a queue to the others for a moment."""
        self._leaving.until_s[queue] = time.monotonic() + PAUSE_S

    def leaves(self, queue: Queue, waiting: int) -> bool:
        """Whether the next of `waiting` messages is left to the others, because they end all of them sooner.

        Until a message's time after they should have ended all, at most: see `Leaving`.
        """
        piece_s, now_s = self._in_flight.throughput.message_s(queue.pipeline, queue.stage), time.monotonic()
        if now_s - self._seen_s > FRESH_S:
            return self._waits_for_peers(queue, piece_s, now_s)
        self._waits_since_s = math.inf
        key = queue.pipeline, queue.stage
        others = [
            TailWorker(peer.message_s[key], 0.0 if peer.free else peer.message_s[key])
            for peer in self._peers
            if key in peer.message_s
        ]
        own_s = max(self._in_flight.remaining_s(), piece_s * len(self._in_flight.messages)) + piece_s
        return self._leaving.leaves(queue, piece_s, own_s, waiting, others, now_s)

    def _waits_for_peers(self, queue: Queue, piece_s: float, now_s: float) -> bool:
        """Whether a worker that has a long message takes no second one before it knows how long the others take.

        It reads that within a second, and waits for a few at most: they may not be readable now. Otherwise a card that
        decodes several segments at a time would take as many at once, while others could end all of them before it ends
        its first one.
        """
        if not self._in_flight.messages:
            self._waits_since_s = math.inf
            return False
        if piece_s < WORTH_S or queue.priority is Priority.INTERACTIVE:
            return False
        self._waits_since_s = min(self._waits_since_s, now_s)
        if now_s - self._waits_since_s > WAIT_S:
            return False
        self.leave(queue)
        return True
