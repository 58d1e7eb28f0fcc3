"""The processes that tests fork start as new ones do."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli import environment
from tests.warm_process import WarmPopen

PIPE = subprocess.PIPE
Facts = tuple[dict[str, Any], str, int]


def facts(popen: type[subprocess.Popen[Any]], folder: Path, new_session: bool = False, **extra: str) -> Facts:
    """What a process was started with, its errors and its exit code."""
    words = [sys.executable, "-m", "tests.process_facts", "a", "b c"]
    given = environment() | {"LETTERS": "äöü"} | extra
    with popen(
        words, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True, cwd=folder, env=given, start_new_session=new_session
    ) as process:
        out, errors = process.communicate("a line\n")
    return json.loads(out), errors, process.returncode


@pytest.mark.parametrize("new_session", [False, True])
def test_a_fork_is_started_with_what_a_new_process_is(new_session: bool, tmp_path: Path) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        new, *ended = facts(subprocess.Popen, tmp_path, new_session)
        forks = [facts(WarmPopen, tmp_path, new_session) for _ in range(2)]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert ended == ["errors go elsewhere", 7]
    assert (new["parent"], new["given"], new.pop("forked")) == (os.getpid(), "a line\n", False)
    for fork, *its_end in forks:
        assert fork.pop("forked")
        assert fork == new
        assert its_end == ended


def test_what_a_start_reads_gets_a_real_start(tmp_path: Path) -> None:
    assert not facts(WarmPopen, tmp_path, LC_ALL="C")[0]["forked"]
    started = facts(WarmPopen, tmp_path, PYTHONIOENCODING="utf-8:replace")[0]
    assert (started["forked"], started["streams"][1][1]) == (False, "replace")


def test_a_signal_ends_a_fork() -> None:
    with WarmPopen([sys.executable, "-m", "tests.process_facts"], stdin=PIPE, stdout=PIPE, env=environment()) as fork:
        assert fork.poll() is None
        fork.kill()
        assert fork.wait(60) == -signal.SIGKILL
