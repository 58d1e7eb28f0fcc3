"""Numbers and tables for people."""

import contextlib
import os
import pty
import re
import subprocess
import sys
import termios

import pytest

from cli import up, watch
from cli.near import describe_offset
from cli.tables import list_of
from cli.text import age, one_line, stderr, stdout, took
from pipelines.registry import builtin_pipelines
from schemas.settings import Settings
from schemas.text import count, rate, size
from tests.cli import COMMAND, environment


@pytest.mark.parametrize(
    ("nbytes", "output"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1234, "1.23 kB"),
        (999_600, "1 MB"),
        (25.3e9, "25.3 GB"),
        (4e13, "40 TB"),
    ],
)
def test_size(nbytes: float, output: str) -> None:
    assert size(nbytes) == output


@pytest.mark.parametrize(
    ("seconds", "output"),
    [(0.4, "0 s"), (59, "59 s"), (59.7, "1 min 0 s"), (61, "1 min 1 s"), (7260, "2 h 1 min"), (1.8e5, "2 d 2 h")],
)
def test_age(seconds: float, output: str) -> None:
    assert age(seconds) == output
    assert age(seconds, units=1) == " ".join(output.split()[:2])


@pytest.mark.parametrize(
    ("seconds", "output"),
    [(0, "0 s"), (0.001, "0 s"), (0.034, "0.03 s"), (6, "6 s"), (9.4, "9.4 s"), (9.99, "10 s"), (61, "1 min 1 s")],
)
def test_quick_work_did_not_take_no_time(seconds: float, output: str) -> None:
    assert took(seconds) == output


def test_one_of_something_has_no_plural() -> None:
    assert (count(1, "failure"), count(0, "frame"), count(2000, "frame")) == ("1 failure", "0 frames", "2,000 frames")


def test_a_low_rate_has_a_decimal() -> None:
    assert [rate(per_s) for per_s in (0, 0.24, 1, 9.96, 24.6, 1225.4)] == ["0", "0.2", "1.0", "10", "25", "1,225"]
    assert [rate(per_s) for per_s in (0.96, 0.096, 0.04, 0.0123, 1 / 86400)] == [
        "1.0",
        "0.10",
        "0.04",
        "0.01",
        "0.00001",
    ]


def test_an_offset_says_which_begins_in_which() -> None:
    assert describe_offset(2.5, "a", "b") == "+2.500 s: b begins 2.500 s into a"
    assert describe_offset(-2.5, "a", "b") == "-2.500 s: a begins 2.500 s into b"


def test_a_terminal_breaks_an_error_between_words() -> None:
    words = f"rigflow: no pipeline is called nosuch here: there are {', '.join(builtin_pipelines())}"
    words += "; for one of your own give its file, and for one of a fleet --nats"
    ours, theirs = pty.openpty()
    try:
        termios.tcsetwinsize(theirs, (24, 30))
        ended = subprocess.run(
            [*COMMAND, "run", "nosuch", __file__], stderr=theirs, env=environment(), timeout=100, check=False
        )
        shown = os.read(ours, 10_000).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert ended.returncode == 2
    assert " ".join(shown.split()) == words
    assert max(map(len, shown.splitlines())) <= 30


def test_in_a_pipe_no_line_is_broken_or_filled_with_blanks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "a/" * 100 + "film.mp4"
    given = [[one_line(long), "0.9"], ["b.mp4", ""]]
    rows = list_of(("media", "score"), given, left=1)
    monkeypatch.delenv("COLUMNS", raising=False)
    stdout().print(rows)
    lines = capsys.readouterr().out.splitlines()
    assert [line.rstrip() for line in lines] == lines
    assert [line.split() for line in lines] == [["media", "score"], [long, "0.9"], ["b.mp4"]]
    monkeypatch.setenv("COLUMNS", "80")
    stdout().print(rows)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_a_dumb_terminal_has_its_own_width(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 44))
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.delenv("COLUMNS", raising=False)
    with os.fdopen(ours), os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        assert stdout().width == 44
        monkeypatch.setenv("COLUMNS", "66")
        assert stdout().width == 66


@pytest.mark.parametrize("kind", ["dumb", "xterm"])
def test_a_pipe_is_no_terminal_though_colours_are_forced(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("TERM", kind)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as services of continuous integration do
    monkeypatch.delenv("COLUMNS", raising=False)
    assert (stdout().width, stderr().width) == (10_000, 80)
    monkeypatch.setenv("COLUMNS", "66")
    assert stdout().width == 66


def test_a_terminal_gets_the_lines_of_watch_and_up_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "30")  # rich would ask the terminal that the tests have
    command = "rigflow run scenes FILE --nats nats://127.0.0.1:4777"
    sent = b""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 30))
    with os.fdopen(theirs, "w") as terminal, os.fdopen(ours, "rb", buffering=0) as screen:
        monkeypatch.setattr(sys, "stdout", terminal)
        watch._report(as_json=False)("a.txt: left alone: it is not media of a format that rigflow reads", state="left")
        console = up._console()
        console.print(up.STOPPING)
        up._greet(console, Settings(nats="nats://127.0.0.1:4777"), Settings(), 2, ["scenes"])
        terminal.close()
        with contextlib.suppress(OSError):  # the end of what a terminal was sent
            while read := screen.read(10_000):
                sent += read
    shown = re.sub(r"\x1b\[[\d;]*m", "", sent.decode()).splitlines()
    assert "it is not media of a format that rigflow reads" in " ".join(shown)
    assert up.STOPPING in " ".join(line.rstrip() for line in shown)
    assert f"  {command}" in shown, "a command stays whole"
    assert max(len(line.rstrip()) for line in shown if not line.startswith("  ")) <= 30
