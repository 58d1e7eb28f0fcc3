"""Text goes through a fleet: files, lines of JSON, a folder, and messages of other programs; a bad line fails alone."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.broker import Broker
from schemas.pipeline import PipelineSpec, parse_pipeline
from tests.cli import rigflow
from tests.fleet import ONE_WORKER, Fleet
from tests.raw_media import sent_raw
from tests.unit.test_media_text import ECHO
from workers.definitions import register

LINES = '{"id": "q1", "prompt": "one"}\n{"prompt": \n' + "".join(f'{{"text": "t{n}"}}\n' for n in range(20))
BROKEN = "line 2: it is no JSON: EOF while parsing a value at line 1 column 10: write a JSON object on each line"


def echo(output: str = "jsonl") -> PipelineSpec:
    return parse_pipeline(ECHO.replace("FORMAT", output), "echo.toml")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(ONE_WORKER * 2, tmp_path_factory.mktemp("cache")) as started:
        yield started


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "asked.jsonl").write_text(LINES)
    (folder / "note.md").write_text("# Grüße\n")
    return [folder / "asked.jsonl", folder / "note.md"]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_items_come_back_in_order_and_a_bad_line_fails_alone(fleet: Fleet, files: list[Path], tmp_path: Path) -> None:
    [outcome] = fleet.run(echo(), files, tmp_path / "out")
    assert outcome.done is not None
    assert (outcome.name, outcome.kind, outcome.done.segments) == ("2 texts", "text", 6)
    assert outcome.done.failures == (f"asked-2: {BROKEN}",)
    found = rows(tmp_path / "out" / "texts.echo.jsonl")
    assert [row["name"] for row in found] == ["q1", *(f"asked-{n}" for n in range(2, 23)), "note.md"]
    assert [row.get("text") for row in found] == ["one", None, *(f"t{n}" for n in range(20)), "# Grüße\n"]
    assert found[1] == {"name": "asked-2", "error": BROKEN}
    [one] = fleet.run(echo("text"), files[1:], tmp_path / "out")
    assert one.ok
    assert (tmp_path / "out" / "note.echo.txt").read_text() == "# Grüße\n"


def test_a_folder_of_texts_is_done_by_the_names_of_its_files(fleet: Fleet, files: list[Path], tmp_path: Path) -> None:
    toml, out = tmp_path / "echo.toml", tmp_path / "out"
    toml.write_text(ECHO.replace("FORMAT", "jsonl"))
    (files[0].parent / "program.bin").write_bytes(b"\0\1\2")
    done = rigflow("run", toml, files[0].parent, "--out", out, "--nats", fleet.settings.nats)
    assert "2 done, 1 no media, 1 of their lines failed" in " ".join(done.stdout.split())
    assert f"asked-2: failed: {BROKEN}" in done.stderr
    found = rows(out / "texts.echo.jsonl")
    assert [row["name"] for row in found] == ["q1", *(f"asked-{n}" for n in range(2, 23)), "note.md"]


def test_a_message_of_json_is_a_request(fleet: Fleet) -> None:
    body = json.dumps({"id": "hello", "messages": [{"role": "user", "content": "hi"}]}).encode()
    assert json.loads(asyncio.run(file_of(fleet, "raw-1", body)))["name"] == "hello"
    assert json.loads(asyncio.run(file_of(fleet, "raw-2", b"plain words")))["text"] == "plain words"


async def file_of(fleet: Fleet, job: str, body: bytes) -> bytes:
    """The file that comes back for the bytes of a message, as a program that has only NATS gets it."""
    async with Broker.connected(fleet.settings, name="test") as broker:
        received = await sent_raw(broker, await register(broker, fleet.settings, echo(), {}), job, body)
    assert received.done.failures == ()
    return received.file
