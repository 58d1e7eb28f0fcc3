"""A real rig's metrics after a good job and one that cannot be split, both sent as raw media."""

import asyncio
import re
from pathlib import Path

from pipelines.broker import Broker
from pipelines.client import Client
from pipelines.registry import builtin_pipeline
from schemas.settings import Settings
from tests.clips import Clip, make_clip
from tests.fleet import Fleet
from tests.rig import Rig, eventually
from tests.simulated import models_of
from workers.definitions import register

SPEC, FRAMES = builtin_pipeline("fingerprint"), 50


def test_jobs_and_the_failures_of_split_are_counted(tmp_path: Path) -> None:
    clip = make_clip(tmp_path, Clip(frames=FRAMES))
    with Fleet([], tmp_path / "cache") as fleet, Rig(fleet, tmp_path, workers=1, pace_ms=0) as rig:
        rig.until_ready()
        asyncio.run(_two_jobs(fleet.settings, clip))
        eventually(lambda: "rigflow_jobs_total{" in rig.get("/metrics")[1] and rig.metric("rigflow_jobs_total") == 2)
        eventually(lambda: "rigflow_failures_total{" in rig.get("/metrics")[1])  # it comes after the message's count
        eventually(lambda: 'stage="split"} 2.0' in rig.get("/metrics")[1])  # the last heartbeat is here
        page = rig.get("/metrics")[1]
    labels = '{pipeline="fingerprint",tenant="main"}'
    assert f"rigflow_job_failures_total{labels} 1.0" in page
    assert f"rigflow_job_frames_total{labels} {FRAMES:.1f}" in page
    failed = re.findall(r'rigflow_failures_total\{pipeline="(\S+)",reason="(\S+)",stage="(\S+)"\} (\S+)', page)
    assert [(pipeline, stage, count) for pipeline, _, stage, count in failed] == [("fingerprint", "split", "1.0")]
    assert failed[0][1] == "media-error"
    assert 'rigflow_messages_total{pipeline="fingerprint",stage="split"} 2.0' in page
    assert 'rigflow_build_info{python="' in page
    assert re.search(r'^rigflow_worker_ready\{worker="r-cpu0"\} 1\.0$', page, re.MULTILINE)
    assert re.search(r"^rigflow_broker_up 1\.0$", page, re.MULTILINE)


async def _two_jobs(settings: Settings, clip: Path) -> None:
    async with Broker.connected(settings, name="test") as broker:
        spec = await register(broker, settings, SPEC, models_of(SPEC))
        client = Client(broker)
        assert not (await (await client.submit(spec, clip.read_bytes(), job="good")).done()).failures
        assert (await (await client.submit(spec, b"no media", job="bad")).done()).failures
