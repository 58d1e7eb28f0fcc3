"""Workers are forked from a process that has imported everything: a rig pays for its imports once, and shares them.

Started as `python -m workers.forkserver SOCKET PARENT HOME`, and its workers keep that command line. It answers each
request (the options of a worker, the write end of a pipe, the worker's socket for beats) with the worker's process id
on that pipe, and with its exit code when it has ended. It and all workers end when the process that made it does.
"""

import asyncio
import contextlib
import ctypes
import gc
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

from schemas.errors import ExitCode

if TYPE_CHECKING:  # a client must not pay for these imports
    from workers.process import WorkerOptions

REQUEST_BYTES = 1 << 16
_WORD = struct.Struct("i")  # what the pipe carries: a process id, then an exit code, negative for a signal


class ForkedProcess:
    """A worker process; its id and its exit code come through `pipe`, which it owns."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._said = b""
        self._code: int | None = None
        self._ended: asyncio.Future[int] | None = None
        os.set_blocking(pipe, False)

    @property
    def pid(self) -> int:
        """Process id; waits for the fork, which waits for the fork server's imports."""
        while self.returncode is None and not self._said:
            select.select([self._pipe], [], [])
        return int(_WORD.unpack_from(self._said)[0]) if self._said else 0

    @property
    def returncode(self) -> int | None:
        """Exit code, or minus the signal that ended it; None while it runs."""
        if self._code is None:
            with contextlib.suppress(BlockingIOError):
                said = os.read(self._pipe, 2 * _WORD.size)
                self._said += said
                if len(self._said) == 2 * _WORD.size:
                    self._close(_WORD.unpack_from(self._said, _WORD.size)[0])
                elif not said:  # the fork server is no more, and the kernel ends its children with it
                    self._close(-signal.SIGKILL)
        return self._code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        if self.returncode is None and self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it at once."""
        self.send_signal(signal.SIGKILL)

    def wait(self) -> int:
        """Block until it has ended; its exit code."""
        while self.returncode is None:
            select.select([self._pipe], [], [])
        assert self._code is not None
        return self._code

    async def forked(self) -> int:
        """Wait for the fork without blocking; the process id."""
        while self.returncode is None and not self._said:
            readable = asyncio.Event()
            asyncio.get_running_loop().add_reader(self._pipe, readable.set)
            try:
                await readable.wait()
            finally:
                asyncio.get_running_loop().remove_reader(self._pipe)
        return self.pid

    async def ended(self) -> int:
        """Wait for its end without blocking; its exit code."""
        if self.returncode is None and self._ended is None:
            self._ended = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().add_reader(self._pipe, lambda: self.returncode)
        if self._ended is not None:
            await asyncio.shield(self._ended)
        assert self._code is not None
        return self._code

    def _close(self, code: int) -> None:
        self._code = code
        if self._ended is not None:
            self._ended.get_loop().remove_reader(self._pipe)
            if not self._ended.done():
                self._ended.set_result(code)
        os.close(self._pipe)


class ForkServer:
    """A fork server for this process: starts with its imports at once, so make it before your own.

    `home` is the folder of the rig whose workers these are, by which what a killed rig left is found. `module` is
    what it runs.
    """

    def __init__(self, home: str = "", module: str = "workers.forkserver") -> None:
        self._home = home
        self._module = module
        self._start()

    def _start(self) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", self._module, str(theirs.fileno()), str(os.getpid()), self._home]
            self._process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), start_new_session=True)

    def fork(self, options: "WorkerOptions", beats: socket.socket | None = None) -> ForkedProcess:
        """Have a worker made; `beats` is the socket on which it tells how it is. A dead server is replaced first."""
        pipe, theirs = os.pipe()
        try:
            given = [theirs] if beats is None else [theirs, beats.fileno()]
            body = options.model_dump_json().encode()
            try:
                socket.send_fds(self._channel, [body], given)
            except OSError:
                self.close()
                self._start()
                socket.send_fds(self._channel, [body], given)
        finally:
            os.close(theirs)
        return ForkedProcess(pipe)

    def close(self) -> None:
        """End it and every worker that it made."""
        self._channel.close()
        self._process.kill()
        self._process.wait()


def die_with(parent: int) -> None:
    """Have the kernel end this process when its parent dies, even by kill -9 (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG; nothing milder ends a worker that is stuck
    if os.getppid() != parent:  # it died before we asked
        os._exit(ExitCode.OK)


def serve(channel: socket.socket) -> None:
    """Fork a worker for each request, report each end, until the client is gone."""
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    pipes: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([channel.fileno(), awake], [], [])
        if awake in ready:
            os.read(awake, 512)
            _bury(pipes)
        if channel.fileno() in ready:
            body, given, _, _ = socket.recv_fds(channel, REQUEST_BYTES, 2)
            if not body:
                return
            pid = _fork(body, given, [channel.fileno(), awake, wake, *pipes.values()])
            with contextlib.suppress(BrokenPipeError):
                os.write(given[0], _WORD.pack(pid))
            pipes[pid] = given[0]
            for descriptor in given[1:]:
                os.close(descriptor)


def _bury(pipes: dict[int, int]) -> None:
    while pipes:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with contextlib.suppress(BrokenPipeError):
            os.write(pipes[pid], _WORD.pack(os.waitstatus_to_exitcode(status)))
        os.close(pipes.pop(pid))


def _fork(body: bytes, given: list[int], ours: list[int]) -> int:
    """Fork a worker; in the worker, does not return."""
    from workers.process import WorkerOptions, start

    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        die_with(parent)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        for descriptor in (*ours, given[0]):
            os.close(descriptor)
        options = WorkerOptions.model_validate_json(body)
        start(options.model_copy(update={"beats": given[1] if len(given) > 1 else -1}))
    finally:
        os._exit(1)  # whatever happens, never be a second fork server


def main() -> None:
    """Entry point of the fork server."""
    die_with(int(sys.argv[2]))
    for number in (signal.SIGTERM, signal.SIGINT):  # whoever ends the whole group means the workers, and they the rest
        signal.signal(number, signal.SIG_IGN)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a process that forks has no threads, and workers need none
    import uvloop  # noqa: F401

    import workers.process  # noqa: F401

    gc.freeze()  # what all share, no collection needs to touch
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
