"""Temporary folders of processes that were killed are removed by the next one."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from engines.scratch import ScratchFolder, remove_left

_HOLDS = "from engines.scratch import ScratchFolder; f = ScratchFolder('t'); print(f.path, flush=True); input()"


def test_the_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    command = [sys.executable, "-c", _HOLDS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        theirs = Path(process.stdout.readline().strip())
        (theirs / "weights").write_bytes(b"w")
        ours = ScratchFolder("t")
        assert theirs.is_dir(), "its process lives"
        process.kill()
        process.wait()
    assert theirs.is_dir()
    another = ScratchFolder("of another kind")
    assert not theirs.exists()
    assert ours.path.is_dir()
    begun = tmp_path / "rigflow-t-begun"
    begun.mkdir()
    chosen = tmp_path / "rigflow-store"
    chosen.mkdir()
    (chosen / ".lock").touch()
    remove_left()
    assert begun.is_dir(), "another process makes it now"
    assert chosen.is_dir(), "it is no folder of ours"
    for each in (begun, chosen):
        shutil.rmtree(each)
    for each in (ours, another, another):
        each.remove()
    assert list(tmp_path.iterdir()) == []
