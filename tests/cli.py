"""The command line for tests: run to its end, or beside the test until it is stopped."""

import io
import os
import signal
import subprocess
import threading
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import TracebackType
from typing import Self
from unittest import mock

from cli.app import answer
from tests import PACKAGES
from tests.warm_process import COMMAND as COMMAND
from tests.warm_process import WarmPopen


def environment() -> dict[str, str]:
    """Ours, without settings that would change what a test sees, and as wide as a person's window."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RIGFLOW_")}
    paths = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), PACKAGES, kept.get("PYTHONPATH")]))
    return kept | {"COLUMNS": "120", "PYTHONUNBUFFERED": "1", "PYTHONPATH": paths}


def rigflow(*arguments: str | Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """`rigflow ARGUMENTS` run to its end in this process, which costs no imports; `extra` goes into its environment."""
    words, out, err = [*map(str, arguments)], io.StringIO(), io.StringIO()
    with mock.patch.dict(os.environ, environment() | extra, clear=True), redirect_stdout(out), redirect_stderr(err):
        code = answer(words)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def rigflow_process(*arguments: str | Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """`rigflow` in a process of its own, which has its imports."""
    words, pipe = [*COMMAND, *map(str, arguments)], subprocess.PIPE
    with WarmPopen(words, stdout=pipe, stderr=pipe, text=True, env=environment() | extra) as process:
        try:
            out, err = process.communicate(timeout=150)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(words, process.returncode, out, err)


class Running:
    """`rigflow ARGUMENTS` while it runs; killed at the end of the block if it still does."""

    def __init__(self, *arguments: str | Path, **extra: str) -> None:
        """`extra` goes into its environment."""
        self._arguments = [str(argument) for argument in arguments]
        self._extra = extra
        self._said: list[str] = []

    def __enter__(self) -> Self:
        self.process = WarmPopen(
            [*COMMAND, *self._arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=environment() | self._extra,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self._said.extend(iter(self.process.stdout.readline, ""))

    @property
    def output(self) -> str:
        """What it printed until now."""
        return "".join(self._said)

    def until(self, text: str, timeout_s: float = 60.0) -> str:
        """Wait until it printed `text`; all that it printed."""
        deadline = time.monotonic() + timeout_s
        while text not in self.output:
            assert self.process.poll() is None, f"ended with {self.process.returncode} and said: {self.output}"
            assert time.monotonic() < deadline, f"not within {timeout_s} s: {text!r} in {self.output}"
            time.sleep(0.02)
        return self.output

    def end(self, number: signal.Signals, timeout_s: float = 60.0) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout_s)
