"""`rigflow keys join` and `rigflow rig --join`, on a broker with the roles of deploy/nats/roles.conf."""

import asyncio
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from cli.joining import join
from pipelines.audit import read_audit
from pipelines.broker import TTL, Broker
from pipelines.child import nats_server_binary, tied_to_us
from pipelines.connection import Connection
from pipelines.join_tokens import TokenText, all_tokens, check_keys, make_token, revoke_token, use_up
from pipelines.stream_plans import bucket
from pipelines.topology import apply_topology
from schemas.declared import is_token
from schemas.errors import BrokerError, UsageError
from schemas.join_tokens import RigAccess
from schemas.settings import Settings
from tests.cli import Running, rigflow
from tests.guarded import Guarded, made_by_the_operator, url_of
from tests.integration.queues import eventually


def operator(guarded: Guarded) -> dict[str, str]:
    return {f"RIGFLOW_{key.upper()}": value for key, value in guarded.settings("operator").items()}


def made(guarded: Guarded, name: str, *words: str) -> str:
    """A token, which shows no seed."""
    seeds = ("--worker", guarded.seeds["worker"], "--join-key", guarded.seeds["join"])
    added = rigflow("keys", "join", "add", name, *seeds, *words, **operator(guarded))
    assert added.returncode == 0, added.stderr
    assert not [seed for seed in guarded.seeds.values() if seed.read_text() in added.stdout + added.stderr]
    return added.stdout.strip()


def joining(url: str, token: str, home: Path, hidden: str = "", **extra: str) -> tuple[int, str]:
    """Exit code and message of a join that fails."""
    home.mkdir(exist_ok=True)
    ended = rigflow("rig", "--join", url, "--token", token, HOME=str(home), **extra)
    assert (hidden or token) not in ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert not list((home / ".local/share/rigflow").glob("joined*"))
    return ended.returncode, ended.stderr


def test_a_machine_joins_in_one_command_and_stays_in_the_fleet(
    guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(made_by_the_operator(guarded))
    token, home = made(guarded, "rig7"), tmp_path / "home"
    home.mkdir()
    words = ("--name", "rig7", "--metrics", "127.0.0.1:0", "--config", str(tmp_path / "rig.toml"))
    (tmp_path / "rig.toml").write_text("[[worker]]\n")
    for given in (("--join", guarded.url, "--token", token), ()):
        with Running("rig", *given, *words, HOME=str(home), CUDA_VISIBLE_DEVICES="") as rig:
            rig.until("event=serving")
            rig.until("event=started")
            assert rig.end(signal.SIGTERM) == 0
        seed = guarded.seeds["worker"].read_text()
        assert not [secret for secret in (seed, token) if secret in rig.output]
    folder = home / ".local/share/rigflow/joined"
    assert {path.name: path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())} == {
        "joined": 0o700,
        "settings.toml": 0o600,
        "worker.nk": 0o600,
    }
    assert tomllib.loads((folder / "settings.toml").read_text())["inbox"] == "_INBOX_worker"
    listed = rigflow("keys", "join", "list", **operator(guarded)).stdout
    assert re.search(r"rig7 +[0-9a-f]{32} +was used by \S+ on ", listed)
    code, said = joining(guarded.url, token, tmp_path / "another")
    assert (code, "the join token rig7 was used by " in said) == (2, True), said
    monkeypatch.setenv("HOME", str(home))
    assert join(Settings(nats=guarded.url), token) == folder / "settings.toml", "nothing to do"
    again = rigflow("rig", "--join", guarded.url, "--token", made(guarded, "rig9"), HOME=str(home))
    assert (again.returncode, "this machine joined a fleet before" in again.stderr) == (2, True)
    assert "Violation" not in guarded.log.read_text(), "nobody needs more"


def test_a_token_that_is_not_to_be_used_says_why(
    guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(made_by_the_operator(guarded))
    revoked, home = made(guarded, "revoked"), tmp_path / "home"
    seeds = ("--worker", guarded.seeds["worker"], "--join-key", guarded.seeds["join"])
    twice = rigflow("keys", "join", "add", "revoked", *seeds, **operator(guarded))
    assert "there is a join token revoked: choose another name" in twice.stderr
    assert rigflow("keys", "join", "revoke", "revoked", **operator(guarded)).returncode == 0
    assert "the join token revoked was revoked on 20" in joining(guarded.url, revoked, home)[1]
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{revoked}\n"))
    assert "the join token revoked was revoked on 20" in joining(guarded.url, "-", home, hidden=revoked)[1]
    again = rigflow("keys", "join", "revoke", "revoked", **operator(guarded))
    assert "the join token revoked was revoked on" in again.stderr
    text = made(guarded, "other")
    wrong = text[:20] + ("A" if text[20] != "A" else "B") + text[21:]
    for mistyped in (wrong, text[:-5], text + "A", "rfj_AAAA", "hello"):
        code, said = joining(guarded.url, mistyped, home)
        assert (code, "--token is no join token: copy all of it" in said) == (2, True), said
    parsed = TokenText.parse(text)
    strange = TokenText(bytes(32), parsed.join_seed)
    assert "the fleet does not know this join token" in joining(guarded.url, str(strange), home)[1]
    code, said = joining("nats://127.0.0.1:1", text, home)
    assert (code, "no broker at nats://127.0.0.1:1" in said, "--nats" in said) == (3, True, False), said
    refused = TokenText(parsed.key, bytes(32))
    code, said = joining(guarded.url, str(refused), home)
    assert (code, "refuses these credentials" in said) == (3, True), said
    alone = rigflow("rig", "--join", guarded.url, HOME=str(home))
    assert "--join and --token go together" in alone.stderr


@pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made by openssl")
def test_the_certificates_come_with_the_token_and_a_broker_without_them_is_refused(tmp_path: Path) -> None:
    for name in ("fleet", "other"):
        subject = ("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1")
        files = ("-keyout", tmp_path / f"{name}.key", "-out", tmp_path / f"{name}.pem")
        words = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", *subject, *files)
        subprocess.run(["openssl", *words], check=True, capture_output=True)
    with tls_broker(tmp_path, "fleet") as url:
        given = {"RIGFLOW_NATS": url, "RIGFLOW_TLS_CA": str(tmp_path / "fleet.pem")}
        assert rigflow("topology", "apply", "fingerprint", **given).returncode == 0
        token = rigflow("keys", "join", "add", "rig7", **given).stdout.strip()
        wrong = {"RIGFLOW_TLS_CA": str(tmp_path / "other.pem")}
        code, said = joining(url, token, tmp_path / "home", **wrong)
        assert (code, "the certificate of the broker at" in said, "is not trusted" in said) == (3, True, True), said
        with mock.patch.dict(os.environ, {"HOME": str(tmp_path / "home")}):
            file = join(Settings(nats=url), token)
        assert (file.parent / "ca.pem").read_text() == (tmp_path / "fleet.pem").read_text()
        assert rigflow("status", "--settings", file).returncode == 0
        other = rigflow("keys", "join", "add", "rig8", **{**given, "RIGFLOW_TLS_CA": str(tmp_path / "both.pem")})
        assert "both.pem: No such file" in other.stderr


@contextmanager
def tls_broker(folder: Path, name: str) -> Iterator[str]:
    """A broker without roles, with TLS by the certificate of that name."""
    config = folder / "nats.conf"
    files = f'cert_file: "{folder}/{name}.pem", key_file: "{folder}/{name}.key"'
    config.write_text(
        f'listen: "127.0.0.1:-1"\nports_file_dir: "{folder}"\nmax_payload: 8MB\ntls {{ {files} }}\n'
        f'jetstream {{ store_dir: "{folder}/store", max_mem: 64MB, max_file: 16GB }}\n'
    )
    process = subprocess.Popen(tied_to_us([nats_server_binary(), "-c", str(config), "-l", str(folder / "log")]))
    try:
        yield url_of(folder, process.pid).replace("nats://", "tls://")
    finally:
        process.kill()
        process.wait()


async def test_the_role_join_may_do_nothing_else(guarded: Guarded, tmp_path: Path) -> None:
    await made_by_the_operator(guarded)
    text = TokenText.parse(await asyncio.to_thread(made, guarded, "rig7"))
    settings = Settings.model_validate(guarded.settings("join"))
    bucket, keys = "KV_rigflow_join_tokens", "$KV.rigflow_join_tokens"
    await asyncio.to_thread(made, guarded, "rig8")
    connection = await Connection.open(settings, "test")
    try:
        answer = await connection.request(f"$JS.API.DIRECT.GET.{bucket}.{keys}.{text.id}")
        assert b'"name":"rig7"' in answer.data
        assert guarded.seeds["worker"].read_bytes() not in answer.data
        for wildcard in ("*", ">"):  # permissions take them for an id, and the broker reads the newest record
            assert (await connection.request(f"$JS.API.DIRECT.GET.{bucket}.{keys}.{wildcard}")).data == b""
        for subject in (
            f"$JS.API.DIRECT.GET.{bucket}",
            f"$JS.API.DIRECT.GET.{bucket}.{keys}.a.b",
            f"$JS.API.STREAM.MSG.GET.{bucket}",
            f"$JS.API.CONSUMER.CREATE.{bucket}.a",
            f"$JS.API.STREAM.PURGE.{bucket}",
            "$JS.API.STREAM.NAMES",
            "$KV.rigflow_keys.a",
            "$KV.rigflow_keys.join.a",
            "$JS.API.DIRECT.GET.KV_rigflow_keys.$KV.rigflow_keys.join.a",
            "$KV.rigflow_pipelines.name.a",
            "rigflow.media.main.fingerprint",
        ):
            with pytest.raises(BrokerError, match="forbids"):
                await connection.request(subject)
        # an answer stays in this role's account, whatever reply its request names
        connection.send(f"$JS.API.DIRECT.GET.{bucket}.{keys}.{text.id}", b"", "rigflow.media.main.fingerprint")
        await connection.flush()
    finally:
        await connection.close()
    async with Broker.connected(Settings.model_validate(guarded.settings("operator")), "test") as broker:
        assert (await broker.api("STREAM.INFO.RIGFLOW_MEDIA_fingerprint"))["state"]["messages"] == 0


async def test_the_broker_itself_deletes_a_token_that_expired(settings: Settings) -> None:
    async with Broker.connected(settings, "test") as broker:
        access = RigAccess(inbox="_INBOX", prefix="rigflow")
        text = await make_token(broker, "short", access, b"", time.time() + 1)
        await make_token(broker, "long", access, b"", 4e9)

        async def gone() -> bool:
            return await broker.last("KV_rigflow_join_tokens", f"$KV.rigflow_join_tokens.{text.id}") is None

        await eventually(gone)
        assert [token.name for token in await all_tokens(broker)] == ["long"]
        with pytest.raises(UsageError, match="does not know this join token: has it expired"):
            await use_up(settings, text)
        assert await broker.get(broker.names.join_tokens, "*") == b"", "the newest record is still one of nothing"


async def test_a_machine_with_a_wrong_clock_joins(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens expire by the broker's clock, whatever those of the operator and of the machine say."""
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() - 86400.0)
    async with Broker.connected(settings, "test") as broker:
        assert abs(broker.now_s() - right()) > 3600, "this broker is new, and does not say its time yet"
        await apply_topology(broker, settings, [])
        access, expires_s = RigAccess(inbox="_INBOX", prefix="rigflow"), broker.now_s() + 3600
        assert abs(expires_s - right() - 3600) < 1800
        text = await make_token(broker, "rig", access, b"", expires_s)
        monkeypatch.setattr(time, "time", lambda: right() + 86400.0)
        assert (await use_up(settings, text)).name == "rig"
        [used] = await all_tokens(broker)
        assert abs(used.used_s - right()) < 3600


async def test_a_used_token_stays_in_the_list_and_a_bucket_of_an_earlier_version_is_reported(
    settings: Settings,
) -> None:
    access = RigAccess(inbox="_INBOX", prefix="rigflow")
    async with Broker.connected(settings, "test") as broker:
        text = await make_token(broker, "rig7", access, b"", time.time() + 60)
        await use_up(settings, text)
        assert await broker.get(broker.names.join_tokens, "*") == b"", "no record of a token is the newest"
        entry = await broker.last("KV_rigflow_join_tokens", f"$KV.rigflow_join_tokens.{text.id}")
        assert entry is not None
        assert (TTL in entry.headers, b'"box":""' in entry.body) == (False, True)
        await broker.api("STREAM.DELETE.KV_rigflow_join_tokens")
        before = bucket(broker.names.join_tokens, 1 << 20)
        await broker.api("STREAM.CREATE.KV_rigflow_join_tokens", before)
        with pytest.raises(UsageError, match="that of an earlier version: `rigflow topology apply`"):
            await make_token(broker, "rig7", access, b"", 4e9)
        await apply_topology(broker, settings, [])
        assert await make_token(broker, "rig7", access, b"", 4e9)


async def test_a_token_of_which_the_second_record_is_refused_is_none(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Broker.connected(settings, "test") as broker:
        await apply_topology(broker, settings, [])
        put, access = broker.put, RigAccess(inbox="_INBOX", prefix="rigflow")

        async def full(bucket: str, key: str, value: bytes, ttl_s: int = 0) -> None:
            if not value:
                raise BrokerError("the bucket is full")
            await put(bucket, key, value, ttl_s)

        monkeypatch.setattr(broker, "put", full)
        with pytest.raises(BrokerError, match="full"):
            await make_token(broker, "rig7", access, b"", 4e9)
        monkeypatch.undo()
        assert await all_tokens(broker) == []
        assert [each async for each in read_audit(broker)] == []
        await make_token(broker, "rig7", access, b"", 4e9)
        await revoke_token(broker, "rig7")
        assert await broker.get(broker.names.join_tokens, "*") == b"", "no record of a token is the newest"


async def test_a_broker_that_does_not_answer_is_not_reported_as_one_that_knows_no_key(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> Connection:
        raise BrokerError("no broker")

    async with Broker.connected(Settings.model_validate(guarded.settings("operator")), "test") as broker:
        monkeypatch.setattr(Connection, "open", away)
        seed = guarded.seeds["worker"].read_bytes()
        with pytest.raises(BrokerError, match=r"^--worker: no broker"):
            await check_keys(broker, seed, seed)


async def test_a_token_that_is_used_while_it_is_revoked_stays_used(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Broker.connected(settings, "test") as broker:
        await apply_topology(broker, settings, [])
        text = await make_token(broker, "rig7", RigAccess(inbox="_INBOX", prefix="rigflow"), b"", 4e9)

        async def used_meanwhile(*_: object, **__: object) -> None:
            await use_up(settings, text)

        monkeypatch.setattr("pipelines.join_tokens.audit", used_meanwhile)
        with pytest.raises(UsageError, match="the join token rig7 was used by"):
            await revoke_token(broker, "rig7")
        assert [(each.used_s > 0, each.revoked_s) for each in await all_tokens(broker)] == [(True, 0)]


def test_a_folder_left_from_before_costs_no_token(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def made_one() -> TokenText:
        async with Broker.connected(settings, "test") as broker:
            await apply_topology(broker, settings, [])
            return await make_token(broker, "rig7", RigAccess(inbox="_INBOX", prefix="rigflow"), b"", 4e9)

    text = str(asyncio.run(made_one()))
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".local/share/rigflow/joined"
    folder.mkdir(parents=True)
    (folder / "worker.nk").touch()
    with pytest.raises(UsageError, match="is left from an earlier join"):
        join(settings, text)
    (folder / "worker.nk").unlink()
    assert join(settings, text).exists(), "the token is not used, and an empty folder is none"


def test_two_tokens_are_different_and_their_ids_are_tokens_of_a_subject() -> None:
    one, other = TokenText(bytes(32)), TokenText(b"\1" * 32, bytes(32))
    assert one.id != other.id
    assert is_token(one.id)
    assert TokenText.parse(str(one)) == one
    assert TokenText.parse(f" {other}\n") == other
