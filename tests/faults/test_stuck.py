"""What an engine that never answers holds, and what a stopped process holds, is done by others when its lease ends."""

import asyncio
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.fleet import answers_of, simulated
from pipelines.broker import Broker
from pipelines.status import fleet_status
from tests.clips import Clip, make_clip
from tests.fleet import ONE_WORKER, Fleet, Silent, redeliveries
from tests.rig import eventually
from tests.simulated import models_of
from workers.definitions import register
from workers.inputs import JobOutcome

FOR_EVER_MS = 1e9
SPEC = simulated().model_copy(update={"segment_s": 0.1})
LEASES = pytest.mark.parametrize("lease_s", [3.0, pytest.param(5.0, marks=pytest.mark.slow)])


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path, Clip(frames=128, gop=8, b_frames=0, size=(32, 32)))


def until_ready(fleet: Fleet) -> None:
    """Until all workers have answered their warm-up, so that each takes its share."""

    async def ready() -> list[bool]:
        broker = await Broker.connect(fleet.settings)
        try:
            await register(broker, fleet.settings, SPEC, models_of(SPEC))
            return [worker["ready"] for worker in (await fleet_status(broker)).workers]
        finally:
            await broker.close()

    eventually(lambda: asyncio.run(ready()) == [True] * len(fleet.workers))


def assert_done_by_others(fleet: Fleet, clip: Path, outcome: JobOutcome, fault: str, took_s: float) -> None:
    """It is whole, somebody's work was done again, and it did not take for ever."""
    assert outcome.done is not None, outcome.error
    assert not outcome.done.failures
    with np.load(outcome.target.parent / outcome.done.files[0]) as found:
        np.testing.assert_array_equal(found["crc32"], answers_of(clip, SPEC))
    lease_s = fleet.settings.ack_wait_s
    ratio = took_s / (lease_s + 2)
    print(f"\n{fault}: whole {took_s:.2f} s later, leases of {lease_s:.0f} s: {ratio:.2f} of a lease and 2 s")
    assert lease_s < 5 or ratio < 4, "generous, for a busy machine; a quiet one stays below 1"


async def done_again(fleet: Fleet) -> int:
    broker = await Broker.connect(fleet.settings)
    try:
        return await redeliveries(broker, {SPEC.name})
    finally:
        await broker.close()


async def given_out(broker: Broker) -> bool:
    """Whether a worker holds some of the work."""
    info = await broker.api_unless_gone(f"CONSUMER.INFO.{broker.names.work_stream(SPEC.name, 'decode')}.bulk")
    return info is not None and info["num_ack_pending"] > 0


@LEASES
def test_a_stuck_engine(lease_s: float, clip: Path, tmp_path: Path) -> None:
    """The other worker comes when the stuck one holds something."""

    async def trial(fleet: Fleet) -> tuple[JobOutcome, float]:
        running = asyncio.create_task(fleet.run_async(SPEC, [clip], tmp_path / "out"))
        broker = await Broker.connect(fleet.settings)
        while not await given_out(broker):
            await asyncio.sleep(0.05)
        await broker.close()
        await asyncio.to_thread(fleet.add)
        since = time.monotonic()
        (outcome,) = await running
        return outcome, time.monotonic() - since

    with Fleet(ONE_WORKER, tmp_path / "cache", (FOR_EVER_MS, 5.0), ack_wait_s=lease_s) as fleet:
        outcome, took_s = asyncio.run(trial(fleet))
        assert_done_by_others(fleet, clip, outcome, "an engine that never answers", took_s)
        assert asyncio.run(done_again(fleet)) > 0, "the stuck one held nothing"


@LEASES
def test_a_stopped_process(lease_s: float, clip: Path, tmp_path: Path) -> None:
    async def trial(fleet: Fleet) -> tuple[JobOutcome, float]:
        listener = Silent()
        running = asyncio.create_task(fleet.run_async(SPEC, [clip], tmp_path / "out", listener))
        while not listener.parts:
            await asyncio.sleep(0.005)
        os.kill(fleet.workers[0].pid, signal.SIGSTOP)
        since = time.monotonic()
        (outcome,) = await running
        return outcome, time.monotonic() - since

    with Fleet(ONE_WORKER * 2, tmp_path / "cache", (40.0, 5.0), ack_wait_s=lease_s) as fleet:
        until_ready(fleet)
        outcome, took_s = asyncio.run(trial(fleet))
        assert_done_by_others(fleet, clip, outcome, "SIGSTOP", took_s)


@pytest.mark.parametrize(
    ("frames", "pace_ms", "settings"),
    [(24, 250.0, {"ack_wait_s": 4.5}), pytest.param(24, 5_000.0, {}, marks=pytest.mark.slow)],
)
def test_a_long_step_is_not_stuck(frames: int, pace_ms: float, settings: dict[str, float], tmp_path: Path) -> None:
    """Frames that are each a batch of their own are one step, longer than ack_wait; six others wait idle for it."""
    clip = make_clip(tmp_path, Clip(frames=frames, gop=frames, b_frames=0, size=(32, 32)))
    infer = SPEC.operators[-1]
    stages = (*SPEC.stage[:2], infer.model_copy(update={"max_batch": 1}), *SPEC.stage[3:])
    spec = SPEC.model_copy(update={"stage": stages})
    with Fleet(ONE_WORKER * 7, tmp_path / "cache", (pace_ms,) * 7, **settings) as fleet:
        (outcome,) = fleet.run(spec, [clip], tmp_path / "out")
        assert outcome.done is not None, outcome.error
        assert not outcome.done.failures
        assert asyncio.run(done_again(fleet)) == 0, "a step that moves kept its lease"
