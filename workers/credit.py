"""How much more work a worker may take: credit in items, bytes and seconds."""

import math
import time

from schemas.settings import Settings
from workers.enough_decoded import HELD_S
from workers.messages_in_flight import MessagesInFlight

_DECODED_TIMES = 2  # items that are decoded and not yet done, for each that the device works on at a time


class Credit:
    """The credit of one worker, by what is in flight. `concurrency`: see `Intake`."""

    def __init__(self, settings: Settings, in_flight: MessagesInFlight, concurrency: int) -> None:
        self._settings, self._in_flight, self._concurrency = settings, in_flight, concurrency
        self._full_since_s = math.inf  # since when there has been none

    @property
    def too_large(self) -> bool:
        """Whether the messages in flight have all bytes that they may have."""
        return self._in_flight.nbytes >= self._settings.credit_bytes

    @property
    def more_to_decode(self) -> int:
        """How many more items keep the device's decoders busy."""
        return self._in_flight.more_to_decode(self._concurrency, self._settings.prefetch_s)

    @property
    def free_items(self) -> int:
        """How many more items may be in flight."""
        most = max(self._settings.credit_items, 2 * self._concurrency - 2, self._in_flight.continuing.places)
        free = most - len(self._in_flight.messages)
        if self._concurrency == 1 or free > 0 or self._in_flight.part_bytes >= self._settings.credit_bytes:
            return free
        # what is decoded waits for its batch or for the broker: no decoder shall be idle meanwhile
        most_decoded = _DECODED_TIMES * self._concurrency
        return min(most - self._in_flight.busy(self._concurrency), most + most_decoded - len(self._in_flight.messages))

    @property
    def shortfall_s(self) -> float:
        """Seconds of work that are missing; below 0: there is more than enough."""
        prefetch_s = self._settings.prefetch_s
        shortfall_s = self._in_flight.prefetch_s(prefetch_s) - self._in_flight.remaining_s()
        if self.more_to_decode > 0:
            return max(shortfall_s, prefetch_s)
        if self._concurrency > 1 and self._in_flight.throughput.slowest_s > prefetch_s:
            return min(shortfall_s, -prefetch_s)  # asks for no more; what is asked already stays
        return shortfall_s

    def allows(self, free_items: int, shortfall_s: float) -> bool:
        """Whether there is any."""
        return not self._in_flight.messages or (shortfall_s > 0.0 and free_items > 0 and not self.too_large)

    def is_back(self) -> None:
        """There is some again."""
        self._full_since_s = math.inf

    def lacks_long(self, shortfall_s: float) -> bool:
        """Whether it has been missing long enough to withdraw requests, which costs a new subscription a queue."""
        prefetch_s = self._settings.prefetch_s
        missing = shortfall_s > 0.0 or shortfall_s < -prefetch_s
        short = 0.0 < self._in_flight.throughput.slowest_s <= prefetch_s
        held = self._concurrency > 1 and (shortfall_s > 0.0 or short)
        if not (missing and held) or self.too_large:
            self._full_since_s = math.inf
            return missing
        now_s = time.monotonic()
        self._full_since_s = min(self._full_since_s, now_s)
        return now_s - self._full_since_s >= HELD_S
