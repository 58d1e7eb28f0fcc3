"""The embedded nats-server: its store, its port, its life."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from cli.progress import Progress
from pipelines.broker import Broker
from pipelines.server import MAX_PAYLOAD, EmbeddedServer
from schemas.errors import BrokerError, ExitCode, StoreError
from schemas.settings import Settings
from tests.cli import environment
from workers.local import local_fleet


def test_it_is_ready_after_start_and_gone_after_stop() -> None:
    server = EmbeddedServer()
    server.start()
    store, port = server.store, int(server.url.rsplit(":", 1)[1])
    assert server.alive
    server.stop()
    assert not server.alive
    assert not store.exists(), "a temporary store is removed"
    assert not listens(port)


@pytest.mark.parametrize("turns", [1, 2, 5])
async def test_a_start_that_is_cancelled_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """Ctrl-C comes at any time: no broker, no store and no password file is left."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def begin() -> None:
        async with local_fleet(Settings(), 0, Progress(Console())):
            await asyncio.Event().wait()

    beginning = asyncio.create_task(begin())
    for _ in range(turns):
        await asyncio.sleep(0.01)
    beginning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await beginning
    assert not [path for path in tmp_path.rglob("*") if path.is_file() or path.name.startswith("rigflow-")]


async def test_a_cancelled_start_does_not_wait_for_a_broker_that_is_never_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, began = tmp_path / "nats-server", tmp_path / "began"
    stuck.write_text(f"#!/bin/sh\ntouch {began}\nexec sleep 3600\n")
    stuck.chmod(0o700)
    monkeypatch.setattr("pipelines.server.nats_server_binary", lambda: str(stuck))
    monkeypatch.setattr("pipelines.server.READY_S", 3600.0)

    async def begin() -> None:
        async with local_fleet(Settings(), 0, Progress(Console())):
            raise AssertionError("it is never ready")

    beginning = asyncio.create_task(begin())
    while not began.exists():
        await asyncio.sleep(0.01)
    beginning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await beginning


def test_a_stop_without_a_start_touches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "precious").touch()
    EmbeddedServer().stop()
    EmbeddedServer(tmp_path).stop()
    assert (tmp_path / "precious").exists()


async def test_it_listens_on_the_loopback_only_and_takes_8_mib(server: EmbeddedServer) -> None:
    broker = await Broker.connect(Settings(nats=server.url))
    try:
        assert broker.connection.max_payload == MAX_PAYLOAD
        info = await broker.api("INFO")
        assert info["streams"] == 0
    finally:
        await broker.close()
    assert server.url.startswith("nats://127.0.0.1:")


async def test_a_kill_loses_nothing_that_was_stored_and_a_restart_keeps_the_port(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "store")
    server.start()
    url = server.url
    try:
        broker = await Broker.connect(Settings(nats=url))
        await broker.api("STREAM.CREATE.KEPT", {"name": "KEPT", "subjects": ["kept"], "allow_direct": True})
        for number in range(100):
            await broker.publish("kept", b"%d" % number, str(number))
        server.kill()
        assert not server.alive
        assert server.wait(0.0)
        server.restart()
        assert server.url == url
        assert [stored.body async for stored in broker.read("KEPT")] == [b"%d" % number for number in range(100)]
        await broker.close()
    finally:
        server.stop()
    assert (tmp_path / "store").exists(), "a named store stays"


def test_a_death_is_noticed(server: EmbeddedServer) -> None:
    assert not server.wait(0.01)
    os.kill(server.pid, signal.SIGKILL)
    assert server.wait(60.0)
    assert not server.alive


def test_a_store_has_one_user(tmp_path: Path) -> None:
    first, second = EmbeddedServer(tmp_path), EmbeddedServer(tmp_path)
    first.start()
    try:
        with pytest.raises(StoreError, match=rf"locked by another rigflow \(pid {os.getpid()}\)") as caught:
            second.start()
        assert caught.value.exit_code is ExitCode.STORE
        assert first.alive
    finally:
        first.stop()
    second.start()
    second.stop()


def test_a_store_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="--store"):
        EmbeddedServer(tmp_path / "file" / "store").start()


def test_a_taken_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = EmbeddedServer(tmp_path, port)
        with pytest.raises(BrokerError, match=f"port {port} is taken") as caught:
            server.start()
        assert "0 for any" in caught.value.hint
    server.start()  # the store was unlocked, and now the port is free
    assert server.url.endswith(f":{port}")
    server.stop()


def test_the_store_is_bounded(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path, max_store_bytes=123 << 20, sync="always")
    server.start()
    try:
        config = (tmp_path / "nats-server.conf").read_text()
        assert f"max_file: {123 << 20}" in config
        assert "sync_interval: always" in config
    finally:
        server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ties the server to us only on Linux")
def test_it_dies_with_its_owner_even_by_kill_9(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from pipelines.server import EmbeddedServer\n"
        "server = EmbeddedServer(Path(sys.argv[1])); server.start(); print(server.url, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        port = int(owner.stdout.readline().rsplit(b":", 1)[1])
        assert listens(port)
        owner.kill()
        owner.wait()
        eventually(lambda: not listens(port))
    again = EmbeddedServer(tmp_path)
    again.start()  # nobody holds the lock
    again.stop()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def eventually(holds: Callable[[], bool], within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


async def test_only_its_owner_reaches_a_guarded_server(tmp_path: Path, home: Path) -> None:
    server = EmbeddedServer(tmp_path / "store", guarded=True)
    server.start()
    passwords = home / ".local" / "share" / "rigflow" / "brokers"
    try:
        await (await Broker.connect(Settings(nats=server.url))).close()  # by the port, as any command
        local = server.url.replace("127.0.0.1", "localhost")
        await (await Broker.connect(Settings(nats=local))).close()
        [known] = passwords.iterdir()
        known.rename(tmp_path / "kept")
        with pytest.raises(BrokerError, match="asks for credentials, and none are given"):
            await Broker.connect(Settings(nats=server.url))
        await (await Broker.connect(Settings(nats=server.url, credentials=str(server.password_file)))).close()
        with_password = server.url.replace("//", f"//rigflow:{server.password_file.read_text()}@")
        await (await Broker.connect(Settings(nats=with_password))).close()
        (tmp_path / "kept").rename(known)
        before = server.password_file.read_text()
        server.kill()
        server.restart()
        await (await Broker.connect(Settings(nats=server.url))).close()
    finally:
        server.stop()
    assert list(passwords.iterdir()) == []
    again = EmbeddedServer(tmp_path / "store", guarded=True)
    again.start()
    try:
        assert again.password_file.read_text() == before, "who waits for it reconnects"
    finally:
        again.stop()


async def test_a_broker_that_starts_leaves_the_password_of_one_that_does_not_answer(tmp_path: Path, home: Path) -> None:
    """It may be starting again; only the files of brokers whose owner is gone are removed."""
    first, second = (EmbeddedServer(tmp_path / name, guarded=True) for name in ("first", "second"))
    first.start()
    try:
        passwords = home / ".local" / "share" / "rigflow" / "brokers"
        (passwords / "1").write_text("of a broker whose owner was killed")
        first.kill()
        second.start()
        assert {path.name for path in passwords.iterdir()} == {
            url.rpartition(":")[2] for url in (first.url, second.url)
        }
        first.restart()
        await (await Broker.connect(Settings(nats=first.url))).close()
    finally:
        first.stop()
        second.stop()
    assert list(passwords.iterdir()) == []


async def test_what_it_keeps_is_for_its_owner_alone(tmp_path: Path, home: Path) -> None:
    mask = os.umask(0)
    server = EmbeddedServer(tmp_path / "store", guarded=True)
    try:
        server.start()
        broker = await Broker.connect(Settings(nats=server.url))
        await broker.api("STREAM.CREATE.KEPT", {"name": "KEPT", "subjects": ["kept"]})
        await broker.publish("kept", b"secret", "1")
        await broker.close()
    finally:
        server.stop()
        os.umask(mask)
    kept = [tmp_path / "store", *(tmp_path / "store").rglob("*"), *home.rglob("brokers")]
    assert {path.name for path in kept} >= {"nats-server.conf", "nats-server.log", "password", ".lock", "brokers"}
    readable = {str(path): oct(path.stat().st_mode) for path in kept if path.stat().st_mode & 0o077}
    assert readable == {}


async def test_without_a_home_to_write_to_it_works_by_its_file(tmp_path: Path, home: Path) -> None:
    (home / ".local").write_text("in the way")
    server = EmbeddedServer(tmp_path / "store", guarded=True)
    server.start()
    try:
        await (await Broker.connect(Settings(nats=server.url, credentials=str(server.password_file)))).close()
    finally:
        server.stop()


def test_a_store_may_be_called_anything(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / 'hömé "東京"')
    server.start()
    assert server.alive
    server.stop()


def test_a_limit_of_the_shell_that_the_store_cannot_keep_is_an_error_at_once(tmp_path: Path) -> None:
    limited = f"ulimit -f 100; exec {sys.executable} -m cli up --store {tmp_path / 'store'} --port 0 --workers 1"
    ended = subprocess.run(
        ["bash", "-c", limited], capture_output=True, text=True, timeout=60, env=environment(), check=False
    )
    assert ended.returncode == ExitCode.STORE
    assert ended.stderr.startswith("rigflow: a limit of the shell allows files of 102 kB, and the broker needs")
