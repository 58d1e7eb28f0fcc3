"""Interactive jobs pass bulk ones from the first queue on: raw media are split by priority."""

import asyncio
from pathlib import Path

import nats

from pipelines.broker import Broker
from pipelines.registry import builtin_pipeline
from schemas.jobs import Priority
from schemas.subjects import HEADER_JOB, HEADER_TYPE
from tests.fleet import ONE_WORKER, Fleet
from tests.unit.test_image_formats import written
from workers.definitions import find_models, register

BULK = 40


def test_a_picture_that_a_person_waits_for_passes_those_of_bulk_that_were_sent_before(tmp_path: Path) -> None:
    spec, picture = builtin_pipeline("fingerprint"), written("bmp", "RGB", (320, 240))

    async def sent(fleet: Fleet) -> None:
        async with Broker.connected(fleet.settings, name="test") as broker:
            await register(broker, fleet.settings, spec, find_models(spec, None))
            for number in range(BULK):
                subject = broker.names.media("main", spec.name, Priority.BULK)
                await broker.store(subject, picture, {HEADER_JOB: f"bulk-{number}"})
            await broker.store(broker.names.media("main", spec.name), picture, {HEADER_JOB: "person"})

    async def ended(fleet: Fleet) -> list[str]:
        """Jobs in the order in which they end."""
        client, jobs = await nats.connect(fleet.settings.nats), []
        results = await client.subscribe("rigflow.results.main.fingerprint.*")
        await client.flush()
        fleet.add(*ONE_WORKER)
        while len(jobs) <= BULK:
            message = await results.next_msg(60)
            if message.headers[HEADER_TYPE] == "done":
                jobs.append(message.subject.rpartition(".")[2])
        await client.close()
        return jobs

    with Fleet((), tmp_path / "cache") as fleet:
        asyncio.run(sent(fleet))
        jobs = asyncio.run(ended(fleet))
    assert len(set(jobs)) == BULK + 1
    assert jobs.index("person") < BULK // 4, "at most those are before it that were taken at the same time"
