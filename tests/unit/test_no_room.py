"""Files that cannot be read or written, and options without effect: what is told, and that nothing is left."""

import errno
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from pipelines.server import EmbeddedServer
from pipelines.store_lock import lock_store
from schemas.errors import ExitCode, StoreError
from tests.cli import COMMAND, environment, rigflow


def no_room(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_lock_holds_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        full.setattr("pipelines.store_lock.os.write", no_room)
        lock = lock_store(tmp_path / "store")
    with pytest.raises(StoreError, match=r"is locked by another rigflow \(pid unknown\)"):
        lock_store(tmp_path / "store")
    lock.close()


def test_a_broker_that_cannot_start_leaves_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.server.MIN_FREE_BYTES", 1 << 60)
    (old := tmp_path / "old").mkdir()
    (old / "kept").touch()
    for store in (tmp_path / "new", old):
        with pytest.raises(StoreError, match="free, and the broker needs"):
            EmbeddedServer(store, guarded=True).start()
    assert not (tmp_path / "new").exists()
    assert (old / "kept").exists()


def test_a_key_that_cannot_be_written_leaves_no_file(tmp_path: Path) -> None:
    words = shlex.join([*COMMAND, "keys", "nats", "k.nk"])
    command = ["sh", "-c", f"ulimit -f 0; exec {words} 2>&1 | cat"]
    env = environment() | {"PYTHONDONTWRITEBYTECODE": "1"}
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env, check=False, timeout=100)
    assert ended.stdout == "rigflow: cannot write k.nk: File too large: make room on the disk\n"
    assert list(tmp_path.iterdir()) == []


def test_what_may_not_be_read_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (film := tmp_path / "in" / "film.mp4").parent.mkdir()
    film.write_bytes(b"film")
    hint = "check its permissions, and those of the folders that it is in\n"
    with monkeypatch.context() as unreadable:
        unreadable.setattr(os, "access", lambda *_, **__: False)
        ended = rigflow("run", "scenes", film)
        assert (ended.returncode, ended.stderr) == (2, f"rigflow: {film}: no permission to read it: {hint}")

    def refused(path: Path) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("cli.run_task.Path.is_dir", refused)
    ended = rigflow("run", "./scenes.toml", film)
    assert (ended.returncode, ended.stderr) == (2, f"rigflow: {film}: Permission denied: {hint}")


def test_a_film_of_a_folder_that_may_not_be_read_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "film.mp4").write_bytes(b"film")

    def refused(*_: object) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("engines.media.source.head_of", refused)
    ended = rigflow("run", "scenes", tmp_path / "in", "--out", tmp_path / "out")
    assert (ended.returncode, "film.mp4" in ended.stdout + ended.stderr) == (ExitCode.SOME_FAILED, True)
    assert "permission denied" in ended.stdout + ended.stderr
    assert "nothing to do" not in ended.stderr


def test_credentials_without_a_broker_are_refused(tmp_path: Path) -> None:
    for words in (("run", "scenes", __file__), ("up",), ("watch", "scenes", tmp_path, "--out", tmp_path / "out")):
        ended = rigflow(*words, "--credentials", "worker.nk")
        line = "rigflow: --credentials is for a broker that is there: give its URL, too, by --nats\n"
        assert (ended.returncode, ended.stderr) == (ExitCode.USAGE, line)


def test_a_host_that_has_no_address_is_reported_in_words() -> None:
    pytest.importorskip("fastapi")
    ended = rigflow("gateway", "--host", "no host", "--everyone")
    assert ended.returncode == ExitCode.USAGE
    assert ended.stderr.startswith("rigflow: cannot listen on no host:8000: Name or service not known: choose")
