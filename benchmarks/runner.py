"""Runs contests, each in a process of its own with a limit on its time, and leaves no process behind."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.contest import Order
from benchmarks.peers import CONTESTANTS

_PR_SET_CHILD_SUBREAPER = 36
_LOG_LINES = 3
_ATTEMPTS, _GENTLE_ATTEMPTS, _ATTEMPT_S = 200, 20, 0.05


class Runner:
    """Keeps the records of a run, a line of json each, and where contestants leave theirs."""

    def __init__(self, folder: Path, results: Path, limit_s: float) -> None:
        self.folder = folder
        self._results = results
        self._limit_s = limit_s
        self._line = folder / "line.jsonl"
        self._log = folder / "log.txt"

    def keep(self, record: dict[str, Any]) -> None:
        """Add a record to the results."""
        with self._results.open("a") as lines:
            lines.write(json.dumps(record) + "\n")

    def append(self, lines: Path) -> None:
        """Add the records that another program wrote."""
        for line in lines.read_text().splitlines():
            self.keep(json.loads(line))

    def contest(self, order: Order, kind: str, checkout: Path | None = None, **labels: Any) -> list[dict[str, Any]]:
        """The measurements of a contestant, kept as records of `kind`; none if it failed, and a line says why."""
        self._line.unlink(missing_ok=True)
        missing = CONTESTANTS[order.contestant].needs
        why = f"{missing} is not installed" if missing and find_spec(missing) is None else ""
        why = why or self.process("benchmarks.contest", [replace(order, result=str(self._line)).json()], checkout)
        lines = self._line.read_text().splitlines() if self._line.exists() else []
        records = [{"kind": kind, **labels, **json.loads(line)} for line in lines]
        for record in records:
            self.keep(record)
        if why:
            left_out = " ".join(name for name, _ in order.workloads[len(records) :])
            about = {"contestant": order.contestant, "pipeline": order.pipeline, "workload": left_out}
            self.keep({"kind": "skipped", **labels, **about, "why": why})
            print(f"  {order.contestant} is left out of {order.pipeline} of {left_out}: {why}", flush=True)
        return records

    def process(self, module: str, arguments: list[str], checkout: Path | None = None) -> str:
        """Run a module (of another checkout) to its end, and end all it started; why it failed, or nothing."""
        others = set(measure.tree())
        _adopt_orphans(True)  # processes that it leaves behind become our children, so that they can be found
        command = [sys.executable, "-m", module, *arguments]
        with self._log.open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=checkout, start_new_session=True)
            try:
                code = process.wait(self._limit_s)
                return "" if code == 0 else f"{self._last_words()} (exit code {code})"
            except subprocess.TimeoutExpired:
                return f"it was not done after {self._limit_s:.0f} s"
            finally:
                process.kill()
                process.wait()
                _end_all_but(others)
                _adopt_orphans(False)

    def _last_words(self) -> str:
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return " / ".join(lines[-_LOG_LINES:])


def _adopt_orphans(ours: bool) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(ours))


def _end_all_but(others: set[int]) -> None:
    """End the processes that became our children, and their descendants."""
    for attempt in range(_ATTEMPTS):
        left = set(measure.tree()) - others
        for pid in left:
            with suppress(OSError):
                os.kill(pid, signal.SIGTERM if attempt < _GENTLE_ATTEMPTS else signal.SIGKILL)
        for pid in left:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if not left:
            return
        time.sleep(_ATTEMPT_S)
