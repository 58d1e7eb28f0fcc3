"""docs/backup.md: a cold copy of a broker's store by its commands, with real workers on what is restored."""

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import nats
import pytest

from pipelines.broker import Broker
from pipelines.client import Client
from pipelines.job_records import find_manifest
from pipelines.registry import builtin_pipeline
from pipelines.server import EmbeddedServer
from schemas.jobs import JobState
from schemas.results import Done
from schemas.settings import Settings
from tests.cli import rigflow
from tests.clips import Clip, make_clip
from tests.fleet import ONE_WORKER, Fleet
from tests.simulated import models_of
from workers.definitions import register, register_builtin

DOCUMENT = (Path(__file__).parents[2] / "docs" / "backup.md").read_text()


async def done_of(settings: Settings, job: str) -> tuple[Done, list[str]]:
    """The Done of a job, and the names of its files at the broker."""
    async with Client.connected(settings, "test") as client:
        found = await client.find(job)
        return await asyncio.wait_for(found.done(), 60), [file.name async for file in found.files()]


async def sent(settings: Settings, clip: Path, *jobs: str) -> None:
    async with Client.connected(settings, "test") as client:
        for job in jobs:
            await client.submit("fingerprint", clip.read_bytes(), job=job)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("tail"), reason="the commands need tail of coreutils")
def test_a_cold_copy_has_finished_and_queued_jobs(tmp_path: Path) -> None:
    """By the commands of the document."""
    clip = make_clip(tmp_path, Clip(frames=130))
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    config = f'listen: "127.0.0.1:{port}"\nmax_payload: 8MB\njetstream {{ max_file: 16GB }}\n'
    (tmp_path / "nats.conf").write_text(config)
    save, restore = re.findall(r"^```bash\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    start = "".join(re.findall(r"^rigflow broker .*\n^echo .*\n", save, re.MULTILINE))
    assert start, "the document starts the broker by other commands"
    settings = Settings(nats=f"nats://127.0.0.1:{port}")

    def run(block: str) -> None:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        script = f"set -e\n{block}"
        subprocess.run(["bash", "-c", script], cwd=tmp_path, env=os.environ | {"PATH": path}, check=True, timeout=60)
        asyncio.run(reached(settings))

    try:
        run(start)
        asyncio.run(register_builtin(settings))
        with Fleet(ONE_WORKER, tmp_path / "cache", nats=settings.nats):
            asyncio.run(sent(settings, clip, "finished"))
            finished = asyncio.run(done_of(settings, "finished"))
        asyncio.run(sent(settings, clip, "queued"))
        run(save)
        asyncio.run(sent(settings, clip, "later"))
        run(restore)
        with Fleet(ONE_WORKER, tmp_path / "cache-2", nats=settings.nats):
            queued = asyncio.run(done_of(settings, "queued"))
            assert asyncio.run(done_of(settings, "finished")) == finished
        assert (queued[0].digest, queued[1]) == (finished[0].digest, ["queued.fingerprint.npz"])
        assert asyncio.run(known(settings, "later")) is None, "it came after the copy"
    finally:
        os.kill(int((tmp_path / "nats.pid").read_text()), 9)


async def reached(settings: Settings) -> None:
    client = await nats.connect(settings.nats, max_reconnect_attempts=-1, reconnect_time_wait=0.05)
    await client.close()
    async with Broker.connected(settings, "test") as broker:
        await broker.api("INFO")


async def known(settings: Settings, job: str) -> JobState | None:
    async with Broker.connected(settings, "test") as broker:
        manifest = await find_manifest(broker, job)
        return None if manifest is None else manifest.state


def test_a_hot_copy_has_finished_jobs_and_those_under_way(tmp_path: Path) -> None:
    """By the commands, while workers work; the broker is lost, and its jobs go on in a new one."""
    clip, copy = make_clip(tmp_path, Clip(frames=130)), tmp_path / "copy"
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        asyncio.run(_registered(fleet.settings))
        asyncio.run(sent(fleet.settings, clip, "finished"))
        finished = asyncio.run(done_of(fleet.settings, "finished"))
        jobs = [f"job-{number}" for number in range(5)]
        asyncio.run(sent(fleet.settings, clip, *jobs))
        saved = rigflow("backup", copy, "--nats", fleet.settings.nats)
        assert (saved.returncode, "streams, " in saved.stdout) == (0, True), saved.stderr
        asyncio.run(sent(fleet.settings, clip, "later"))
        assert "is not empty" in rigflow("backup", copy, "--nats", fleet.settings.nats).stderr
        refused = rigflow("restore", copy, "--nats", fleet.settings.nats)
        assert (refused.returncode, "restore into a broker with an empty store" in refused.stderr) == (4, True)
    server = EmbeddedServer()
    server.start()
    try:
        settings = Settings(nats=server.url)
        restored = rigflow("restore", copy, "--nats", server.url)
        assert restored.returncode == 0, restored.stderr
        assert "streams-restored" in rigflow("audit", "--last", "1", "--nats", server.url).stdout
        with Fleet(ONE_WORKER, tmp_path / "cache-2", nats=server.url):
            assert asyncio.run(done_of(settings, "finished")) == finished
            for job in jobs:
                assert asyncio.run(done_of(settings, job))[0].digest == finished[0].digest
        assert asyncio.run(known(settings, "later")) is None
    finally:
        server.stop()


def test_a_copy_that_a_broker_refuses_leaves_no_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before the first stream for what the copy says, and after some of them for what it does not say."""
    copy = tmp_path / "copy"
    with Fleet((), tmp_path / "cache") as fleet:
        asyncio.run(_registered(fleet.settings))
        assert rigflow("backup", copy, "--nats", fleet.settings.nats).returncode == 0
    largest = json.loads((copy / "broker.json").read_text())["max_payload"]
    streams = sorted(copy.glob("*/backup.json"))
    (streams[-1].parent / "stream.tar.s2").write_bytes(b"damaged")
    monkeypatch.setattr("pipelines.server.MAX_PAYLOAD", 1 << 20)
    server = EmbeddedServer()
    server.start()
    try:
        refused = rigflow("restore", copy, "--nats", server.url)
        assert (refused.returncode, f"set max_payload: {largest}" in refused.stderr) == (4, True), refused.stderr
        (copy / "broker.json").unlink()
        for _ in range(2):  # the second finds no stream of the first
            damaged = rigflow("restore", copy, "--nats", server.url)
            assert damaged.returncode != 0
            assert "the broker has" not in damaged.stderr
    finally:
        server.stop()


def test_what_is_no_copy_is_not_restored(tmp_path: Path) -> None:
    server = EmbeddedServer()
    server.start()
    try:
        for description, said in (("{}", "no description"), ('{"config": {"name": "a.>"}}', "names the stream")):
            copy = tmp_path / "copy" / "a"
            copy.mkdir(parents=True, exist_ok=True)
            (copy / "backup.json").write_text(description)
            refused = rigflow("restore", tmp_path / "copy", "--nats", server.url)
            assert (refused.returncode, said in refused.stderr) == (4, True), refused.stderr
        missing = rigflow("restore", tmp_path / "cop", "--nats", server.url)
        assert (missing.returncode, "cop: no such folder: name the folder that" in missing.stderr) == (2, True)
        (tmp_path / "empty").mkdir()
        assert "has no copy of a stream" in rigflow("restore", tmp_path / "empty", "--nats", server.url).stderr
    finally:
        server.stop()


async def _registered(settings: Settings) -> None:
    spec = builtin_pipeline("fingerprint")
    async with Broker.connected(settings, "test") as broker:
        await register(broker, settings, spec, models_of(spec))
