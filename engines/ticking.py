"""Reports progress from inside of a step that cannot: one run of a model over a long item."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from engines.part import Tick

_EVERY_S = 1.0


@contextmanager
def ticking(tick: Tick, most_s: float) -> Iterator[None]:
    """Call `tick` each second inside of the block, for at most `most_s`: what takes longer is taken for stuck."""
    done = threading.Event()

    def beat() -> None:
        for _ in range(int(most_s / _EVERY_S)):
            if done.wait(_EVERY_S):
                return
            tick()

    thread = threading.Thread(target=beat, name="ticking", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
