"""A publisher that is killed half-way: the same command goes on where it stopped, and the result does not tell."""

import asyncio
import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.workloads import looped
from cli.app import answer
from pipelines.broker import Broker
from pipelines.inventory import take_inventory
from pipelines.job_records import JobRecord, find_manifest
from pipelines.registry import builtin_pipeline
from pipelines.result_index import result_index
from schemas.jobs import JobState, Manifest
from schemas.parts import PartHeader
from schemas.results import Done
from schemas.settings import MIB, Settings
from schemas.subjects import HEADER_PART
from tests.cli import COMMAND, environment, rigflow_process
from tests.fleet import Fleet

pytestmark = pytest.mark.slow  # `make faults`

QUEUE = {"RIGFLOW_QUEUE_BYTES": str(3 * MIB)}  # the queue is full long before the clip ends
JOB = ("--job", "film")


async def manifest_of(settings: Settings) -> Manifest | None:
    broker = await Broker.connect(settings)
    try:
        return await find_manifest(broker, "film")
    finally:
        await broker.close()


def until_it_waits(settings: Settings) -> Manifest:
    """Wait until a publisher has noted progress, and notes no more: the queue is full."""
    seen = 0
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        manifest = asyncio.run(manifest_of(settings))
        if manifest is not None and 0 < manifest.segments == seen:
            return manifest
        seen = 0 if manifest is None else manifest.segments
        time.sleep(0.7)
    raise AssertionError("it never waited")


async def after_two_minutes(settings: Settings) -> None:
    """The broker has forgotten the ids of what it took, and the last note before the kill was not written."""
    broker = await Broker.connect(settings)
    for stream in (broker.names.work_stream("fingerprint", "decode"), broker.names.results_stream):
        config = (await broker.api(f"STREAM.INFO.{stream}"))["config"]
        await broker.api(f"STREAM.UPDATE.{stream}", config | {"duplicate_window": int(0.1e9)})
    manifest = await find_manifest(broker, "film")
    assert manifest is not None
    record = await JobRecord.read(broker, manifest.job)
    assert record is not None
    await record.change(segments=manifest.segments - 1)
    await broker.close()
    await asyncio.sleep(0.3)


async def parts_of(settings: Settings) -> tuple[Counter[tuple[int, int]], Done | None]:
    """How often each part is among the results."""
    broker = await Broker.connect(settings)
    manifest = await find_manifest(broker, "film")
    assert manifest is not None
    found = [
        PartHeader.parse(stored.headers)
        async for stored in result_index(broker, [broker.names.results(manifest.job)])
        if HEADER_PART in stored.headers
    ]
    done = (await take_inventory(broker, manifest)).done
    await broker.close()
    return Counter((header.segment, header.part) for header in found), done


@pytest.mark.parametrize("also", ["server", "two minutes"])
def test_a_killed_publisher_goes_on_where_it_stopped(also: str, tmp_path: Path) -> None:
    clip = looped(tmp_path / "clip.mp4", 30)
    with Fleet((), tmp_path / "cache", ack_wait_s=3.0) as fleet:
        where = ("--nats", fleet.settings.nats)
        command = ["publish", "fingerprint", str(clip), *JOB, *where]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen([*COMMAND, *command], env=environment() | QUEUE, **quiet) as publisher:
            halted = until_it_waits(fleet.settings)
            os.kill(publisher.pid, signal.SIGKILL)
        assert halted.state is JobState.PUBLISHING
        if also == "server":
            fleet.server.kill()
            fleet.server.restart()
        else:
            asyncio.run(after_two_minutes(fleet.settings))
        fleet.add()
        ended = rigflow_process(*command, **QUEUE)
        assert ended.returncode == 0, ended.stderr
        assert f"continues after the first {halted.segments - (also != 'server')} segments" in ended.stderr
        assert answer(["jobs", "wait", "film", *where]) == 0
        parts, _ = asyncio.run(parts_of(fleet.settings))
        assert sum(parts.values()) - len(parts) <= (also != "server")  # what was sent twice is done twice, unseen
        assert answer(["results", "film", "--out", str(tmp_path / "out"), *where]) == 0
        _, done = asyncio.run(parts_of(fleet.settings))
        [plain] = fleet.run(builtin_pipeline("fingerprint"), [clip], tmp_path / "plain")
        manifest = asyncio.run(manifest_of(fleet.settings))
    assert done is not None
    assert plain.done is not None
    assert (done.digest, done.frames) == (plain.done.digest, plain.done.frames)
    assert manifest is not None
    assert halted.segments < manifest.segments_done == manifest.total == done.segments
    name = "clip.fingerprint.npz"
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
