"""Which messages keep a decoder busy, as the credit of a worker counts them."""

import gc
import weakref
from types import SimpleNamespace
from typing import Any, cast

from schemas.jobs import Priority
from schemas.results import Attempt
from workers.in_flight import InFlight, Queue
from workers.messages_in_flight import MessagesInFlight

ATTEMPT = Attempt(number=1, worker="w", host="h", device="cpu", at_s=1.0)


def message() -> InFlight:
    delivery = SimpleNamespace(nbytes=1, headers={})
    return InFlight(cast(Any, delivery), Queue("p", "decode", Priority.BULK), lambda _: None)


def task(parts: object) -> Any:
    return SimpleNamespace(parts=parts)


def test_a_message_that_has_ended_is_not_kept_where_nothing_counts_decoders() -> None:
    in_flight, ended = MessagesInFlight(), message()
    in_flight.take(ended)
    in_flight.drop(ended)
    kept = weakref.ref(ended)
    del ended
    gc.collect()
    assert kept() is None


def test_a_message_that_is_prepared_counts_until_it_is_decoded() -> None:
    """Work on it begins before it has a task: where the note of that takes long, it was counted as decoded for good."""
    in_flight, prepared = MessagesInFlight(), message()
    in_flight.take(prepared)
    prepared.begin(ATTEMPT)
    assert in_flight.undecoded == 1
    prepared.waiting.append(task(parts=iter(())))
    assert in_flight.undecoded == 1
    prepared.waiting[:] = [task(parts=None)]
    assert in_flight.undecoded == 0
    in_flight.drop(prepared)
    assert in_flight.undecoded == 0
