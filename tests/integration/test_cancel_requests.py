"""Requests to cancel a job, as programs with only NATS send them: what workers make of odd ones, and of many."""

from pathlib import Path

import nats
import pytest

from pipelines.broker import Broker
from pipelines.job_records import find_manifest
from schemas.jobs import JobState
from schemas.messages import decode
from schemas.results import Done
from schemas.settings import Settings
from schemas.subjects import Names
from tests.clips import real_clip
from tests.fleet import Fleet
from tests.integration.queues import eventually
from workers.definitions import register_builtin


async def test_requests_that_name_nothing_end_and_the_next_is_carried_out(tmp_path: Path) -> None:
    names = Names()
    with Fleet((("split", "collect"),) * 2, tmp_path / "cache") as fleet:
        await register_builtin(fleet.settings)
        client = await nats.connect(fleet.settings.nats)
        broker, media = client.jetstream(), real_clip("bikes").read_bytes()
        for job in ("kept", "mine"):
            await broker.publish(names.media("main", "fingerprint"), media, headers={"Rigflow-Job": job})
        async with Broker.connected(fleet.settings, "test") as ours:

            async def published() -> bool:
                found = [await find_manifest(ours, job) for job in ("kept", "mine")]
                return all(each is not None and each.state is JobState.PUBLISHED for each in found)

            await eventually(published)
            for pipeline, job in (
                ("nosuch", "a"),
                ("scenes", "kept"),
                ("fingerprint", "m!ne"),
                ("fingerprint", "mine"),
            ):
                for _ in range(3):
                    await broker.publish(names.cancel("main", pipeline, job), b"not read")

            async def carried_out() -> bool:
                return not (await ours.api(f"STREAM.INFO.{names.cancel_stream}"))["state"]["messages"]

            await eventually(carried_out)
            kept, mine = [await find_manifest(ours, job) for job in ("kept", "mine")]
            assert kept is not None
            assert mine is not None
            assert (kept.state, mine.state) == (JobState.PUBLISHED, JobState.CANCELLED)
            done = [stored async for stored in ours.read(names.results_stream, names.results(mine.job))]
            message, _ = decode(done[-1].body)
            assert isinstance(message, Done)
            assert (message.cancelled, len(done)) == (True, 1), "one end, although it was asked for three times"
        await client.close()


async def test_a_request_cannot_fill_the_broker(settings: Settings) -> None:
    await register_builtin(settings)
    client = await nats.connect(settings.nats)
    with pytest.raises(nats.js.errors.APIError, match="maximum"):
        await client.jetstream().publish(Names().cancel("main", "fingerprint", "a"), bytes(5000))
    await client.close()
