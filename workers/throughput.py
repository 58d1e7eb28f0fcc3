"""Seconds from the end of one message to the end of the next, also where a worker decodes several at a time; and the
bytes of these messages.
"""

from collections import deque
from dataclasses import dataclass

from workers.in_flight import InFlight, State

_MEAN_OF = 16  # groups of messages
_TOGETHER_S = 0.01  # messages that are computed together end together: within this time they are one group
Key = tuple[str, str]  # pipeline and stage


@dataclass(slots=True)
class _Group:
    """Messages that ended together, `seconds` after those before them."""

    seconds: float
    ended_s: float  # when the first of them did
    messages: int = 1
    nbytes: int = 0


class Throughput:
    """Seconds from the end of one message to that of the next, by pipeline and stage, of the last messages."""

    def __init__(self) -> None:
        self._groups: dict[Key, deque[_Group]] = {}
        self._means_s: dict[Key, float] = {}
        self._mean_bytes: dict[Key, float] = {}
        self._last_s = 0.0

    def ended(self, message: InFlight, now_s: float) -> None:
        """A message has ended; counts if it was done here."""
        since_s, self._last_s = max(self._last_s, message.taken_s), now_s
        if message.state is not State.ACKED:
            return
        key = message.queue.pipeline, message.queue.stage
        groups = self._groups.setdefault(key, deque(maxlen=_MEAN_OF))
        if groups and now_s - groups[-1].ended_s < _TOGETHER_S:
            groups[-1].seconds += now_s - since_s
            groups[-1].messages += 1
        else:
            groups.append(_Group(now_s - since_s, now_s))
        groups[-1].nbytes += message.delivery.stored_bytes
        messages = sum(each.messages for each in groups)
        self._means_s[key] = sum(each.seconds for each in groups) / messages
        self._mean_bytes[key] = sum(each.nbytes for each in groups) / messages

    def message_s(self, pipeline: str, stage: str) -> float:
        """Seconds for one message; 0 before the first has ended."""
        return self._means_s.get((pipeline, stage), 0.0)

    def message_bytes(self, pipeline: str, stage: str) -> float:
        """Bytes in its stream of one of the messages of `message_s`; 0 before the first has ended."""
        return self._mean_bytes.get((pipeline, stage), 0.0)

    @property
    def slowest_s(self) -> float:
        """Seconds for a message of the slowest queue; 0 before the first has ended."""
        return max(self._means_s.values(), default=0.0)
