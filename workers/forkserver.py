"""Worker processes, made by the standard library's fork server: its imports are done once, and their memory is shared.

multiprocessing is not safe to call from two threads, and starting a process waits for the fork server's imports. So
one thread of this module makes all calls to it, and no event loop waits for them.
"""

import asyncio
import ctypes
import errno
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from schemas.errors import UsageError
from workers.options import WorkerOptions

T = TypeVar("T")
Entry = Callable[[WorkerOptions, socket.socket | None], Any]

LOST = 255  # multiprocessing's exit code of a process whose fork server ended
_PR_SET_PDEATHSIG = 1

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["workers.preload"])
_library = ThreadPoolExecutor(1, thread_name_prefix="processes")


def _submit(function: Callable[..., T], *arguments: Any) -> Future[T]:
    """That thread calls a function. Ctrl-C waits meanwhile: a pool never ends a thread whose start was cut short."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return _library.submit(function, *arguments)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_fork_server() -> None:
    """Start the fork server, unless it runs. Returns at once; its imports go on meanwhile. Raises UsageError."""
    _submit(_ensure_running).result()


def _ensure_running() -> None:
    """Its socket is in the folder for temporary files. Raises UsageError when that has too long a path for sockets."""
    # first, because it unblocks signals
    multiprocessing.resource_tracker.ensure_running()
    # Ctrl-C at a terminal is for us alone: the fork server is of our group until it has a session of its own
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        multiprocessing.forkserver.ensure_running()
    except OSError as error:
        if error.errno is not None:
            raise
        what = f"no worker can be started: {error}: {tempfile.gettempdir()} is the folder for temporary files"
        raise UsageError(what, "set TMPDIR to a folder with a short path") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class WorkerProcess:
    """A process that runs `entry(options, heartbeats)`: `start`, then `exited` or `wait`. It ends when this one does.

    `heartbeats` is the worker's end of the socket on which its supervisor listens. `pid` is 0 before `start` ends.
    """

    def __init__(self, options: WorkerOptions, entry: Entry, heartbeats: socket.socket | None = None) -> None:
        self._process = _context.Process(target=entry, args=(options, heartbeats), name=options.name, daemon=True)
        self.pid = 0
        self._exit_code: int | None = None
        self._exited: asyncio.Task[int] | None = None

    async def start(self) -> None:
        """Start it; waits for the fork server's imports.

        Raises OSError when the system cannot start a process now, and UsageError when it never can.
        """
        await asyncio.wrap_future(_submit(self._start))

    def start_now(self) -> None:
        """`start`, blocking."""
        _submit(self._start).result()

    def poll(self) -> int | None:
        """Exit code, or minus the signal that ended it; None while it runs."""
        return _submit(self._poll).result()

    def wait(self) -> int:
        """Block until it has ended; its exit code."""
        multiprocessing.connection.wait([self._process.sentinel])
        code = self.poll()
        assert code is not None
        return code

    async def exited(self) -> int:
        """Wait for its end; its exit code."""
        if self._exited is None:
            self._exited = asyncio.create_task(self._wait())
        return await asyncio.shield(self._exited)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended. A process that is being started gets it when it runs."""
        _submit(self._send, number)

    async def _wait(self) -> int:
        readable = asyncio.Event()
        loop, sentinel = asyncio.get_running_loop(), self._process.sentinel
        loop.add_reader(sentinel, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(sentinel)
        code = await asyncio.wrap_future(_submit(self._poll))
        assert code is not None
        return code

    def _start(self) -> None:
        _ensure_running()
        try:
            self._process.start()
        except EOFError as error:  # it was killed before it said which process it made; the next start makes another
            raise ConnectionResetError(errno.ECONNRESET, "the fork server ended") from error
        self.pid = self._process.pid or 0

    def _poll(self) -> int | None:
        if self._exit_code is None and self.pid:
            self._exit_code = self._process.exitcode
        return self._exit_code

    def _send(self, number: signal.Signals) -> None:
        if self.pid and self._poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def begin_session() -> None:
    """Give this process a session of its own, with the nice value of the session that it leaves.

    Linux shares the processor among sessions ("autogroups"), and a new one has the nice value 0. Without this, workers
    would be slowed by what the command that starts them is not slowed by, and the other way round.
    """
    autogroup, nice = Path("/proc/self/autogroup"), ""
    with suppress(OSError):  # not every system has it
        nice = autogroup.read_text().rpartition(" ")[2]
    os.setsid()
    with suppress(OSError):  # a lower one than 0 is for root
        autogroup.write_text(nice)


def end_with_parent() -> None:
    """Have the kernel end this process when its parent ends, even by kill -9 (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # SIGTERM would not end a stuck worker
