"""Brokers that are away, that refuse us, and that forbid what we ask."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import types
from collections.abc import AsyncIterator, Awaitable, Generator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import nkeys
import pytest
import uvloop

from pipelines.broker import Broker
from pipelines.connection import Connection
from pipelines.local_access import PublishedPassword, make_password, other_brokers
from pipelines.server import EmbeddedServer
from schemas.errors import BrokerError, ExitCode, UsageError
from schemas.settings import Settings
from tests.integration.queues import a_broker, eventually, queue_subject


@pytest.mark.parametrize("url", ["nats://127.0.0.1:1", "nats://user:secret@127.0.0.1:1,127.0.0.1:2"])
async def test_a_broker_that_is_away_is_an_error_at_once(url: str) -> None:
    with pytest.raises(BrokerError, match=r"no broker at nats://127\.0\.0\.1:1") as caught:
        await Broker.connect(Settings(nats=url))
    assert caught.value.exit_code is ExitCode.BROKER
    assert "Connection refused" in caught.value.what
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://[x", "http://127.0.0.1:4222", "nats://host:port"])
async def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(UsageError, match="not a URL of a broker"):
        await Broker.connect(Settings(nats=url))


@asynccontextmanager
async def a_guarded_server(folder: Path, users: str) -> AsyncIterator[str]:
    """A nats-server with an authorization of its own."""
    server = GuardedServer(folder, users)
    await asyncio.to_thread(server.start)
    try:
        yield server.url
    finally:
        await asyncio.to_thread(server.stop)


class GuardedServer(EmbeddedServer):
    """An embedded server whose clients need credentials."""

    def __init__(self, store: Path, users: str) -> None:
        super().__init__(store)
        self._users = users

    def _config(self) -> str:
        return f"{super()._config()}\nauthorization {{ users: [ {self._users} ] }}\n"


async def test_wrong_credentials_are_an_error_at_once(tmp_path: Path) -> None:
    async with a_guarded_server(tmp_path, "{ user: me, password: right }") as url:
        for wrong, words in (
            (url, "asks for credentials, and none are given"),
            (url.replace("//", "//me:wrong@"), "refuses these credentials"),
        ):
            with pytest.raises(BrokerError, match=words) as caught:
                await Broker.connect(Settings(nats=wrong))
            assert "wrong" not in str(caught.value)
            assert "the file `password` of its --store" in str(caught.value)
        broker = await Broker.connect(Settings(nats=url.replace("//", "//me:right@")))
        await broker.close()


async def test_a_broker_of_ours_at_another_port_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    ours, ended = (PublishedPassword(port, make_password()) for port in (4777, 4778))
    assert ended._file is not None
    ended._file.close()  # as at the end of its process
    assert other_brokers("127.0.0.1, nats://localhost:1") == ["nats://127.0.0.1:4777"]
    assert other_brokers("127.0.0.1:4777") == other_brokers("nats://rig1:4222") == []
    async with a_guarded_server(tmp_path / "store", "{ user: me, password: right }") as url:
        for wrong in (url, url.replace("//", "//me:wrong@")):
            with pytest.raises(BrokerError) as caught:
                await Broker.connect(Settings(nats=wrong))
            assert caught.value.hint.endswith("; your own broker here is at nats://127.0.0.1:4777: give it by --nats")
    with pytest.raises(BrokerError, match="no broker at") as caught:
        await Broker.connect(Settings(nats=url))
    yours = "give that of your own broker here, nats://127.0.0.1:4777"
    assert caught.value.hint == f"start one with `rigflow up`, or {yours}, or check the URL of --nats or RIGFLOW_NATS"
    ours.forget()
    with pytest.raises(BrokerError) as caught:
        await Broker.connect(Settings(nats=url))
    assert caught.value.hint == "start one with `rigflow up`, or check the URL of --nats or RIGFLOW_NATS"


@pytest.mark.parametrize(
    "nonce", ["rigflow pipeline " + "0" * 64, "rigflow pipeline\n\0" + "0" * 64, "", "a" * 10, "a" * 65, "é" * 15, 7]
)
async def test_a_server_gets_no_signature_of_what_is_no_nonce(tmp_path: Path, nonce: object) -> None:
    (tmp_path / "key.nk").write_bytes(nkeys.encode_seed(bytes(32), nkeys.PREFIX_BYTE_USER))
    received = bytearray()

    async def hostile(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"nonce": nonce, "auth_required": True, "max_payload": 1 << 20, "headers": True}
        writer.write(f"INFO {json.dumps(info)}\r\n".encode())
        received.extend(await reader.readline())
        writer.close()

    async with await asyncio.start_server(hostile, "127.0.0.1", 0) as server:
        url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(BrokerError, match="its nonce is none"):
            await Broker.connect(Settings(nats=url, credentials=str(tmp_path / "key.nk")))
    assert b"sig" not in received


async def test_an_error_behind_the_handshake_is_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """nats-py prints what a callback raises in the task that reads, which finds the error before we are connected."""

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"max_payload": 1048576, "headers": true}\r\n')
        denied = b"-ERR 'Permissions Violation for Publish to \"x\"'\r\n"
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n" + denied)
                denied = b""
        writer.close()

    async with await asyncio.start_server(server, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        connection = await Connection.open(Settings(nats=f"nats://127.0.0.1:{port}"), "test")
        await connection.close()
    assert not caplog.records


async def test_a_connection_is_closed_at_any_step_of_its_reconnect() -> None:
    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"max_payload": 1048576, "headers": true}\r\n')
        while not (await reader.readline()).startswith(b"PING"):
            pass
        writer.write(b"PONG\r\n")
        while not (await reader.readline()).startswith(b"SUB"):
            pass
        writer.close()

    async with await asyncio.start_server(server, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        for steps in range(8):
            connection = await Connection.open(Settings(nats=f"nats://127.0.0.1:{port}"), "test")
            while not connection.nc.is_reconnecting:
                await asyncio.sleep(0)
            for _ in range(steps):
                await asyncio.sleep(0)
            await connection.close()
            with pytest.raises(BrokerError, match="is closed"):
                await connection.wait_connected()


async def test_nkey_seeds(tmp_path: Path) -> None:
    seeds = [nkeys.encode_seed(bytes([number]) * 32, nkeys.PREFIX_BYTE_USER) for number in range(2)]
    public = nkeys.from_seed(bytearray(seeds[0])).public_key.decode()
    for number, seed in enumerate(seeds):
        (tmp_path / f"{number}.nk").write_bytes(seed + b"\n")
    (tmp_path / "nonsense.nk").write_text("nonsense")
    async with a_guarded_server(tmp_path / "store", f"{{ nkey: {public} }}") as url:
        broker = await Broker.connect(Settings(nats=url, credentials=str(tmp_path / "0.nk")))
        await broker.close()
        for given, words in (("1.nk", "refuses these credentials"), ("", "asks for credentials, and none are given")):
            with pytest.raises(BrokerError, match=words) as caught:
                await Broker.connect(Settings(nats=url, credentials=given and str(tmp_path / given)))
            assert "takes the file of a key" in caught.value.hint
        for name, reason in (("nonsense.nk", "not an nkey seed"), ("nowhere.nk", "No such file")):
            with pytest.raises(UsageError, match=reason):
                await Broker.connect(Settings(nats=url, credentials=str(tmp_path / name)))


async def test_what_the_broker_forbids_is_an_error_at_once(tmp_path: Path) -> None:
    users = '{ user: me, password: right, permissions: { publish: { deny: "rigflow.>" } } }'
    async with a_guarded_server(tmp_path, users) as url, a_broker(Settings(nats=url.replace("//", "//me:right@"))) as b:
        with pytest.raises(BrokerError, match="forbids"):
            await b.publish(queue_subject(b), b"", "id")


async def test_a_closed_connection_says_so(settings: Settings) -> None:
    async with a_broker(settings) as broker:
        await broker.close()
        with pytest.raises(BrokerError, match="is closed"):
            await broker.publish(queue_subject(broker), b"", "id")


def test_what_is_sent_as_the_connection_breaks_is_no_error_of_the_event_loop(settings: Settings) -> None:
    """uvloop refuses to write to a connection that is closed, a moment before the client knows of it."""
    reported: list[dict[str, Any]] = []

    async def send() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, facts: reported.append(facts))
        async with Broker.connected(settings, name="sends") as broker:
            broker.connection.nc._transport._io_writer.transport.abort()  # type: ignore[union-attr]
            sent = 0
            while broker.connection.connected:
                broker.connection.send("a.b", b"x")
                sent += 1
                await asyncio.sleep(0)
            assert sent > 1
            await broker.connection.wait_connected()

    uvloop.run(send())
    assert not reported


async def test_a_connection_that_breaks_while_it_closes_is_closed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> None:
        raise ConnectionResetError

    broker = await Broker.connect(settings)
    client = broker.connection.nc
    client._pending, client._pending_data_size = [b"PING\r\n"], 6
    monkeypatch.setattr(client._transport, "drain", broken)
    monkeypatch.setattr(client, "_flush_pending", lambda *_: asyncio.sleep(0))
    await broker.close()
    assert broker.connection.closed


async def test_an_answer_that_comes_too_late_leaves_the_connection_whole(
    server: EmbeddedServer, settings: Settings
) -> None:
    """nats-py alone would hear nothing from then on, until its pings are missed."""
    async with a_broker(settings) as broker:
        os.kill(server.pid, signal.SIGSTOP)
        try:
            await eventually(lambda: Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await broker.connection.flush()
        finally:
            os.kill(server.pid, signal.SIGCONT)
        losses = broker.connection.losses
        assert (await broker.api("STREAM.NAMES"))["total"] > 0
        assert broker.connection.losses == losses


async def test_passwords_and_tokens_may_be_percent_encoded(tmp_path: Path) -> None:
    async with a_guarded_server(tmp_path / "a", '{ user: "m@e", password: "p@s/s:%" }') as url:
        broker = await Broker.connect(Settings(nats=url.replace("//", "//m%40e:p%40s%2Fs%3A%25@")))
        assert broker.connection.connected
        await broker.close()


def make_certificates(folder: Path) -> None:
    """ca.pem, and server.pem and client.pem with key.pem, which it signed for 127.0.0.1."""
    openssl = ("openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    subject = ("-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    ca = folder / "ca.pem"
    subprocess.run([*openssl, "-keyout", folder / "ca.key", "-out", ca, "-days", "2", "-subj", "/CN=ca"], check=True)
    for name in ("server", "client"):
        signed = ("-CA", ca, "-CAkey", folder / "ca.key", "-out", folder / f"{name}.pem")
        subprocess.run([*openssl, "-keyout", folder / f"{name}.key", *subject, *signed], check=True)


class TlsServer(EmbeddedServer):
    """An embedded server with TLS, whose clients need certificates."""

    def _config(self) -> str:
        here = self.store
        files = f'cert_file: "{here}/server.pem", key_file: "{here}/server.key", ca_file: "{here}/ca.pem"'
        return f"{super()._config()}\ntls {{ {files}, verify: true }}\n"


@pytest.fixture
def tls_url(tmp_path: Path) -> Iterator[str]:
    make_certificates(tmp_path)
    server = TlsServer(tmp_path)
    server.start()
    yield server.url.replace("nats://", "tls://")
    server.stop()


async def test_tls_with_a_ca_and_a_certificate_of_ones_own(tls_url: str, tmp_path: Path) -> None:
    ours = {"tls_cert": str(tmp_path / "client.pem"), "tls_key": str(tmp_path / "client.key")}
    for more in ({"tls_ca": str(tmp_path / "ca.pem")}, {"tls_verify": False}):
        broker = await Broker.connect(Settings.model_validate({"nats": tls_url, **ours, **more}))
        assert broker.connection.connected
        await broker.close()
    with pytest.raises(BrokerError, match=r"the certificate of the broker at tls://.* is not trusted .*: set tls_ca"):
        await Broker.connect(Settings.model_validate({"nats": tls_url, **ours}))
    for wrong in ("gone.pem", "ca.key"):
        with pytest.raises(UsageError, match=f"TLS file .*{wrong}: .*check the settings tls_ca"):
            await Broker.connect(Settings(nats=tls_url, tls_ca=str(tmp_path / wrong)))


async def test_tls_never_becomes_plain_text_with_the_password_in_it() -> None:
    """A server that says it has no TLS gets nothing but a handshake."""
    got = bytearray()

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"server_id": "x", "version": "2.11.0", "max_payload": 1 << 20, "auth_required": True}
        writer.write(f"INFO {json.dumps(info)}\r\n".encode())
        with contextlib.suppress(OSError):
            got.extend(await reader.read(4096))
        writer.write(b"-ERR 'Unknown Protocol Operation'\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(BrokerError, match=f"the broker at tls://127.0.0.1:{port} speaks no TLS with us") as caught:
        await Broker.connect(Settings(nats=f"tls://me:secret@127.0.0.1:{port}"))
    assert "secret" not in str(caught.value)
    assert got[:1] == b"\x16"
    assert b"secret" not in got
    server.close()


@types.coroutine
def cancelled_after_wait(number: int, call: Awaitable[Any]) -> Generator[Any, Any, bool]:
    """Await `call`; this task is cancelled when wait `number` ends, before it goes on. False if there are fewer."""
    task = asyncio.current_task()
    assert task is not None
    steps, error, waits = call.__await__(), None, 0
    while True:
        try:
            future = steps.send(None) if error is None else steps.throw(error)  # type: ignore[attr-defined]
        except StopIteration:
            return waits >= number
        waits += 1
        if waits == number and future is not None:
            future.add_done_callback(lambda _: task.cancel())
        try:
            yield future
            error = None
        except BaseException as raised:
            error = raised


@pytest.mark.parametrize("what", ["connect", "flush"])
async def test_a_cancellation_at_any_moment_is_kept(settings: Settings, what: str) -> None:
    """A task that goes on after its cancellation may wait for ever."""

    async def cancelled(number: int) -> bool:
        async with AsyncExitStack() as stack:

            async def connect() -> Broker:
                broker = await Broker.connect(settings)
                stack.push_async_callback(broker.close)
                return broker

            if what == "connect":
                return await cancelled_after_wait(number, connect())
            broker = await connect()
            return await cancelled_after_wait(number, broker.connection.flush())

    number = 0
    while True:
        number += 1
        task = asyncio.create_task(cancelled(number))
        await asyncio.wait([task])
        if not task.cancelled():
            break
    assert not task.result(), f"goes on after its cancellation in wait {number}"
    assert number > 1
