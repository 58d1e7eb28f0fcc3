"""Commands on a broker that cannot do what they are for say what is missing, and change nothing."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.server import EmbeddedServer
from schemas.errors import ExitCode
from schemas.settings import Settings
from tests.cli import COMMAND, Running, environment, rigflow
from tests.guarded import Guarded, new_key, url_of
from tests.integration.test_join_tokens import operator


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a broker as `rigflow up` starts it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    server = EmbeddedServer(tmp_path / "store", guarded=True)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


def keys(folder: Path) -> tuple[str, ...]:
    """Options of keys that no broker knows."""
    new_key(folder / "a.nk")
    new_key(folder / "b.nk")
    return ("--worker", str(folder / "a.nk"), "--join-key", str(folder / "b.nk"))


def test_nobody_joins_the_broker_of_up(ours: str, tmp_path: Path) -> None:
    for words in ((), keys(tmp_path)):
        ended = rigflow("keys", "join", "add", "rig7", *words, "--nats", ours)
        said = f"rigflow: the broker at {ours} is that of `rigflow up`, which serves this machine alone: no other "
        assert (ended.returncode, ended.stdout, ended.stderr[: len(said)]) == (ExitCode.USAGE, "", said)
    assert rigflow("keys", "join", "list", "--nats", ours).stdout == "no join tokens\n"


def test_a_broker_without_roles_knows_no_keys(settings: Settings, tmp_path: Path) -> None:
    ended = rigflow("keys", "join", "add", "rig7", *keys(tmp_path), "--nats", settings.nats)
    assert (ended.returncode, ended.stdout) == (ExitCode.USAGE, "")
    assert "has no roles: it knows no keys, and lets everybody in: leave out --worker and --join-key" in ended.stderr
    added = rigflow("keys", "join", "add", "rig7", "--nats", settings.nats)
    assert (added.returncode, added.stdout[:4]) == (0, "rfj_")
    loopback = "rigflow: the broker listens on 127.0.0.1, which other machines do not reach: give it `--addr 0.0.0.0`\n"
    assert added.stderr.endswith(loopback)


def test_a_broker_with_roles_gives_no_token_without_its_keys(guarded: Guarded, tmp_path: Path) -> None:
    without = rigflow("keys", "join", "add", "rig7", **operator(guarded))
    assert (without.returncode, without.stdout) == (ExitCode.USAGE, "")
    assert "asks for a key, and this token would bring none: give --worker and --join-key" in without.stderr
    known, unknown = ("--worker", str(guarded.seeds["worker"])), keys(tmp_path)
    for words, option in ((unknown, "--worker"), ((*known, *unknown[2:]), "--join-key")):
        wrong = rigflow("keys", "join", "add", "rig7", *words, **operator(guarded))
        assert (wrong.returncode, wrong.stdout) == (ExitCode.USAGE, "")
        assert wrong.stderr.startswith(f"rigflow: {option}: the broker at {guarded.url} does not let in U")
    assert rigflow("keys", "join", "list", **operator(guarded)).stdout == "no join tokens\n"


def test_a_tenant_of_the_broker_of_up_is_one_of_the_gateway(ours: str, tmp_path: Path) -> None:
    file = tmp_path / "tenants.toml"
    to = ("--file", file, "--nats", ours)
    with_key = rigflow("tenants", "add", "acme", "--user", new_key(tmp_path / "acme.nk"), *to)
    said = (
        "rigflow: the broker of `rigflow up` has no accounts, which the keys of --user would be for: leave --user out"
    )
    assert (with_key.returncode, with_key.stderr[: len(said)], file.exists()) == (ExitCode.USAGE, said, False)
    added = rigflow("tenants", "add", "acme", "--weight", "3", *to)
    assert (added.returncode, added.stdout) == (0, "tenant acme is added: weight 3\n")
    needs = "rigflow: its programs need a key of the gateway: `rigflow keys api add NAME --tenant acme` makes one\n"
    assert added.stderr == f"rigflow: {file} was not there: it is new\n{needs}"
    assert list(tmp_path.glob("*.conf")) == [], "nothing is there to include"
    for name in ("a b", "../a", "*", "x" * 65, ""):
        wrong = rigflow("tenants", "add", name, *to)
        assert (wrong.returncode, wrong.stderr) == (
            ExitCode.USAGE,
            f"rigflow: tenant {name!a}: use letters, digits, - and _, at most 64, and begin with a letter or a digit\n",
        )
    assert rigflow("tenants", "limit", "acme", "--jobs", "5", *to).returncode == 0
    assert json.loads(rigflow("tenants", "list", "--json", *to).stdout)[0]["jobs"] == 5
    assert rigflow("tenants", "remove", "acme", *to).returncode == 0


def test_a_broker_is_started_by_its_own_options(tmp_path: Path) -> None:
    options = ("--addr", "127.0.0.1", "--port", "-1", "--ports_file_dir", tmp_path, "-js", "-sd", tmp_path / "store")
    with Running("broker", *options) as broker:
        broker.until("Server is ready")
        url = url_of(tmp_path, broker.process.pid)  # it is that process itself, as service managers expect
        assert rigflow("topology", "apply", "fingerprint", "--nats", url).returncode == 0
        broker.process.send_signal(signal.SIGTERM)
        assert broker.process.wait(60) in (0, 1)
    refused = subprocess.run(
        [*COMMAND, "broker", "-c", "no.conf"], capture_output=True, text=True, env=environment(), check=False
    )
    assert (refused.returncode, "no.conf: no such file or directory" in refused.stderr) == (1, True)
