"""What an operator installs: keys of the broker's users, its configuration, units of systemd, the licence."""

import os
import re
import shutil
import socket
import subprocess
import time
import tomllib
from pathlib import Path

import nkeys
import pytest

from pipelines.child import nats_server_binary
from tests.cli import rigflow

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))


def test_a_key_is_made_its_seed_is_shown_nowhere_and_never_replaced(tmp_path: Path) -> None:
    file = tmp_path / "worker.nk"
    made = rigflow("keys", "nats", file)
    seed = file.read_text().strip()
    assert made.stdout.strip() == nkeys.from_seed(bytearray(seed, "ascii")).public_key.decode()
    assert re.fullmatch(r"U[A-Z2-7]{55}", made.stdout.strip())
    assert file.stat().st_mode & 0o777 == 0o600
    assert seed not in made.stdout + made.stderr
    again = rigflow("keys", "nats", file)
    assert (again.returncode, file.read_text().strip()) == (5, seed)
    assert "worker.nk is there already: a key is never replaced: give another name" in again.stderr
    missing = rigflow("keys", "nats", tmp_path / "none" / "worker.nk")
    assert (missing.returncode, "No such file or directory" in missing.stderr) == (5, True)


@pytest.mark.parametrize(("words", "host"), [((), "127.0.0.1"), (("--addr", "0.0.0.0"), "0.0.0.0")])
def test_the_single_broker_listens_on_the_loopback_unless_another_address_is_set(
    words: tuple[str, ...], host: str, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = (ROOT / "deploy" / "nats" / "single.conf").read_text().replace("127.0.0.1:8222", "127.0.0.1:0")
    (tmp_path / "single.conf").write_text(text)
    log = tmp_path / "log"
    command = [nats_server_binary(), "-c", tmp_path / "single.conf", "--port", str(port), *words, "--log", log]
    broker = subprocess.Popen([*map(str, command), "--store_dir", str(tmp_path / "store")])
    try:
        while "Server is ready" not in (log.read_text() if log.exists() else ""):
            assert broker.poll() is None
            time.sleep(0.02)
    finally:
        broker.terminate()
        broker.wait()
    assert f"Listening for client connections on {host}:{port}" in log.read_text()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze comes with systemd")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """With programs and a user that are on this machine."""
    assert [path.stem for path in UNITS] == ["rigflow-broker", "rigflow-gateway", "rigflow-rig", "rigflow-watch@"]
    for unit in UNITS:
        text = re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/sh", unit.read_text())
        (tmp_path / unit.name).write_text(re.sub(r"(?m)^(User|Group)=.*\n", "", text))
    paths = [str(tmp_path / unit.name) for unit in UNITS]
    done = subprocess.run(["systemd-analyze", "verify", *paths], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "rigflow-" in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze comes with systemd")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_gives_up_what_it_does_not_need(unit: Path) -> None:
    words = ("security", "--offline=true", "--no-pager", str(unit))
    done = subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found.group(1)) <= (2.5 if unit.stem == "rigflow-rig" else 2.0), done.stdout


def test_the_unit_of_a_rig_leaves_it_its_gpus() -> None:
    """ProtectClock, too, closes the devices that are not named: it is a rule of devices, for the clock."""
    unit = (ROOT / "deploy" / "systemd" / "rigflow-rig.service").read_text()
    assert not re.search(r"(?m)^(PrivateDevices|ProtectClock|DevicePolicy|DeviceAllow)=", unit)


def test_units_run_commands_that_exist() -> None:
    for unit in UNITS:
        (command,) = re.findall(r"(?m)^ExecStart=/opt/rigflow/bin/(.*)$", unit.read_text())
        program, *words = command.split()
        assert program in ("rigflow", "nats-server")
        if program == "rigflow":
            assert rigflow(*words, "--help").returncode == 0
        else:
            assert os.access(nats_server_binary(), os.X_OK)


def test_the_licence_is_in_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License\n")
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()
