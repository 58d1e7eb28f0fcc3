"""What jobs used is counted once for each job, by API key, pipeline and day; and the API keys."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.api_keys import ApiKeys, all_keys, make_key
from pipelines.broker import Broker
from pipelines.client import Client
from pipelines.job_end import end
from pipelines.job_records import JobRecord, find_manifest
from pipelines.registry import builtin_pipeline
from pipelines.usage import read_usage
from schemas.api_roles import ApiRole
from schemas.jobs import JobState
from schemas.settings import Settings
from schemas.usage import NO_KEY, UsageOf, Used, day_of
from tests.cli import rigflow
from tests.clips import Clip, make_clip
from tests.fleet import ONE_STAGE_EACH, Fleet
from tests.simulated import models_of
from workers.definitions import register
from workers.job_metrics import EndedJobs, JobCounts

PIPELINE, FRAMES = "fingerprint", 50
SPEC = builtin_pipeline(PIPELINE)


def test_each_job_counts_once_for_its_key_whatever_its_collector_repeats(tmp_path: Path) -> None:
    clip = make_clip(tmp_path, Clip(frames=FRAMES))
    with Fleet(ONE_STAGE_EACH, tmp_path / "cache") as fleet:
        [outcome] = fleet.run(SPEC, [clip], tmp_path / "out")
        assert outcome.done is not None
        assert outcome.done.computed_s > 0
        asyncio.run(_raw_and_repeated(fleet.settings, clip))
        day = day_of(time.time())
        found = asyncio.run(_usage(fleet.settings, day))
        counted = asyncio.run(_counted(fleet.settings))
        listed = rigflow("usage", "--by", "key", "--csv", "--nats", fleet.settings.nats)
        shown = rigflow("usage", "--by", "day", "--by", "pipeline", "--nats", fleet.settings.nats, COLUMNS="200")
    assert (counted.used.jobs, counted.used.failed, counted.used.frames) == (3, 1, 2 * FRAMES)
    assert counted.took_s > 0
    assert sum(counted.steps) == 3
    ours, website = (found[_place(key, day)] for key in (NO_KEY, "website"))
    assert set(found) == {_place(NO_KEY, day), _place("website", day)}
    assert (ours.jobs, ours.failed, ours.frames, ours.nbytes) == (1, 0, FRAMES, clip.stat().st_size)
    assert ours.media_s == pytest.approx(FRAMES / 25, abs=0.05)
    assert ours.computed_s == outcome.done.computed_s
    assert (website.jobs, website.failed, website.nbytes) == (2, 1, clip.stat().st_size + len(b"no media"))
    assert website.frames == FRAMES
    assert website.computed_s > 0
    titles, row = (line.split() for line in shown.stdout.splitlines())
    assert dict(zip(titles, row, strict=False))["pipeline"] == PIPELINE
    assert row[0] == day
    lines = listed.stdout.splitlines()
    assert lines[0] == "key,jobs,failed,frames,media_s,computed_s,nbytes,tokens"
    assert [line.split(",")[:4] for line in lines[1:]] == [["-", "1", "0", "50"], ["website", "2", "1", "50"]]


async def _counted(settings: Settings) -> JobCounts:
    """What a rig's metrics count of the jobs that ended."""
    jobs = EndedJobs()
    async with Broker.connected(settings, name="test") as broker:
        following = asyncio.create_task(jobs.follow(broker, first=1))
        await _until(lambda: ("main", PIPELINE) in jobs.counts and jobs.counts["main", PIPELINE].used.jobs == 3)
        following.cancel()
    return jobs.counts["main", PIPELINE]


async def _raw_and_repeated(settings: Settings, clip: Path) -> None:
    """Jobs that come as raw media with the name of a key; the end of one is processed again, as after a crash."""
    async with Broker.connected(settings, name="test") as broker:
        spec = await register(broker, settings, SPEC, models_of(SPEC))
        client = Client(broker, submitter="website")
        done = await (await client.submit(spec, clip.read_bytes(), job="mine")).done()
        assert (await (await client.submit(spec, b"no media", job="broken")).done()).failures
        while (manifest := await find_manifest(broker, "mine")) is None or manifest.state is not JobState.DONE:
            await asyncio.sleep(0.05)
        while (broken := await find_manifest(broker, "broken")) is None or not broken.state.ended:
            await asyncio.sleep(0.05)
        await end(broker, await JobRecord.read(broker, manifest.job), done)


def _place(key: str, day: str) -> UsageOf:
    return UsageOf(tenant="main", key=key, pipeline=PIPELINE, day=day)


async def _usage(settings: Settings, day: str) -> dict[UsageOf, Used]:
    async with Broker.connected(settings, name="test") as broker:
        assert await read_usage(broker, "main", "2020-01-01", "2020-01-02", ("key",)) == {}
        return await read_usage(broker, "main", day, day_of(time.time()), ("key", "pipeline", "day"))


def test_a_key_is_shown_once_checked_everywhere_and_refused_when_it_is_revoked(settings: Settings) -> None:
    asyncio.run(_topology(settings))
    where = ("--nats", settings.nats)
    made = rigflow("keys", "api", "add", "website", "--tenant", "studio", "--role", "submit", *where)
    text = made.stdout.strip()
    assert "key website of tenant studio allows submit" in made.stderr
    odd = rigflow("keys", "api", "add", "we ird", *where)
    assert (odd.returncode, "API key 'we ird': use letters" in odd.stderr) == (2, True)
    again = rigflow("keys", "api", "add", "website", *where)
    assert (again.returncode, "there is an API key website: choose another name" in again.stderr) == (2, True)
    assert asyncio.run(_checked(settings, text)) == [True, False, False, False, False]
    listed, _ = json.loads(rigflow("keys", "api", "list", "--json", *where).stdout)
    assert (listed["name"], listed["tenant"], listed["roles"]) == ("website", "studio", ["submit"])
    assert listed["revoked_s"] > 0
    assert "sha256" not in listed


async def _topology(settings: Settings) -> None:
    async with Broker.connected(settings, name="test") as broker:
        await register(broker, settings, SPEC, models_of(SPEC))


async def _checked(settings: Settings, text: str) -> list[bool]:
    """Whether a gateway takes the key; with another secret, of another id, expired; and after it was revoked."""
    async with Broker.connected(settings, name="test") as broker:
        stored = await all_keys(broker)
        assert text.split("_", 2)[2] not in stored[0].model_dump_json()
        _, expired = await make_key(broker, "old", "main", [ApiRole.READ], expires_s=time.time() - 1)
        keys = ApiKeys(broker)
        following = asyncio.create_task(keys.follow())
        await keys.read.wait()  # every key that was there is known from here on
        checked = [keys.check(each) is not None for each in (text, text + "x", f"rf_none_{text}", expired)]
        await asyncio.to_thread(rigflow, "keys", "api", "revoke", "website", "--nats", settings.nats)
        await _until(lambda: keys.check(text) is None)
        following.cancel()
        return [*checked, keys.check(text) is not None]


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.02)
