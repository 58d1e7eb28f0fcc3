"""`--json` of every command that answers: stdout is one json document, with the same facts as the text."""

import io
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer.main

from cli.app import app
from pipelines.server import EmbeddedServer
from tests.cli import rigflow, rigflow_process
from tests.clips import real_clip
from tests.unit.test_cli_usage import commands

# they serve, show help, or print a file of configuration
NO_ANSWER = {"broker", "gateway", "help", "up", "topology roles"}


def leaves() -> set[str]:
    """Every command that does something, but `rig` and `worker`, which serve."""
    return {name for name, command in commands().items() if not hasattr(command, "commands")}


def has_json(name: str) -> bool:
    command: Any = typer.main.get_group(app)
    for word in name.split():
        command = command.commands[word]
    return any("--json" in param.opts for param in command.params)


def test_every_command_that_answers_has_json() -> None:
    assert {name for name in leaves() if not has_json(name)} == NO_ANSWER


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with results, a model and a pipeline file; a home of its own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    for name in "ab":
        np.savez(tmp_path / f"{name}.fingerprint.npz", descriptor=rng.normal(size=(9, 64)), times=np.arange(9.0))
    (tmp_path / "mine.toml").write_text(rigflow("pipelines", "show", "scenes").stdout)
    return tmp_path


def answered(*arguments: str | Path, code: int = 0) -> Any:
    ended = rigflow(*arguments, "--json")
    assert ended.returncode == code, (arguments, ended.stdout, ended.stderr)
    return json.loads(ended.stdout)


def test_commands_of_this_machine_answer_in_json(here: Path) -> None:
    assert answered("near", "a.fingerprint.npz", "b.fingerprint.npz")["windows"] > 0
    groups = answered("cluster", "a.fingerprint.npz", "b.fingerprint.npz")
    assert [[each["name"] for each in row["media"]] for row in groups["clusters"]] == [["a"], ["b"]]
    assert "scenes" in [spec["name"] for spec in answered("pipelines", "list")]
    assert answered("pipelines", "show", "scenes")["stage"]
    assert answered("pipelines", "check", "mine.toml") == {"file": "mine.toml", "problems": []}
    (here / "bad.toml").write_text('name = "x"\n')
    assert answered("pipelines", "check", "bad.toml", code=2)["problems"]
    assert {"name": "fingerprint", "path": None, "card": None} in answered("model", "list")
    assert answered("engine", "list") == answered("engine", "check") == []
    made = answered("keys", "nats", "a.nk")
    assert made["public"].startswith("U")
    assert (here / made["file"]).is_file()
    assert {"what", "state", "found"} <= answered("doctor")[0].keys()


def test_commands_of_a_fleet_answer_in_json(here: Path, server: EmbeddedServer) -> None:
    at = ("--nats", server.url)
    clip = real_clip("bikes")
    assert {change["action"] for change in answered("topology", "plan", "scenes", *at)} == {"create"}
    assert answered("topology", "apply", "scenes", *at)
    assert answered("topology", "sweep", *at) == [
        {"results": 0, "messages": 0, "attempts": 0, "objects": 0, "revisions": 0}
    ]
    (published,) = answered("publish", "scenes", clip, *at)
    job = published["job"]
    assert [each["job"]["id"] for each in answered("jobs", "list", *at)] == [job]
    assert answered("jobs", "show", job, *at)["name"] == "bikes.mp4"
    assert answered("jobs", "wait", job, "--timeout", "0.1", *at, code=1)[0]["state"] == "published"
    assert answered("results", job, *at, code=1)[0]["files"] == []
    assert answered("status", *at)["queues"]
    assert answered("dead", "list", *at) == answered("dead", "retry", "--all", *at) == []
    assert answered("jobs", "cancel", job, *at)[0]["state"] == "cancelled"
    assert answered("jobs", "delete", job, *at) == [{"job": job, "state": "deleted"}]
    assert answered("pipelines", "withdraw", "scenes", *at)["withdrawn"]
    key = answered("keys", "api", "add", "website", *at)
    assert answered("keys", "api", "list", *at)[0]["id"] == key["id"]
    assert answered("keys", "api", "revoke", "website", *at)[0]["revoked_s"] > 0
    assert answered("usage", *at) == []


def test_a_run_answers_in_json_and_its_text_is_on_stdout(tmp_path: Path) -> None:
    clip = shutil.copy(real_clip("bikes"), tmp_path / "-[abc] [red] größe\n中.mp4")
    run = ("run", "fingerprint", clip, tmp_path / "no.mp4", "--out", tmp_path / "out", "--workers", "1")
    ended = rigflow_process(*run, "--json")
    good, bad = json.loads(ended.stdout)["jobs"]
    assert (good["state"], bad["state"], ended.returncode) == ("done", "failed", 1)
    assert all(Path(file).is_file() for file in good["files"])
    ended = rigflow_process(*run, COLUMNS="300")
    assert ended.stdout.split()[:4] == ["file", "frames", "lost", "frames/s"]
    assert str(tmp_path / "out" / "-[abc] [red] größe_中.fingerprint.npz") in ended.stdout
    assert "equal results were there" in ended.stderr
    assert "-[abc] [red] größe\\n中.mp4" in ended.stdout
    assert "no such file" in ended.stderr
    assert "no such file" not in ended.stdout


def test_of_standard_input_the_media_are_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(real_clip("bikes").read_bytes())))
    ended = rigflow("run", "fingerprint", "-", "--out", tmp_path, "--workers", "1", "--json")
    (job,) = json.loads(ended.stdout)["jobs"]
    assert (job["input"], job["files"]) == ("stdin", [str(tmp_path / "stdin.fingerprint.npz")])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b" \n")))
    ended = rigflow("run", "fingerprint", "-", "--out", tmp_path, "--workers", "1")
    assert ended.stderr.startswith("rigflow: standard input has nothing in it: ")
