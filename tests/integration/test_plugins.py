"""Plugins are part of a pipeline's revision, and its work goes to workers that have them in that version."""

import asyncio
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.status import render
from pipelines.broker import Broker
from pipelines.registry import builtin_pipeline, load_pipeline, publish_pipeline
from pipelines.status import fleet_status
from pipelines.topology import ensure_topology
from schemas.pipeline import parse_pipeline
from schemas.settings import Settings
from tests.clips import Clip, make_clip
from tests.example_plugin import PIPELINE, forget, install, worker_with
from tests.fleet import Fleet
from tests.integration.queues import eventually
from workers.definitions import find_models, register

SPEC = parse_pipeline(PIPELINE, "brightness.toml").model_copy(update={"segment_s": 0.4})


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Install the example in a version, for this process too; the folder that workers of it have on their path."""

    def install_here(version: str) -> Path:
        folder = tmp_path / version
        install(folder, version)
        monkeypatch.syspath_prepend(str(folder))
        forget()
        return folder

    return install_here


async def statuses(broker: Broker) -> dict[str, dict[str, Any]]:
    items = await broker.items(broker.names.rigs, "worker.*")
    return {key.removeprefix("worker."): json.loads(body) for key, body in items.items()}


async def declining(broker: Broker, worker: str, reason: str) -> bool:
    return reason in (await statuses(broker)).get(worker, {}).get("declined", {}).get(SPEC.name, "")


def shown(fleet: Any) -> str:
    from rich.console import Console

    console = Console(width=400, file=io.StringIO())
    console.print(render(fleet, "nats://x"))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


async def test_versions_of_plugins_are_part_of_the_revision(
    settings: Settings, installed: Callable[[str], Path]
) -> None:
    installed("1.0")
    plain = builtin_pipeline("fingerprint")
    async with Broker.connected(settings, name="test") as broker:
        await ensure_topology(broker, settings, [SPEC, plain])
        first = await publish_pipeline(broker, SPEC, {})
        assert first.plugins == {
            "formats/srt": "rigflow-example 1.0",
            "operators/brightness": "rigflow-example 1.0",
        }
        assert (await load_pipeline(broker, first.revision)) == first
        assert (await publish_pipeline(broker, plain, find_models(plain, None))).plugins == {}
        installed("2.0")
        second = await publish_pipeline(broker, SPEC, {})
        assert second.plugins["operators/brightness"] == "rigflow-example 2.0"
        assert second.revision != first.revision


async def test_a_worker_without_a_plugin_takes_no_work_that_needs_it(
    tmp_path: Path, installed: Callable[[str], Path]
) -> None:
    site, plain = installed("1.0"), builtin_pipeline("fingerprint")
    clip = make_clip(tmp_path, Clip(frames=100, gop=10))
    with Fleet((), tmp_path / "cache", entry=worker_with()) as fleet:
        async with Broker.connected(fleet.settings, name="test") as broker:
            for spec in (SPEC, plain):
                await register(broker, fleet.settings, spec, find_models(spec, None))
            fleet.add()  # alone with the queues of both pipelines
            await eventually(lambda: declining(broker, "test-0", "and it is not installed here"))
            [outcome] = await fleet.run_async(plain, [clip], tmp_path / "plain")
            assert outcome.ok
            running = asyncio.create_task(fleet.run_async(SPEC, [clip], tmp_path / "out"))
            await asyncio.sleep(1.0)
            assert not running.done(), "no worker has the plugin"
            fleet.entry = worker_with(site)
            fleet.add()
            [outcome] = await running
            assert outcome.ok, outcome

            async def reported() -> bool:
                known = await statuses(broker)
                plain_one, with_plugin = (
                    {(of["pipeline"], of["stage"]) for of in known[name]["done"]} for name in ("test-0", "test-1")
                )
                wanted = {(SPEC.name, stage.name) for stage in SPEC.stage if stage.kind != "resize"}
                return bool(plain_one) and wanted <= with_plugin

            await eventually(reported)
            status = (await statuses(broker))["test-0"]
            assert {of["pipeline"] for of in status["done"]} == {plain.name}
            assert (status["ready"], status["failures"], status["retries"]) == (True, 0, 0)
            assert (await statuses(broker))["test-1"]["declined"] == {}
            text = shown(await fleet_status(broker))
            assert "no work of pipeline brightness goes to test-0: pipeline brightness needs formats/srt" in text
            assert "of rigflow-example 1.0, and it is not installed here: install that version" in text


async def test_each_revision_goes_to_the_workers_of_its_version(
    tmp_path: Path, installed: Callable[[str], Path]
) -> None:
    old = installed("1.0")
    clip = make_clip(tmp_path, Clip(frames=100, gop=10))
    with Fleet((), tmp_path / "cache", entry=worker_with(old)) as fleet:
        async with Broker.connected(fleet.settings, name="test") as broker:
            await register(broker, fleet.settings, SPEC, {})
            fleet.add()
            [before] = await fleet.run_async(SPEC, [clip], tmp_path / "before")
            new = installed("2.0")
            second = await register(broker, fleet.settings, SPEC, {})
            await eventually(lambda: declining(broker, "test-0", "needs formats/srt of rigflow-example 2.0, and here"))
            fleet.entry = worker_with(new)
            fleet.add()
            [after] = await fleet.run_async(SPEC, [clip], tmp_path / "after")
            assert (before.ok, after.ok) == (True, True), (before, after)
            assert after.job.revision == second.revision != before.job.revision

            async def counted() -> bool:
                return (await statuses(broker))["test-1"]["results"] > 0

            await eventually(counted)
            assert (await statuses(broker))["test-0"]["failures"] == 0
            assert await broker.get(broker.names.pipelines, f"name.{SPEC.name}") == second.revision.encode()
