"""However a command is ended, it leaves no store, no half-written file and no process."""

import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from benchmarks.workloads import looped
from schemas.errors import ExitCode
from tests.cli import COMMAND, environment, rigflow_process
from tests.clips import real_clip, still
from tests.warm_process import WarmPopen

GENEROUS_S = 60.0


def processes(folder: Path) -> list[str]:
    """Processes whose temporary files go into this folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.fsencode(folder) in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_bytes().decode())
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    ("signals", "code"),
    [
        ((signal.SIGINT, signal.SIGINT), ExitCode.INTERRUPTED),
        ((signal.SIGTERM,), ExitCode.TERMINATED),
        ((signal.SIGHUP,), ExitCode.HUNG_UP),
    ],
)
def test_a_run_that_is_ended_leaves_nothing(
    signals: tuple[signal.Signals, ...], code: int, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    clip, out = looped(tmp_path / "clip.mp4", 40, "carphone_pristine"), tmp_path / "out"
    scratch = tmp_path_factory.mktemp("scratch")  # its path is short enough for sockets
    command = [*COMMAND, "run", "upscale2x", str(clip), "--out", str(out), "--workers", "1"]
    with WarmPopen(command, env=environment() | {"TMPDIR": str(scratch)}, stderr=subprocess.PIPE, text=True) as run:
        deadline = time.monotonic() + GENEROUS_S
        while not list(out.glob("*.part")):
            assert time.monotonic() < deadline
            assert run.poll() is None
            time.sleep(0.02)
        for number in signals:
            run.send_signal(number)
            time.sleep(0.05)
        _, output = run.communicate(timeout=GENEROUS_S)
    lines = [line for line in output.splitlines() if not line.startswith("clip.mp4: ")]  # but its progress
    assert (run.returncode, lines) == (code, ["rigflow: interrupted: cleaning up, once more stops at once"])
    assert not out.exists()
    assert list(scratch.iterdir()) == []
    while left := processes(scratch):  # the kernel ends the last of them just now
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_a_reader_that_leaves_ends_a_command_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(2):
        (tmp_path / "in" / f"{number}.txt").write_bytes(still("png", seed=number))
    watch = ["watch", "fingerprint", tmp_path / "in", "--out", tmp_path / "out", "--quiet", "0.2", "--workers", "1"]
    for command, said in ((["pipelines", "list"], ""), (watch, "rigflow: watches ")):
        read, write = os.pipe()
        os.close(read)  # before the command can write
        with WarmPopen(
            [*COMMAND, *map(str, command)], env=environment(), stdout=write, stderr=subprocess.PIPE, text=True
        ) as process:
            os.close(write)
            assert process.stderr is not None
            output = process.stderr.read()
            code = process.wait(GENEROUS_S)
        assert (code, output[: len(said)]) == (ExitCode.READER_GONE, said)
        assert output.count("\n") == (1 if said else 0), output


def test_a_folder_for_temporary_files_with_too_long_a_path_is_a_line(tmp_path: Path) -> None:
    """Sockets have short paths; workers are started through one."""
    (long := tmp_path / ("x" * 100)).mkdir()
    run = ["run", "fingerprint", real_clip("bikes"), "--out", tmp_path / "out"]
    for command in (
        [*run, "--store", tmp_path / "store"],
        ["up", "--port", "0", "--store", tmp_path / "store"],
        ["rig"],
    ):
        ended = rigflow_process(*command, RIGFLOW_CACHE=str(tmp_path / "cache"), TMPDIR=str(long))
        words = f"no worker can be started: AF_UNIX path too long: {long} is the folder for temporary files"
        assert ended.stderr.endswith(f"{words}: set TMPDIR to a folder with a short path\n"), ended.stderr
        assert ended.returncode == ExitCode.USAGE


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_standard_files_hinder_no_command(closed: str, tmp_path: Path) -> None:
    """Workers inherit them, and no file of ours gets their numbers."""
    (tmp_path / "a.jpg").write_bytes(still("mjpeg"))
    words = shlex.join([*COMMAND, "run", "fingerprint", "a.jpg", "--workers", "1", "--out", "out"])
    done = subprocess.run(
        ["sh", "-c", f"{words} {closed}"], env=environment(), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "out" / "a.fingerprint.npz").exists()
