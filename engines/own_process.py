"""Calls a function in a separate process, because some graphs crash the libraries that load and compile models.

The sessions of a worker need no separate process: its supervisor restarts the worker and quarantines the model.
"""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, TypeVar

from schemas.errors import ModelError, RigflowError

T = TypeVar("T")
_SAID = "\x1e"  # begins a line that is a report
_FOLLOW_S = 0.2
_GROUP = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}  # Ctrl-C, the end of a service or of a terminal
_PICKLE = 5  # this protocol writes large bytes without a copy


def in_own_process(
    model: str,
    does: str,
    hint: str,
    function: Callable[..., T],
    *arguments: Any,
    report: Callable[[str], None] | None = None,
    within_s: float = 0.0,
    kind: str = "model",
) -> T:
    """Compute `function(*arguments)` in a new process; function, arguments and result are pickled.

    `report` is called, on another thread, for each line that the function passes to `say`. The process is killed when
    it takes longer than `within_s`; 0: never.

    Raises the RigflowError that the function raises. Raises ModelError if the process ends without an answer or fails
    with another exception: "model `m` ends the process that loads it (SIGSEGV)", where `does` is "loads"; `kind` says
    what `m` is.
    """
    with tempfile.TemporaryFile() as errors, _started(errors) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        ended = threading.Event()
        reader = threading.Thread(target=_follow, args=(errors.fileno(), report, ended)) if report else None
        if reader:
            reader.start()
        if within_s:
            threading.Thread(target=_kill, args=(child, ended, within_s), daemon=True).start()
        with suppress(BrokenPipeError):  # the process ended before it read everything; its exit code says why
            pickle.dump((function, arguments), child.stdin, _PICKLE)
        with suppress(BrokenPipeError):
            child.stdin.close()
        answer = child.stdout.read()
        code = child.wait()
        ended.set()
        if reader:
            reader.join()
        errors.seek(0)
        output = [line for line in errors.read().decode(errors="replace").split("\n") if line[:1] not in ("", _SAID)]
    if code or not answer:
        how = _ending(code) + (f": {output[-1][:300]}" if code > 0 and output else "")
        raise ModelError(f"{kind} `{model}` ends the process that {does} it ({how})", hint)
    made, error = pickle.loads(answer)
    if isinstance(error, RigflowError):
        raise error
    if isinstance(error, MemoryError):
        what = f"{kind} `{model}`: the process that {does} it needs more memory than there is"
        raise ModelError(what, "use a machine with more memory, or export the model with smaller sizes") from error
    if error is not None:
        raise ModelError(f"{kind} `{model}`: the process that {does} it fails: {error}", hint)
    result: T = made
    return result


@contextmanager
def _started(errors: IO[bytes]) -> Iterator["subprocess.Popen[bytes]"]:
    """The process, which signals to the whole group do not reach: who waits for it answers them, and ends it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP)  # a child keeps this
    try:
        command = [sys.executable, "-P", "-m", __name__]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with child:
        try:
            yield child
        except BaseException:
            child.kill()
            raise


def say(line: str) -> None:
    """Pass a line to the process that called `in_own_process`."""
    os.write(2, f"{_SAID}{line}\n".encode())


def _kill(child: "subprocess.Popen[bytes]", ended: threading.Event, within_s: float) -> None:
    if not ended.wait(within_s):
        child.kill()


def _follow(output: int, report: Callable[[str], None], ended: threading.Event) -> None:
    """Report the lines that are said in a file that grows, until it has ended."""
    at, rest, last = 0, b"", False
    while not last:
        last = ended.wait(_FOLLOW_S)
        while new := os.pread(output, 1 << 16, at):
            at += len(new)
            *lines, rest = (rest + new).split(b"\n")
            for line in lines:
                if line.startswith(_SAID.encode()):
                    report(line.decode(errors="replace").removeprefix(_SAID))


def _ending(code: int) -> str:
    """Return in words how a process ended."""
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"{name}, perhaps because memory ran out" if name == "SIGKILL" else name


def _main() -> None:
    """Answer the call on standard input, then end at once, because the clean-up of a library can crash too."""
    with os.fdopen(os.dup(1), "wb") as answer_to:
        os.dup2(2, 1)  # the output of a library must not get into the answer
        function, arguments = pickle.load(sys.stdin.buffer)
        made: Any = None
        error: RigflowError | MemoryError | str | None = None
        try:
            made = function(*arguments)
        except RigflowError as refused:
            error = refused
        except MemoryError as full:
            error = MemoryError(str(full))  # of a class that the other process has
        except Exception as unexpected:
            error = f"{type(unexpected).__name__}: {' '.join(str(unexpected).split())[:300]}"
        pickle.dump((made, error), answer_to, _PICKLE)
    os._exit(0)


if __name__ == "__main__":
    _main()
