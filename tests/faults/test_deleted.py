"""Streams and consumers that are deleted at the broker while a job is at work: they are created again, and it ends."""

import asyncio
import socket
import time
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from benchmarks.workloads import looped
from pipelines.broker import Broker
from pipelines.registry import builtin_pipeline
from tests.cli import rigflow
from tests.faults.mix import check
from tests.fleet import ONE_WORKER, Fleet, Silent
from workers.inputs import JobOutcome
from workers.options import WorkerOptions
from workers.process import start_worker
from workers.stages import LoadedPipeline

SPEC = builtin_pipeline("fingerprint").model_copy(update={"segment_s": 1.0})
QUEUE = "RIGFLOW_WORK_fingerprint_decode"
DELETED = {
    "consumer": f"CONSUMER.DELETE.{QUEUE}.bulk",
    "queue": f"STREAM.DELETE.{QUEUE}",
    "purged queue": f"STREAM.PURGE.{QUEUE}",
    "results": "STREAM.DELETE.RIGFLOW_RESULTS",
    "purged results": "STREAM.PURGE.RIGFLOW_RESULTS",
    "jobs": "STREAM.DELETE.KV_rigflow_jobs",
    "attempts": "STREAM.DELETE.KV_rigflow_attempts",
    "pipelines": "STREAM.DELETE.KV_rigflow_pipelines",
    "models": "STREAM.DELETE.OBJ_rigflow_models",
}
FOUND_AT_ONCE = {"attempts", "models", "pipelines", "jobs", "purged results"}  # the job may end before it needs them


def start_halting(go_on: Path, options: WorkerOptions, heartbeats: socket.socket | None) -> None:
    """A worker that computes one batch, and the others when that file is there."""
    operate, batches = LoadedPipeline.operate, count()

    def halting(*given: Any) -> Any:
        halts = next(batches) > 0
        while halts and not go_on.exists():
            time.sleep(0.01)
        return operate(*given)

    LoadedPipeline.operate = halting  # type: ignore[method-assign]
    start_worker(options, heartbeats)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return looped(tmp_path_factory.mktemp("clip") / "clip.mp4", 20, "carphone_pristine")


@pytest.mark.parametrize("what", DELETED)
def test_a_run_goes_on_after_a_deletion(what: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("workers.waits.SILENT_S", 1.0), ("pipelines.collect.LOST_S", 3.0)):
        monkeypatch.setattr(name, seconds)
    reports, go_on = list[str](), tmp_path / "go on"

    async def trial(fleet: Fleet) -> JobOutcome:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(str(context)))
        listener = Silent()
        broker = await Broker.connect(fleet.settings)
        running = asyncio.create_task(fleet.run_async(SPEC, [clip], tmp_path / "out", listener))
        while not listener.parts:
            await asyncio.sleep(0.005)
        await broker.api(DELETED[what])
        go_on.touch()
        [outcome] = await running
        await broker.close()
        assert what in FOUND_AT_ONCE or listener.events, "no line says what happened"
        print(f"\n{what}: {listener.events}")
        return outcome

    with Fleet(ONE_WORKER, tmp_path / "cache", entry=partial(start_halting, go_on)) as fleet:
        check(asyncio.run(trial(fleet)), SPEC)
    assert reports == []


def test_jobs_without_manifests_are_done_again(clip: Path, tmp_path: Path) -> None:
    """After the bucket of jobs was deleted, a job that is done is started again, though its Done is still there."""

    async def delete(fleet: Fleet) -> None:
        broker = await Broker.connect(fleet.settings)
        await broker.api(DELETED["jobs"])
        await broker.close()

    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        for number in range(2):
            made = rigflow("run", "fingerprint", clip, "--nats", fleet.settings.nats, "--out", tmp_path / str(number))
            assert made.returncode == 0, made.stderr
            asyncio.run(delete(fleet))
    [first], [second] = (list((tmp_path / folder).iterdir()) for folder in ("0", "1"))
    assert first.read_bytes() == second.read_bytes()
