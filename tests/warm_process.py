"""Processes of tests that are forked from one that has their imports: commands, and those of `engines.own_process`.

The imports take longer than what most tests have such a process for. It is a process of its own all the same: a child
of the process of tests, with its own files, environment, folder, session, signals and exit code, and it may
crash. It runs what `python -m` runs. A command gets a real start where the start itself could differ: its environment
has other variables for Python, its libraries or the language than that of the process that forks. Fork servers, workers
and brokers that commands start have the product's way. Tests of the start itself, as of Ctrl-C while modules are
imported, start `COMMAND` by `subprocess`, or the script `cli/rigflow`.
"""

import ctypes
import gc
import importlib
import inspect
import logging
import os
import pickle
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from engines import own_process

COMMAND = (sys.executable, "-m", "cli")
_MODULES = (COMMAND[-1], "tests.process_facts")
_OWN = (sys.executable, "-P", "-m", own_process.__name__)
_ROOT = Path(__file__).parents[1]
_LARGEST = 1 << 17  # bytes of words, a folder's name and an environment
_READ_AT_START = ("PYTHON", "LANG", "LC_", "LD_", "MALLOC_", "OMP_", "OPENBLAS_", "ORT_", "TZ")
_PR_SET_CHILD_SUBREAPER = 36
_one_at_a_time = threading.Lock()


def install() -> None:
    """Have `in_own_process` start its processes here, in this process; no test has changed its environment yet."""
    _environment()
    own_process.subprocess = SimpleNamespace(Popen=WarmPopen, PIPE=subprocess.PIPE)


class WarmPopen(subprocess.Popen[Any]):
    """A `subprocess.Popen` that forks a process which has its imports, where that is as good as a new one."""

    def _execute_child(self, *given: Any) -> None:
        """What starts the process in `Popen`."""
        start = super()._execute_child
        options = inspect.signature(start).bind(*given).arguments
        words = list(options["args"])
        environment = dict(os.environ if options["env"] is None else options["env"])
        if not _may_fork(words, environment):
            start(*given)
            return
        pipes = [options[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")]
        files = [own if own >= 0 else number for number, own in enumerate((pipes[0], pipes[3], pipes[5]))]
        folder, mask = os.fspath(options["cwd"] or os.getcwd()), signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self.pid = _forked((words, folder, environment, mask, options["start_new_session"]), files)
        self._child_created = True
        self._close_pipe_fds(*pipes)


def _may_fork(words: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether a fork does what a new process with these words would do."""
    if words[0] == sys.executable == COMMAND[0] and tuple(words) == _OWN:
        return set(environment.get("PYTHONPATH", "").split(os.pathsep)) <= {"", *sys.path}
    is_ours = tuple(words[:2]) == COMMAND[:2] and words[2] in _MODULES
    return is_ours and _read_at_start(environment) == _read_at_start(_environment())


def _read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_READ_AT_START)}


@cache
def _environment() -> dict[str, str]:
    """The environment of a command, before a test changed its own."""
    from tests.cli import environment

    return environment()


@cache
def _server() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """The socket of requests to the process that forks, and that process; it ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = _environment() | {"OPENBLAS_NUM_THREADS": "1"}  # what forks must have no threads
    with theirs:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}  # as most commands of tests have them
        command, number = [sys.executable, "-m", __name__], theirs.fileno()
        return ours, subprocess.Popen([*command, str(number)], cwd=_ROOT, env=environment, pass_fds=[number], **pipes)


def _forked(request: tuple[Any, ...], files: list[int]) -> int:
    """Process id of a new child of this process, which has these standard files."""
    prctl = ctypes.CDLL(None).prctl
    with _one_at_a_time:
        channel, _ = _server()
        prctl(_PR_SET_CHILD_SUBREAPER, 1)  # a process whose parent ends becomes a child of this one
        try:
            socket.send_fds(channel, [pickle.dumps(request)], files)
            return int(channel.recv(16))
        finally:
            prctl(_PR_SET_CHILD_SUBREAPER, 0)


def _serve(channel: socket.socket) -> list[str]:
    """Fork for each request. Returns in the forks alone: the words that each is to run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is for the tests
    while True:
        request, files, _, _ = socket.recv_fds(channel, _LARGEST, 3)
        if not request:
            os._exit(0)
        assert len(os.listdir("/proc/self/task")) == 1, "a process with threads must not fork"
        here, there = socket.socketpair()
        if not (between := os.fork()):
            if pid := os.fork():
                there.send(str(pid).encode())
                os._exit(0)  # it has a new parent now
            here.close()
            channel.close()
            there.recv(1)  # until its new parent knows of it
            there.close()
            return _become(files, *pickle.loads(request))
        os.waitpid(between, 0)
        channel.send(here.recv(16))
        for each in (here, there):
            each.close()
        for number in files:
            os.close(number)


def _become(
    files: list[int],
    words: list[str],
    folder: str,
    environment: dict[str, str],
    mask: set[signal.Signals],
    new_session: bool,
) -> list[str]:
    for number, each in enumerate(files):
        os.dup2(each, number)
        os.close(each)
    if new_session:
        os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return words


def _import() -> None:
    """Import what loads models, and what commands import sooner or later, but nothing that changes other commands."""
    for module in (
        "onnx",
        "engines.inference.onnxruntime",
        "engines.models.observe",
        "engines.models.reading",
        "engines.outputs.preview",
        "cli.app",
        "cli.progress",
        "cli.run_folder",
        "cli.run_prompt",
        "cli.tables",
        "pipelines.client",
        "pipelines.status",
        "rich.live",
        "workers.run",
        "workers.watched",
    ):
        importlib.import_module(module)
    assert not logging.getLogger("rigflow").handlers, "`workers.telemetry` keeps warnings from stderr"


if __name__ == "__main__":
    _import()
    gc.freeze()  # a collection would write to these objects, and so copy their memory
    words = _serve(socket.socket(fileno=int(sys.argv[1])))
    if tuple(words) == _OWN:
        own_process._main()
    sys.path[0], sys.argv[1:] = os.getcwd(), words[3:]
    runpy.run_module(words[2], run_name="__main__", alter_sys=True)
