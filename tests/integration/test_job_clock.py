"""The moments of a job are by one clock, that of the broker."""

import time

import pytest

from pipelines.job_end import end
from pipelines.job_records import find_manifest
from pipelines.jobs import begin
from schemas.jobs import JobState, Manifest
from schemas.results import Done
from schemas.settings import Settings
from tests.integration.queues import a_fleet


async def test_the_end_of_a_job_and_its_age_are_by_the_clock_of_its_beginning(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_fleet(settings) as (broker, publisher):
        right, month_s = time.time, 30 * 86400.0
        monkeypatch.setattr(time, "time", lambda: right() - month_s)  # the clock of this machine is a month late
        await broker.read_clock()
        wanted = Manifest(job=publisher.ref("j"), name="a.mp4")
        first = await begin(broker, wanted)
        monkeypatch.setattr(time, "time", lambda: right() + month_s)
        await broker.read_clock()
        second = await begin(broker, wanted.model_copy(update={"job": publisher.ref("k")}))
        for record, late_s in ((first, month_s), (second, -month_s)):
            monkeypatch.setattr(time, "time", lambda late_s=late_s: right() - late_s)
            await broker.read_clock()
            await record.change(state=JobState.PUBLISHING)
            job = record.manifest.job
            assert (await begin(broker, record.manifest)).manifest.job == job, "it is not too old"
            await end(broker, None, Done(job=job, segments=3, frames=9, lost=0))
            manifest = await find_manifest(broker, job.id)
            assert manifest is not None
            assert 0 <= manifest.ended_s - manifest.created_s < 86400
