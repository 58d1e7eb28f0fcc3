"""Ctrl-C at any moment of a command: one line, exit code 130, a visible cursor, and no process is left."""

import signal
import time
from pathlib import Path

import numpy as np
import pytest

from schemas.errors import ExitCode
from tests.clips import real_clip
from tests.integration.test_cli_ends import processes
from tests.nets import resnet
from tests.terminal import CTRL_C, Terminal

ENDS_S = 30.0


def before_its_first_line(code: int, shown: str) -> bool:
    """Whether the signal ended Python before the first line of the command's script."""
    return code == -signal.SIGINT and not shown.strip("^C\r\n")


def interrupted(terminal: Terminal, after_s: float, times: int = 1) -> None:
    """Press Ctrl-C after so long, and check how the command ends."""
    for number in range(times):
        terminal.read_for(0.2 if number else after_s)
        terminal.press(CTRL_C)
    code, shown = terminal.end(), terminal.shown
    assert "Traceback" not in shown, shown
    assert "Error" not in shown, shown
    assert "Exception" not in shown, shown
    assert not terminal.cursor_is_hidden, shown
    ends = ((ExitCode.INTERRUPTED, 1), (ExitCode.OK, 0))
    if not before_its_first_line(code, shown):
        assert (code, shown.count("rigflow: interrupted")) in ends, shown
    until_s = time.monotonic() + ENDS_S
    while left := processes(terminal.scratch):  # the kernel ends the last of them just now
        assert time.monotonic() < until_s, left
        time.sleep(0.02)


@pytest.mark.parametrize("after_s", [0.05, 0.1, 0.25, 0.45, 0.65, 0.85, 1.1, 1.4, 1.8])
def test_ctrl_c_ends_a_run_with_one_line(
    after_s: float, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    scratch = tmp_path_factory.mktemp("scratch")  # its path is short enough for sockets
    run = Terminal(scratch, "run", "fingerprint", real_clip("bikes"), "--out", tmp_path / "out", "--workers", "1")
    interrupted(run, after_s)


def test_ctrl_c_ends_other_commands_with_one_line(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    np.savez(tmp_path / "a.npz", descriptor=np.ones((3, 4), np.float32))
    for command, after_s in (
        (("pipelines", "list"), 0.3),
        (("near", tmp_path / "a.npz", tmp_path / "a.npz"), 0.4),
        (("doctor",), 0.8),
        (("run", "upscale2x", real_clip("bikes"), "--out", tmp_path / "out", "--workers", "1"), 2.0),
    ):
        terminal = Terminal(tmp_path_factory.mktemp("scratch"), *command)
        terminal.read_for(after_s)
        terminal.press(CTRL_C)
        code, shown = terminal.end(), terminal.shown
        assert "Traceback" not in shown, shown
        if not before_its_first_line(code, shown):
            assert code in (ExitCode.OK, ExitCode.INTERRUPTED, ExitCode.USAGE), shown
            assert shown.count("rigflow: interrupted") == (code == ExitCode.INTERRUPTED), shown


def test_a_second_ctrl_c_says_no_more(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    out = tmp_path / "out"
    run = Terminal(tmp_path_factory.mktemp("scratch"), "run", "upscale2x", real_clip("bikes"), "--out", out)
    interrupted(run, 1.5, times=3)


@pytest.mark.slow
def test_ctrl_c_at_a_hundred_moments(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    for number in range(100):
        scratch = tmp_path_factory.mktemp("scratch")
        run = Terminal(scratch, "run", "fingerprint", real_clip("bikes"), "--out", tmp_path / "out", "--overwrite")
        interrupted(run, 0.03 * (1 + number), times=1 + number % 2)


def test_ctrl_c_at_a_question_is_no_answer(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    model = tmp_path / "unknown.onnx"
    model.write_bytes(resnet()[1])
    asked = Terminal(tmp_path_factory.mktemp("scratch"), "model", "add", model)
    until_s = time.monotonic() + 2 * ENDS_S
    while "keep it as unknown?" not in asked.shown:
        assert time.monotonic() < until_s, asked.shown
        assert asked.code is None, asked.shown
        asked.read_for(0.05)
    asked.press(CTRL_C)
    assert asked.end() == ExitCode.INTERRUPTED
    assert "not kept" not in asked.shown
    assert asked.shown.count("rigflow: interrupted") == 1
