"""`run` and `watch` write where a template says."""

import shutil
import signal
from pathlib import Path

import pytest

from schemas.errors import ExitCode
from tests.cli import Running, rigflow
from tests.clips import Clip, generated
from tests.fleet import ONE_WORKER, Fleet
from tests.rig import eventually


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.npz"))


def test_results_are_where_the_template_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(("in/a/clip.mp4", "in/b/clip.mp4", "in/b/größe.mp4")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(generated(Clip(frames=10, seed=number)), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        at = ("--nats", fleet.settings.nats)
        inputs = ("in/a/clip.mp4", "in/b/clip.mp4")
        refused = rigflow("run", "fingerprint", *inputs, "--out", "flat/{stem}.{ext}", *at)
        assert refused.returncode == ExitCode.USAGE
        assert "in/a/clip.mp4 and in/b/clip.mp4 would both be written as flat/clip.{ext}" in refused.stderr
        assert not (tmp_path / "flat").exists()
        assert rigflow("run", "fingerprint", *inputs, "--out", "tree", "--keep-tree", *at).returncode == 0
        assert files_in(tmp_path / "tree") == ["in/a/clip.fingerprint.npz", "in/b/clip.fingerprint.npz"]
        again = rigflow("run", "fingerprint", "in/b/größe.mp4", "--out", "one/{stem}.{ext}", *at)
        assert again.returncode == 0
        assert "one/größe.npz" in again.stdout
        again = rigflow("run", "fingerprint", "in/b/größe.mp4", "--out", "one/{stem}.{ext}", *at)
        assert "one/größe.* is there already: give --overwrite" in again.stderr
        refused = rigflow("run", "fingerprint", "in", "--out", "folder/{stem}.{ext}", *at)
        assert "a/clip.mp4 and b/clip.mp4 would both be written as folder/clip.{ext}" in refused.stderr
        assert rigflow("run", "fingerprint", "in", "--out", "folder/{folder}-{stem}.{ext}", *at).returncode == 0
        wanted = ["a-clip.npz", "b-clip.npz", "b-größe.npz"]
        assert files_in(tmp_path / "folder") == wanted
        assert rigflow("run", "fingerprint", "in/a", "in/b", "--out", "two", *at).returncode == 0
        assert files_in(tmp_path / "two") == [f"{name}.fingerprint.npz" for name in ("a/clip", "b/clip", "b/größe")]
        watching = ("watch", "fingerprint", "in", "--out", "watched/{folder}-{stem}.{ext}", "--quiet", "0.2", *at)
        with Running(*watching) as watch:
            eventually(lambda: files_in(tmp_path / "watched") == wanted)
            assert watch.end(signal.SIGTERM) == ExitCode.OK
