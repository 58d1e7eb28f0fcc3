"""Seconds from the end of one message to the end of the next, also where a worker decodes several at a time."""

from collections import deque

from workers.in_flight import InFlight, State

_MEAN_OF = 16  # messages; those that are computed together end together
Key = tuple[str, str]  # pipeline and stage


class Throughput:
    """Seconds from the end of one message to that of the next, by pipeline and stage, of the last messages."""

    def __init__(self) -> None:
        self._seconds: dict[Key, deque[float]] = {}
        self._last_s = 0.0

    def ended(self, message: InFlight, now_s: float) -> None:
        """A message has ended; counts if it was done here."""
        since_s, self._last_s = max(self._last_s, message.taken_s), now_s
        if message.state is State.ACKED:
            key = message.queue.pipeline, message.queue.stage
            self._seconds.setdefault(key, deque(maxlen=_MEAN_OF)).append(now_s - since_s)

    def message_s(self, pipeline: str, stage: str) -> float:
        """Seconds for one message; 0 before the first has ended."""
        known = self._seconds.get((pipeline, stage))
        return sum(known) / len(known) if known else 0.0

    @property
    def slowest_s(self) -> float:
        """Seconds for a message of the slowest queue; 0 before the first has ended."""
        return max((self.message_s(*key) for key in self._seconds), default=0.0)
