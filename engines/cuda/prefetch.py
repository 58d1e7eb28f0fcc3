"""Decodes ahead: several segments at a time on their own threads, a few parts each, while the worker infers."""

import heapq
import itertools
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator

from engines.part import Part

PREFETCH_PARTS = 2  # of one segment


class _Run:
    """One segment: its decoded parts, and its end or error. The lock of its `Prefetcher` protects all fields."""

    def __init__(self, parts: Iterator[Part], rank: int) -> None:
        self.parts = parts
        self.rank = rank
        self.ready: deque[Part] = deque()
        self.working = False  # queued or running
        self.over = False
        self.error: BaseException | None = None
        self.on_ready: Callable[[], None] | None = None


class _Reader:
    """The parts of a segment, in order; a reader that is no longer needed is just released."""

    def __init__(self, prefetcher: "Prefetcher", run: _Run) -> None:
        self._prefetcher = prefetcher
        self._run = run

    @property
    def ready(self) -> bool:
        """Return whether `next` returns at once."""
        return bool(self._run.ready) or self._run.over

    @property
    def pending(self) -> bool:
        """Return whether `on_ready` will be called, after which `next` returns at once."""
        return self._run.on_ready is not None and not self.ready

    def begin(self, on_ready: Callable[[], None] | None = None) -> None:
        """Begin to decode now; otherwise the first `next` does. `on_ready` is called on any thread for each part, and
        at the end.
        """
        self._run.on_ready = on_ready
        self._prefetcher.begin(self._run)

    def __iter__(self) -> Iterator[Part]:
        return self

    def __next__(self) -> Part:
        return self._prefetcher.take(self._run)


class Prefetcher:
    """Threads that decode: on each, `enter` runs first and `leave` last.

    No thread waits for a reader: when enough parts of a segment are decoded, its thread continues with another.
    """

    def __init__(self, threads: int, enter: Callable[[], None], leave: Callable[[], None]) -> None:
        self._enter, self._leave = enter, leave
        self._lock = threading.RLock()  # a reader may be dropped while the same thread holds it
        self._queued = threading.Condition(self._lock)  # a thread that decodes waits for it: one for each run
        self._decoded = threading.Condition(self._lock)
        self._queue: list[tuple[int, int, _Run]] = []
        self._numbers = itertools.count()
        self._closed = False
        self._threads = [threading.Thread(target=self._work, name=f"decode-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def reader(self, parts: Iterator[Part], rank: int) -> Iterator[Part]:
        """Return a reader that decodes `parts` ahead; segments of a lower `rank` come first."""
        run = _Run(parts, rank)
        reader = _Reader(self, run)
        weakref.finalize(reader, self._drop, run)
        return reader

    def begin(self, run: _Run) -> None:
        """Decode until enough parts of a run are ready."""
        with self._lock:
            if not run.working and not run.over and len(run.ready) < PREFETCH_PARTS:
                self._schedule(run)

    def take(self, run: _Run) -> Part:
        """Return the next part of a run and wait for it. Raises StopIteration at its end, and decoding errors."""
        self.begin(run)
        with self._lock:
            while not run.ready and not run.over:
                self._decoded.wait()
            if not run.ready:
                if run.error is not None:
                    raise run.error
                raise StopIteration
            part = run.ready.popleft()
            if not run.working and not run.over:
                self._schedule(run)
            return part

    def close(self) -> None:
        """End the threads; each finishes its current part first."""
        with self._lock:
            self._closed = True
            self._queued.notify_all()
        for thread in self._threads:
            thread.join()

    def _schedule(self, run: _Run) -> None:
        run.working = True
        heapq.heappush(self._queue, (run.rank, next(self._numbers), run))
        self._queued.notify()

    def _drop(self, run: _Run) -> None:
        with self._lock:
            run.over = True
            run.ready.clear()

    def _work(self) -> None:
        self._enter()
        try:
            while True:
                with self._lock:
                    while not self._queue and not self._closed:
                        self._queued.wait()
                    if self._closed:
                        return
                    run = heapq.heappop(self._queue)[-1]
                while self._step(run):
                    pass
                del run
        finally:
            self._leave()

    def _step(self, run: _Run) -> bool:
        """Decode one part; return whether the same segment continues at once."""
        part, error = None, None
        if not run.over:
            try:
                part = next(run.parts, None)
            except BaseException as raised:
                error = raised
        with self._lock:
            if part is None or run.over:
                run.over, run.error = True, error
                run.parts = iter(())  # frees its memory on a thread of the GPU
            else:
                run.ready.append(part)
            run.working = not run.over and len(run.ready) < PREFETCH_PARTS and not self._better(run)
            again = run.working
            if not run.working and not run.over and len(run.ready) < PREFETCH_PARTS:
                self._schedule(run)
            self._decoded.notify_all()
        if run.on_ready is not None:
            run.on_ready()
        return again

    def _better(self, run: _Run) -> bool:
        """Return whether a run of a lower rank waits."""
        return bool(self._queue) and self._queue[0][0] < run.rank
