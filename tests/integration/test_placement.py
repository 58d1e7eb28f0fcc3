"""Rigs that place work by what they measured: real workers, a slow one among them, and a real broker."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from benchmarks.fleet import simulated
from pipelines.broker import Broker
from pipelines.client import Client
from pipelines.fleet_view import known_fleet
from pipelines.placements import all_placements
from pipelines.status import fleet_status
from schemas.settings import Settings
from tests.cli import rigflow
from tests.clips import real_clip
from tests.fleet import Fleet
from tests.rig import Rig
from tests.simulated import at_pace, models_of
from workers.definitions import register
from workers.forkserver import WorkerProcess
from workers.options import WorkerOptions
from workers.placed_by_rig import Placer
from workers.process import start_worker

SPEC = simulated()
FAST_MS, SLOW_MS = 3.0, 60.0  # a frame
MOST_JOBS = 60
FILM = real_clip("bigbuckbunny")  # 132 frames, which take as long to decode as the fast worker computes


@contextmanager
def rigs(settings: Settings, paces: dict[str, float]) -> Iterator[None]:
    """A rig of one worker each, of that pace."""
    workers = []
    for rig, pace_ms in paces.items():
        options = WorkerOptions(settings=settings, name=f"{rig}-cpu0", rig=rig, auto=True)
        workers.append(WorkerProcess(options, at_pace(start_worker, pace_ms)))
        workers[-1].start_now()
    try:
        yield
    finally:
        for worker in workers:
            worker.send_signal(signal.SIGKILL)
            worker.wait()


@asynccontextmanager
async def placing(broker: Broker, every_s: float = 0.5) -> AsyncIterator[None]:
    """Two rigs that decide, each by itself."""

    async def keep(placer: Placer) -> None:
        while True:
            await placer.place_all()
            await asyncio.sleep(every_s)

    tasks = [asyncio.create_task(keep(Placer(broker, rig, hold_s=1.0))) for rig in ("fast", "slow")]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended


async def roles_of(broker: Broker) -> dict[str, tuple[Sequence[str], Sequence[str]]]:
    return {
        name: (device.runs, device.takes)
        for placed in await all_placements(broker)
        for name, device in placed.devices.items()
    }


async def apart(broker: Broker) -> None:
    """Wait until the workers have the roles that follow from their paces."""
    async with asyncio.timeout(120):
        while True:
            workers = (await fleet_status(broker)).workers
            runs = {each["worker"]: each["roles"].get(SPEC.name, {}).get("runs", ["?"]) for each in workers}
            slow, fast = (runs.get(f"{rig}-cpu0", ["?"]) for rig in ("slow", "fast"))
            if slow and "?" not in slow and "infer" not in slow and "infer" in fast:
                return
            await asyncio.sleep(0.2)


async def _slow_rig_leaves_the_model(fleet: Fleet, out: Path) -> None:
    async with Broker.connected(fleet.settings, name="test") as broker:
        spec = await register(broker, fleet.settings, SPEC, models_of(SPEC))
        client = Client(broker)
        async with placing(broker):
            placed = asyncio.create_task(apart(broker))
            jobs = []
            while not placed.done() and len(jobs) < MOST_JOBS:  # a fleet without work is not placed
                jobs.append(await client.submit(spec, FILM.read_bytes(), job=f"job{len(jobs)}"))
                await asyncio.wait([placed], timeout=0.8)
            await placed
            dones = [await job.done() for job in jobs]
            known = await known_fleet(broker)
        roles = await roles_of(broker)
    assert [(done.frames, done.failures, done.lost) for done in dones] == [(132, (), 0)] * len(jobs)
    assert len({done.digest for done in dones}) == 1  # on any workers
    assert set(roles) == {"fast-cpu", "slow-cpu"}
    assert "infer" not in roles["slow-cpu"][0]
    paces = {device.name: device.frame_s[SPEC.name, "infer"] for _, device in known.places()}
    assert paces["slow-cpu"] > 5 * paces["fast-cpu"]


def test_a_slow_rig_leaves_the_model_to_others(tmp_path: Path) -> None:
    with (
        Fleet([], tmp_path / "cache") as fleet,
        rigs(fleet.settings, {"fast": FAST_MS, "slow": SLOW_MS}),
    ):
        asyncio.run(_slow_rig_leaves_the_model(fleet, tmp_path))
        shown = rigflow("status", "--nats", fleet.settings.nats).stdout
        assert re.search("placed: simulated slow-cpu0 runs (decode|encode)", " ".join(shown.split()))


@pytest.mark.slow
def test_two_rigs_place_their_work_by_themselves(tmp_path: Path) -> None:
    """`stages = "auto"` in the files of two rigs; the slow one gives its planes away, and `plan` knows both."""
    with (
        Fleet([], tmp_path / "cache") as fleet,
        Rig(fleet, tmp_path, "fast", 1, FAST_MS, stages='"auto"') as fast,
        Rig(fleet, tmp_path, "slow", 1, SLOW_MS, stages='"auto"') as slow,
    ):
        for rig in (fast, slow):
            rig.until_ready()
        asyncio.run(_until_placed(fleet))
        slow.until("event=placed")
        assert "event=placement" in fast.output + slow.output
        told = rigflow("plan", "fingerprint", FILM, "--nats", fleet.settings.nats)
        assert "slow-cpu" in told.stdout


async def _until_placed(fleet: Fleet) -> None:
    async with Broker.connected(fleet.settings, name="test") as broker:
        spec = await register(broker, fleet.settings, SPEC, models_of(SPEC))
        jobs = [await Client(broker).submit(spec, FILM.read_bytes(), job=f"job{number}") for number in range(8)]
        await apart(broker)
        assert [(await job.done()).failures for job in jobs] == [()] * 8
