"""A collector that makes room in a full stream of results, and dies: its job ends, and says why."""

import asyncio
from pathlib import Path

import nats
import pytest

from cli.app import answer
from pipelines.broker import Broker
from pipelines.collect import Collector
from pipelines.job_records import find_manifest
from pipelines.publish import Publisher
from schemas.jobs import JobState, Priority
from schemas.messages import decode
from schemas.pipeline import parse_pipeline
from schemas.results import Done
from schemas.settings import MIB
from schemas.subjects import HEADER_JOB, HEADER_TYPE
from tests.fleet import Fleet
from tests.integration.queues import eventually
from tests.poison import poisoned_clip
from workers.definitions import register

SPEC = parse_pipeline(
    """
name = "p"
media = "video"
segment_s = 0.3

[[stage]]
kind = "decode"

[[stage]]
kind = "resize"
layout = "planes"

[[stage]]
kind = "encode"
format = "video"
""",
    "p.toml",
)
ALL_BUT_COLLECT = ("split", "decode", "resize", "encode")


@pytest.mark.slow
async def test_a_job_whose_collector_died_after_it_made_room_fails_with_a_reason(tmp_path: Path) -> None:
    clip = poisoned_clip(tmp_path / "noise.mp4", groups=16, gop=8, poison=(), size=160)
    with Fleet((ALL_BUT_COLLECT,), tmp_path / "cache", results_bytes=MIB, ack_wait_s=3.0) as fleet:
        broker = await Broker.connect(fleet.settings)
        spec = await register(broker, fleet.settings, SPEC, {})
        job = Publisher(broker, spec, "main", Priority.INTERACTIVE).ref("film")
        collector = Collector(broker, spec)  # as the worker would have that died
        await collector.open({job: tmp_path / "film"})
        client = await nats.connect(fleet.settings.nats)
        results = await client.subscribe(broker.names.results(job))
        await client.jetstream().publish("rigflow.media.main.p", clip.read_bytes(), headers={HEADER_JOB: "film"})

        async def results_evicted() -> bool:
            manifest = await find_manifest(broker, "film")
            return manifest is not None and manifest.results_evicted

        async def failed() -> bool:
            manifest = await find_manifest(broker, "film")
            return manifest is not None and manifest.state is JobState.FAILED

        await eventually(results_evicted, 30)
        await collector.close()
        where = ("--nats", fleet.settings.nats)
        following = ["results", "film", "--follow", "--out", str(tmp_path), *where]
        assert await asyncio.to_thread(answer, following) == 1, "it would wait for ever"
        fleet.add(("collect",))
        message = None
        while not isinstance(message, Done):
            reported = await results.next_msg(30)
            message = decode(reported.data)[0] if reported.headers[HEADER_TYPE] == "done" else None
        assert "cannot be completed" in message.failures[0]
        assert "publish it again" in message.failures[0]
        await eventually(failed, 30)
        await client.close()
        await broker.close()
