"""Callbacks that keep an event loop from its other work, as asyncio's own log has them in its debug mode."""

import asyncio
import gc
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

SLOW_S = 0.05


@contextmanager
def slow_callbacks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Callbacks that asyncio logs as slow, and that took that time of this thread's processor.

    On a machine that others use, a callback is also slow that was not given the processor.
    """
    spent_s: dict[int, float] = {}  # by thread, for the publisher has a loop of its own
    run = asyncio.Handle._run

    def measured(handle: asyncio.Handle) -> None:
        began_s = time.thread_time()
        run(handle)
        spent_s[threading.get_ident()] = time.thread_time() - began_s

    found: list[str] = []
    watched = threading.get_ident()

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "took" in record.msg and record.thread == watched and spent_s[watched] >= SLOW_S:
                found.append(record.getMessage())

    handler, logger = Slow(), logging.getLogger("asyncio")
    monkeypatch.setattr(asyncio.Handle, "_run", measured)
    logger.addHandler(handler)
    gc.collect()
    gc.freeze()  # what other tests left in this process is not a worker's to look through
    try:
        yield found
    finally:
        logger.removeHandler(handler)
