"""The priority of this process's threads, which stays what its owner made it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from av.video.codeccontext import VideoCodecContext

_THREADS = Path("/proc/self/task")


@contextmanager
def kept_priority() -> Iterator[None]:
    """Leave the calling thread's priority as it is, and give it to the threads that begin meanwhile.

    Where the user is root, as in most containers, SVT-AV1 makes the thread that opens an encoder real-time, with the
    highest priority, and all threads of its own. They would take the processor from everything else on the machine,
    and the priority would stay after the encoder, also in processes that are started later.
    """
    if not _THREADS.exists():  # not Linux
        yield
        return
    policy, param, before = os.sched_getscheduler(0), os.sched_getparam(0), _threads()
    try:
        yield
    finally:
        for thread in {0} | _threads() - before:
            with suppress(ProcessLookupError):  # it has ended
                os.sched_setscheduler(thread, policy, param)


def open_encoder(encoder: VideoCodecContext) -> None:
    """Open an encoder, with `kept_priority`. Raises FFmpegError, ValueError."""
    with kept_priority():
        encoder.open(strict=False)


def _threads() -> set[int]:
    return {int(name) for name in os.listdir(_THREADS)}
