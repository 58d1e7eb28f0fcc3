"""A client that waits reports what for, and what to do."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from engines.media.medium import Input
from pipelines.broker import Broker
from pipelines.publish import Publisher
from pipelines.registry import builtin_pipeline
from pipelines.server import EmbeddedServer
from pipelines.waits import why_waiting
from schemas.jobs import JobRef, Priority
from schemas.settings import Settings
from tests.clips import Clip, make_clip
from tests.fleet import Fleet
from workers import waits
from workers.definitions import find_models, register


async def published(broker: Broker, clip: Path) -> JobRef:
    spec = builtin_pipeline("fingerprint")
    spec = await register(broker, broker.settings, spec, find_models(spec, None))
    publisher = Publisher(broker, spec, "main", Priority.BULK)
    job = publisher.ref("film")
    await publisher.publish(job, "video", [Input(clip, clip.name)])
    return job


async def test_what_a_job_waits_for_is_reported(tmp_path: Path) -> None:
    clip = make_clip(tmp_path, Clip(frames=30))
    with Fleet((), tmp_path / "cache") as fleet:
        broker = await Broker.connect(fleet.settings)
        job = await published(broker, clip)
        assert await why_waiting(broker, [job]) == (
            "no worker takes fingerprint decode yet: one that starts or loads a model needs some seconds; "
            "if none runs, start one with `rigflow worker` or `rigflow rig`"
        )
        fleet.add()
        while (await broker.api("STREAM.INFO.RIGFLOW_WORK_fingerprint_decode"))["state"]["messages"]:
            await asyncio.sleep(0.05)
        names = broker.names
        await broker.purge(names.results_stream, names.results(job))  # as their age does
        while "the broker lost messages of job film" not in await why_waiting(broker, [job]):
            await asyncio.sleep(0.05)
        assert (await why_waiting(broker, [job])).endswith("publish it again; it is started again then")
        await broker.api(f"CONSUMER.DELETE.{names.work_stream('fingerprint', 'decode')}.bulk")
        await broker.publish(names.work("fingerprint", "decode", Priority.BULK), b"", "waits")
        assert "a consumer of the queue in front of fingerprint decode is gone" in await why_waiting(broker, [job])
        await broker.api(f"STREAM.DELETE.KV_{names.jobs}")
        assert "the stream KV_rigflow_jobs is gone from the broker" in await why_waiting(broker, [job])
        await broker.api(f"STREAM.DELETE.{names.results_stream}")
        assert "the stream RIGFLOW_RESULTS is gone from the broker" in await why_waiting(broker, [job])
        fleet.server.kill()
        while broker.connection.connected:
            await asyncio.sleep(0.02)
        assert f"the broker at {fleet.settings.nats} is away" in await why_waiting(broker, [job])
        await broker.close()


async def test_a_wait_is_reported_once_and_not_while_something_moves(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent_s, now_s, looks = 0.05, [1000.0], []  # as the test's clock says; between looks real time passes
    for name, value in (
        ("SILENT_S", silent_s),
        ("LOOK_S", 0.01),
        ("time", SimpleNamespace(monotonic=lambda: now_s[0])),
    ):
        monkeypatch.setattr(waits, name, value)
    broker = await Broker.connect(settings)
    job = await published(broker, make_clip(tmp_path, Clip(frames=30)))
    output: list[str] = []

    def waiting() -> list[JobRef]:
        looks.append(now_s[0])
        return [job]

    async def after(seconds: float, more_looks: int) -> None:
        now_s[0] += seconds
        enough = len(looks) + more_looks
        while len(looks) < enough:
            await asyncio.sleep(0.01)

    async with waits.explained(broker, output.append, waiting) as moved:
        for _ in range(5):
            await after(0.8 * silent_s, 2)
            moved()
        before = output.copy()
        await after(2 * silent_s, 1)
        for _ in range(3):
            await after(5 * silent_s, 1)
    assert before == []
    assert len(output) == 1
    assert "no worker takes fingerprint decode" in output[0]
    await broker.close()


async def test_the_same_reason_with_other_figures_is_not_reported_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def of_a_long_step(*_: object) -> str:
        asked.append(f"work goes on: {len(asked)} messages are in process, for {len(asked) / 2} s")
        return asked[-1]

    for name, value in (("SILENT_S", 0.02), ("LOOK_S", 0.02), ("why_waiting", of_a_long_step)):
        monkeypatch.setattr(waits, name, value)
    broker = await Broker.connect(settings)
    output: list[str] = []
    job = JobRef(id="film", pipeline="up", revision="0" * 16)
    async with waits.explained(broker, output.append, lambda: [job]):
        while len(asked) < 4:
            await asyncio.sleep(0.02)
    assert len(output) == 1
    await broker.close()


async def test_a_broker_that_is_back_is_reported_once(
    settings: Settings, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SILENT_S", "LOOK_S"):
        monkeypatch.setattr(waits, name, 0.02)
    broker = await Broker.connect(settings)
    output: list[str] = []

    async def said(words: str) -> None:
        while not any(words in line for line in output):
            await asyncio.sleep(0.01)

    async with waits.explained(broker, output.append, list):
        await asyncio.to_thread(server.kill)
        await said("is away")
        await asyncio.to_thread(server.restart)
        await said("the broker is back")
    assert [line for line in output if "is away" not in line] == ["the broker is back"]
    await broker.close()
