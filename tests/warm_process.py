"""The processes of `engines.own_process` in tests: forked from one that has ONNX and its runtime imported already.

The imports take longer than what most tests have such a process for. It is a process of its own all the same: it has
pipes, an exit code and limits of its own, and may crash. Workers and commands that tests start have the product's way.
"""

import os
import pickle
import signal
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

from engines import own_process

_PYTHON, _ROOT = sys.executable, Path(__file__).parents[1]
_LARGEST = 1 << 17  # bytes of a folder's name and an environment


def install() -> None:
    """Have `in_own_process` start its processes by `start`, in this process."""
    own_process.subprocess = SimpleNamespace(Popen=start, PIPE=subprocess.PIPE)


def start(command: list[str], stdin: int, stdout: int, stderr: IO[bytes]) -> Any:
    """As `subprocess.Popen`; a test that wants another Python or other packages gets what it wants."""
    folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if sys.executable != _PYTHON or not set(folders) <= {"", *sys.path}:
        return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr)
    return _Forked(stderr)


@cache
def _server() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """The process that forks, and the socket of its requests; it ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    folders = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": folders, "OPENBLAS_NUM_THREADS": "1"}  # what forks must have no threads
    with theirs:
        command = [_PYTHON, "-m", __name__, str(theirs.fileno())]
        process = subprocess.Popen(
            command, cwd=_ROOT, env=environment, pass_fds=[theirs.fileno()], start_new_session=True
        )
    return ours, process


class _Forked:
    """What `in_own_process` uses of a `Popen`."""

    def __init__(self, stderr: IO[bytes]) -> None:
        given, write = os.pipe()
        read, made = os.pipe()
        self._code, code = os.pipe()
        self.stdin, self.stdout = os.fdopen(write, "wb"), os.fdopen(read, "rb")
        request = pickle.dumps((os.getcwd(), dict(os.environ)))
        socket.send_fds(_server()[0], [request], [given, made, stderr.fileno(), code])
        for each in (given, made, code):
            os.close(each)

    def __enter__(self) -> "_Forked":
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()
        os.close(self._code)

    def kill(self) -> None:
        """Nothing: no test lets one hang."""

    def wait(self) -> int:
        """Exit code, or minus the signal that ended it."""
        return int(os.read(self._code, 16))


def _serve(channel: socket.socket) -> None:
    """Fork for each request; the process between waits for the end, and reports it."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        request, given, _, _ = socket.recv_fds(channel, _LARGEST, 4)
        if not request:
            return
        if not os.fork():
            channel.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            pid = os.fork()
            if not pid:
                _become(given, *pickle.loads(request))
            for each in given[:3]:
                os.close(each)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            os.write(given[3], str(code).encode())
            os._exit(0)
        for each in given:
            os.close(each)


def _become(given: list[int], folder: str, environment: dict[str, str]) -> None:
    for number, each in enumerate(given[:3]):
        os.dup2(each, number)
    for each in given:
        os.close(each)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    try:
        own_process._main()
    finally:
        os._exit(1)


if __name__ == "__main__":
    import onnx  # noqa: F401

    import engines.inference.onnxruntime
    import engines.models.observe
    import engines.models.reading
    import engines.outputs.preview  # noqa: F401

    _serve(socket.socket(fileno=int(sys.argv[1])))
