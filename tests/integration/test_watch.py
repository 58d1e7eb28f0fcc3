"""`rigflow watch` on a real folder with a real broker: each file once, whole, also after a restart."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from cli.app import app
from pipelines.registry import builtin_pipeline
from tests.cli import Running
from tests.clips import Clip, generated, real_clip, still
from tests.fleet import ONE_WORKER, Fleet

LEDGER = ".rigflow-fingerprint.db"


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
def watching(
    fleet: Fleet, incoming: Path, out: Path, *words: str, end: int = signal.SIGTERM, quiet_s: float = 0.3
) -> "Iterator[subprocess.Popen[str]]":
    """`rigflow watch` in a process of its own; it must end by itself, and well, unless it is killed."""
    command = [sys.executable, "-m", "cli", "watch", "fingerprint", str(incoming), "--out", str(out), *words]
    environment = os.environ | {"RIGFLOW_NATS": fleet.settings.nats, "RIGFLOW_CACHE": fleet.settings.cache}
    process = subprocess.Popen([*command, "--quiet", str(quiet_s)], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        yield process
    finally:
        process.send_signal(end)
        code = process.wait(60)
        assert process.stdout is not None
        process.stdout.close()
        assert code == (0 if end != signal.SIGKILL else -signal.SIGKILL)


def reported(process: "subprocess.Popen[str]", lines: int) -> str:
    """The next lines that it prints."""
    assert process.stdout is not None
    return "".join(process.stdout.readline() for _ in range(lines))


def arrives(path: Path, content: bytes) -> None:
    """A whole file comes from beside the folder, however slow the machine is."""
    beside = path.with_name(f"{path.name}.part")
    beside.write_bytes(content)
    beside.rename(path)


def outcomes(out: Path) -> dict[str, list[str]]:
    """The ledger's failures by the name of the file that had the content first."""
    with closing(sqlite3.connect(out / LEDGER)) as ledger:
        return {name: json.loads(text) for name, text in ledger.execute("SELECT name, failures FROM contents")}


def test_it_says_what_it_watches_and_that_it_stops(fleet: Fleet, incoming: Path, tmp_path: Path) -> None:
    arrives(incoming / "broken.mp4", real_clip("bikes").read_bytes()[:3000])
    at = {"RIGFLOW_NATS": fleet.settings.nats, "RIGFLOW_CACHE": str(fleet.settings.cache)}
    with Running("watch", "fingerprint", incoming, "--out", tmp_path / "out", "--quiet", "0.2", **at) as watch:
        said = watch.until("broken.mp4: failed: it is a truncated mp4")
        arrives(incoming / "broken.jpg", still("mjpeg", size=(480, 640))[:3000])
        watch.until("broken.jpg: failed: the jpeg image is truncated")
        assert (
            f"rigflow: watches {incoming} for fingerprint, results go to {tmp_path / 'out'}; Ctrl-C stops it\n" in said
        )
        assert f"{incoming}/broken.mp4" not in said
        assert watch.end(signal.SIGINT) == 0
    assert watch.output.splitlines()[-1].startswith("rigflow: stopping")


def test_each_file_is_done_once_and_only_read(fleet: Fleet, incoming: Path, tmp_path: Path) -> None:
    out = incoming / "results"  # inside the watched folder: results are no new files
    clip = shutil.copy(real_clip("bikes"), incoming / "bikes.mp4")
    (incoming / "deep").mkdir()
    before = clip.stat()
    with watching(fleet, incoming, out) as process:
        assert f"bikes.mp4: {out}/bikes.fingerprint.npz (" in reported(process, 1)
        arrives(incoming / "deep" / "picture.jpg", still("mjpeg"))
        arrives(incoming / "notes.txt", b"not media")
        text = reported(process, 2)
        assert f"deep/picture.jpg: {out}/deep/picture.fingerprint.npz (1 frame)" in text
        assert "notes.txt: left alone: " in text
        arrives(incoming / "copy.mp4", clip.read_bytes())
        assert "copy.mp4: the same content as bikes.mp4" in reported(process, 1)
    assert (clip.stat().st_mtime_ns, clip.stat().st_size) == (before.st_mtime_ns, before.st_size)
    assert outcomes(out) == {"bikes.mp4": [], "deep/picture.jpg": [], "notes.txt": []}
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*.npz"))
    assert files == ["bikes.fingerprint.npz", "deep/picture.fingerprint.npz"]
    written = (out / files[0]).stat().st_mtime_ns
    clip.rename(incoming / "renamed.mp4")  # its first name may have been a temporary one
    with watching(fleet, incoming, out) as process:
        assert f"renamed.mp4: {out}/renamed.fingerprint.npz (" in reported(process, 1)
        for frames, result in ((20, "new"), (30, "new.mp4")):  # new content under an old name
            arrives(incoming / "new.mp4", generated(Clip(frames=frames)).read_bytes())
            assert f"new.mp4: {out}/{result}.fingerprint.npz (" in (text := reported(process, 1))
        assert ", beside earlier ones)" in text
        arrives(incoming / "new.mov", generated(Clip(frames=40)).read_bytes())
        assert f"new.mov: {out}/new.mov.fingerprint.npz (" in reported(process, 1)
        (out / "renamed.fingerprint.npz").unlink()
        arrives(incoming / "again.jpg", still("mjpeg", seed=5))  # so that the folder is looked at now
        assert f"renamed.mp4: {out}/renamed.fingerprint.npz (" in reported(process, 2)
    assert (out / files[0]).stat().st_mtime_ns == written
    picture = out / "deep" / "picture.fingerprint.npz"
    content = picture.read_bytes()
    picture.write_bytes(b"damaged")
    with watching(
        fleet, incoming, out, "--again", "--overwrite", "--include", "*.JPG", "--exclude", "again*"
    ) as process:
        assert f"deep/picture.jpg: {out}/deep/picture.fingerprint.npz (" in reported(process, 1)
    assert picture.read_bytes() == content
    assert not list(out.rglob("*.part"))


def test_a_half_written_file_is_waited_for(fleet: Fleet, incoming: Path, tmp_path: Path) -> None:
    """Written in pieces with pauses; on a machine so busy that a pause got as long as a quiet, in the next file."""
    out = tmp_path / "out"
    content = real_clip("bikes").read_bytes()
    with watching(fleet, incoming, out, quiet_s=1.0) as process:
        for number in range(20):
            name = f"slow{number}.mp4"
            longest_s = write_slowly(incoming / name, content + bytes(number))
            while f"slow{number}.fingerprint.npz" not in reported(process, 1):
                pass
            if longest_s < 0.7:
                break
    assert outcomes(out)[name] == []
    fleet_out = tmp_path / "plain"
    [outcome] = fleet.run(builtin_pipeline("fingerprint"), [incoming / name], fleet_out)
    assert outcome.ok
    ours, plain = np.load(out / f"slow{number}.fingerprint.npz"), np.load(fleet_out / f"slow{number}.fingerprint.npz")
    np.testing.assert_array_equal(ours["descriptor"], plain["descriptor"])


def write_slowly(path: Path, content: bytes) -> float:
    """Write a file in pieces; the longest pause, in seconds."""
    longest_s, wrote_s = 0.0, time.monotonic()
    with path.open("wb") as file:
        for number in range(8):
            file.write(content[number * len(content) // 8 : (number + 1) * len(content) // 8])
            file.flush()
            now_s = time.monotonic()
            longest_s, wrote_s = max(longest_s, now_s - wrote_s), now_s
            time.sleep(0.2)
    return longest_s


def test_what_was_in_hand_at_a_kill_is_done_after_the_restart(fleet: Fleet, incoming: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for number in range(6):
        (incoming / f"{number}.jpg").write_bytes(still("mjpeg", seed=number))
    shutil.copy(real_clip("bigbuckbunny"), incoming / "bunny.mp4")
    with watching(fleet, incoming, out, end=signal.SIGKILL) as process:
        first = reported(process, 2)
    (incoming / "6.jpg").write_bytes(still("mjpeg", seed=6))  # the first may have done all others before it was killed
    with watching(fleet, incoming, out) as process:
        wanted = {f"{number}.jpg" for number in range(7)} | {"bunny.mp4"}
        while set(outcomes(out)) != wanted:
            reported(process, 1)
    assert not any(outcomes(out).values())
    assert len(list(out.glob("*.npz"))) == 8
    assert first.count(".npz") == 2


def test_a_fault_of_one_file_is_its_own_and_one_that_may_pass_is_tried_again(
    fleet: Fleet, incoming: Path, tmp_path: Path
) -> None:
    """A name that no result can have, a FIFO, a place that is taken by a folder until somebody removes that."""
    out = tmp_path / "out"
    out.mkdir()
    os.mkfifo(incoming / "fifo.mp4")
    (incoming / ("n" * 246 + ".jpg")).write_bytes(still("mjpeg", seed=1))
    (incoming / "a\n\x1b[31mb.jpg").write_bytes(still("mjpeg", seed=2))
    (incoming / "deep").mkdir()
    (incoming / "deep" / "late.jpg").write_bytes(still("mjpeg", seed=3))
    (out / "deep").write_text("in the way")
    with watching(fleet, incoming, out) as process:
        text = reported(process, 4)
        assert "fifo.mp4: left alone: it is not a file\n" in text
        assert "nnn.fingerprint: File name too long: rename the input, or choose another --out; tried again" in text
        assert f"a\\n\\x1b[31mb.jpg: {out}/a__[31mb.fingerprint.npz (" in text
        assert "deep/late.jpg: cannot write" in text
        (out / "deep").unlink()
        assert f"deep/late.jpg: {out}/deep/late.fingerprint.npz (" in reported(process, 1)
    assert sorted(path.name for path in out.rglob("*.npz")) == ["a__[31mb.fingerprint.npz", "late.fingerprint.npz"]
    assert sorted(path.name for path in out.glob(".rigflow*")) == [LEDGER, LEDGER.replace(".db", ".lock")]


def test_folders_that_make_no_sense_are_usage_errors(
    incoming: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def watch(folder: Path, out: Path) -> int:
        return int(app(["watch", "fingerprint", str(folder), "--out", str(out)], standalone_mode=False))

    assert watch(tmp_path / "gone", tmp_path) == 2
    assert "no such folder: check the path" in capsys.readouterr().err
    assert watch(incoming, incoming) == 2
    assert "results would be taken for new files" in capsys.readouterr().err
