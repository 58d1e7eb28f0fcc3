"""`rigflow watch` on a real folder with a real broker: each file once, whole, also after a restart."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from pipelines.registry import builtin_pipeline
from tests.clips import Clip, make_clip, real_clip, still
from tests.fleet import ONE_WORKER, Fleet
from workers.cli.app import app

LEDGER = ".rigflow-watch-fingerprint.json"


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    folder = tmp_path / "incoming"
    folder.mkdir()
    return folder


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        yield fleet


@contextmanager
def watching(fleet: Fleet, incoming: Path, out: Path, end: int = signal.SIGTERM) -> "Iterator[subprocess.Popen[str]]":
    """`rigflow watch` in a process of its own; it must end by itself, and well, unless it is killed."""
    command = [sys.executable, "-m", "workers.cli", "watch", "fingerprint", str(incoming), "--out", str(out)]
    environment = os.environ | {"RIGFLOW_NATS": fleet.settings.nats, "RIGFLOW_CACHE": fleet.settings.cache}
    process = subprocess.Popen([*command, "--quiet", "0.4"], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        yield process
    finally:
        process.send_signal(end)
        code = process.wait(15)
        assert process.stdout is not None
        process.stdout.close()
        assert code == (0 if end != signal.SIGKILL else -signal.SIGKILL)


def told(process: "subprocess.Popen[str]", lines: int) -> str:
    """The next lines that it prints."""
    assert process.stdout is not None
    return "".join(process.stdout.readline() for _ in range(lines))


def outcomes(out: Path) -> dict[str, dict[str, object]]:
    """The ledger's outcomes by the name of the file that had the content first."""
    pages = json.loads((out / LEDGER).read_text())
    return {outcome["name"]: outcome for outcome in pages["contents"].values()}


def test_each_file_is_done_once_and_only_read(fleet: Fleet, incoming: Path, tmp_path: Path) -> None:
    out = incoming / "results"  # inside the watched folder: results are no new files
    clip = shutil.copy(real_clip("bikes"), incoming / "bikes.mp4")
    (incoming / "deep").mkdir()
    before = clip.stat()
    with watching(fleet, incoming, out) as process:
        assert "bikes.mp4.fingerprint.npz" in told(process, 1)
        (incoming / "deep" / "picture.jpg").write_bytes(still("mjpeg"))
        (incoming / "notes.txt").write_text("not media")
        text = told(process, 2)
        assert "deep/picture.jpg.fingerprint.npz" in text
        assert "notes.txt is not media" in text
        shutil.copy(clip, incoming / "copy.mp4")
        assert "copy.mp4: the same content as bikes.mp4" in told(process, 1)
    assert (clip.stat().st_mtime_ns, clip.stat().st_size) == (before.st_mtime_ns, before.st_size)
    assert set(outcomes(out)) == {"bikes.mp4", "deep/picture.jpg", "notes.txt"}
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*.npz"))
    assert files == ["bikes.mp4.fingerprint.npz", "deep/picture.jpg.fingerprint.npz"]
    written = (out / files[0]).stat().st_mtime_ns
    clip.rename(incoming / "renamed.mp4")
    with watching(fleet, incoming, out) as process:
        assert "renamed.mp4: the same content as bikes.mp4" in told(process, 1)
        clip = make_clip(incoming, Clip(frames=20))
        assert f"{clip.name}.fingerprint.npz" in told(process, 1)
        shutil.copy(make_clip(tmp_path, Clip(frames=30)), clip)  # new content under an old name
        assert f"{clip.name}.fingerprint.npz" in told(process, 1)
    assert (out / files[0]).stat().st_mtime_ns == written
    assert not list(out.rglob("*.part"))


def test_a_half_written_file_is_waited_for(fleet: Fleet, incoming: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    content = real_clip("bikes").read_bytes()
    with watching(fleet, incoming, out) as process, (incoming / "slow.mp4").open("wb") as file:
        for number in range(8):
            file.write(content[number * len(content) // 8 : (number + 1) * len(content) // 8])
            file.flush()
            time.sleep(0.2)
        assert "slow.mp4.fingerprint.npz" in told(process, 1)
    assert outcomes(out)["slow.mp4"]["failures"] == []
    fleet_out = tmp_path / "plain"
    [outcome] = fleet.run(builtin_pipeline("fingerprint"), [incoming / "slow.mp4"], fleet_out)
    assert outcome.ok
    ours, plain = np.load(out / "slow.mp4.fingerprint.npz"), np.load(fleet_out / "slow.fingerprint.npz")
    np.testing.assert_array_equal(ours["descriptor"], plain["descriptor"])


def test_what_was_in_hand_at_a_kill_is_done_after_the_restart(fleet: Fleet, incoming: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for number in range(6):
        (incoming / f"{number}.jpg").write_bytes(still("mjpeg", seed=number))
    shutil.copy(real_clip("bigbuckbunny"), incoming / "bunny.mp4")
    with watching(fleet, incoming, out, end=signal.SIGKILL) as process:
        first = told(process, 2)
    with watching(fleet, incoming, out) as process:
        wanted = {f"{number}.jpg" for number in range(6)} | {"bunny.mp4"}
        while set(outcomes(out)) != wanted:
            told(process, 1)
    assert all(outcome["failures"] == [] for outcome in outcomes(out).values())
    assert len(list(out.glob("*.npz"))) == 7
    assert first.count(".npz") == 2


def test_folders_that_make_no_sense_are_usage_errors(
    incoming: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def watch(folder: Path, out: Path) -> int:
        return int(app(["watch", "fingerprint", str(folder), "--out", str(out)], standalone_mode=False))

    assert watch(tmp_path / "gone", tmp_path) == 2
    assert "no such folder: check the path" in capsys.readouterr().err
    assert watch(incoming, incoming) == 2
    assert "results would be taken for new files" in capsys.readouterr().err
