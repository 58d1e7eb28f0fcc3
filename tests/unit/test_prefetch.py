"""Segments are decoded ahead on threads of their own, each in order, and whoever waits is told."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from engines.cuda.prefetch import PREFETCH_PARTS, Prefetcher


def parts(name: str, count: int, gate: threading.Event | None = None, error: Exception | None = None) -> Iterator[Any]:
    for number in range(count):
        if gate is not None:
            assert gate.wait(10)
        yield name, number
    if error is not None:
        raise error


@pytest.fixture
def prefetcher() -> Iterator[Prefetcher]:
    made = Prefetcher(3, lambda: None, lambda: None)
    yield made
    made.close()


def eventually(is_so: Any) -> None:
    until_s = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < until_s
        time.sleep(0.002)


def test_the_parts_of_each_segment_come_in_order(prefetcher: Prefetcher) -> None:
    readers: list[Any] = [prefetcher.reader(parts(str(n), 9), n % 2) for n in range(20)]
    for reader in readers[::2]:
        reader.begin()
    for number, reader in enumerate(readers):
        assert list(reader) == [(str(number), part) for part in range(9)]


def test_a_few_parts_are_decoded_ahead_and_each_is_reported(prefetcher: Prefetcher) -> None:
    told: list[bool] = []
    reader: Any = prefetcher.reader(parts("a", 5), 0)
    assert (reader.pending, reader.ready) == (False, False)
    reader.begin(lambda: told.append(reader.ready))
    eventually(lambda: len(told) == PREFETCH_PARTS)
    assert not reader.pending
    for count in range(5):
        eventually(lambda: reader.ready)
        assert next(reader) == ("a", count)
    eventually(lambda: len(told) == 6)  # the end, too
    assert all(told)
    assert next(reader, None) is None


def test_a_segment_that_is_slow_is_pending_while_others_are_ready(prefetcher: Prefetcher) -> None:
    gate, told = threading.Event(), threading.Event()
    slow: Any = prefetcher.reader(parts("slow", 2, gate), 0)
    fast: Any = prefetcher.reader(parts("fast", 2), 0)
    slow.begin(told.set)
    fast.begin(lambda: None)
    eventually(lambda: fast.ready)
    assert slow.pending
    gate.set()
    assert told.wait(10)
    eventually(lambda: not slow.pending)
    assert list(slow) == [("slow", 0), ("slow", 1)]


def test_an_error_is_reported_and_comes_after_the_parts_before_it(prefetcher: Prefetcher) -> None:
    told = threading.Event()
    reader: Any = prefetcher.reader(parts("a", 1, error=ValueError("damaged")), 0)
    reader.begin(told.set)
    assert next(reader) == ("a", 0)
    eventually(lambda: reader.ready)
    with pytest.raises(ValueError, match="damaged"):
        next(reader)
    assert told.is_set()
