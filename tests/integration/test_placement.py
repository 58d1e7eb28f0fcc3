"""Rigs that place work by what they measured: real workers, a slow one among them, and a real broker."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path

import pytest

from benchmarks.fleet import simulated
from pipelines.broker import Broker
from pipelines.client import Client
from pipelines.fleet_view import known_fleet
from pipelines.placements import all_placements
from pipelines.status import fleet_status
from schemas.results import Done
from schemas.settings import Settings
from tests.cli import rigflow
from tests.clips import Clip, generated
from tests.fleet import Fleet
from tests.rig import Rig
from tests.simulated import at_pace, models_of
from workers.definitions import register
from workers.forkserver import WorkerProcess
from workers.options import WorkerOptions
from workers.placed_by_rig import keep_placed
from workers.process import start_worker

SPEC = simulated()
# a frame; the fleet does 1.3 times as much with the stages apart as long as a frame's decoding takes 0.3 to 200 ms, so
# that this is the best placement however busy the machine is
FAST_MS, SLOW_MS = 1.0, 200.0
JOBS_AT_A_TIME = 3
FILM = Clip(frames=40, gop=4, size=(480, 848))  # a segment takes the slow worker 0.8 s


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
async def placing(broker: Broker) -> AsyncIterator[None]:
    """Two rigs that decide, each by itself."""
    tasks = [asyncio.create_task(keep_placed(broker, rig, every_s=0.5, hold_s=1.0)) for rig in ("fast", "slow")]
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
    runs: dict[str, Sequence[str]] = {}
    try:
        async with asyncio.timeout(120):
            while True:
                workers = (await fleet_status(broker)).workers
                runs = {each["worker"]: each["roles"].get(SPEC.name, {}).get("runs", ["?"]) for each in workers}
                slow, fast = (runs.get(f"{rig}-cpu0", ["?"]) for rig in ("slow", "fast"))
                if slow and "?" not in slow and "infer" not in slow and "infer" in fast:
                    return
                await asyncio.sleep(0.2)
    except TimeoutError:
        pytest.fail(f"not placed by their paces: {runs}, {await known_fleet(broker)}")


async def placed_with_work(broker: Broker, settings: Settings) -> list[Done]:
    """Feed the fleet until it is placed, for one without work is not; the ends of all jobs."""
    spec = await register(broker, settings, SPEC, models_of(SPEC))
    client, film = Client(broker), generated(FILM).read_bytes()
    dones: list[Done] = []

    async def feed(feeder: int) -> None:
        for number in count():
            job = await client.submit(spec, film, job=f"job{feeder}-{number}")
            dones.append(await job.done())
            if placed.done():
                return

    async with asyncio.TaskGroup() as group:
        placed = group.create_task(apart(broker))
        for feeder in range(JOBS_AT_A_TIME):
            group.create_task(feed(feeder))
    return dones


async def _slow_rig_leaves_the_model(fleet: Fleet) -> None:
    async with Broker.connected(fleet.settings, name="test") as broker:
        async with placing(broker):
            dones = await placed_with_work(broker, fleet.settings)
        known = await known_fleet(broker)
        roles = await roles_of(broker)
    assert {(done.frames, done.failures, done.lost) for done in dones} == {(40, (), 0)}
    assert len({done.digest for done in dones}) == 1  # on any workers
    assert set(roles) == {"fast-cpu", "slow-cpu"}
    assert "infer" not in roles["slow-cpu"][0]
    paces = {device.name: device.frame_s[SPEC.name, "infer"] for _, device in known.places()}
    assert paces["slow-cpu"] > paces["fast-cpu"]


def test_a_slow_rig_leaves_the_model_to_others(tmp_path: Path) -> None:
    with (
        Fleet([], tmp_path / "cache") as fleet,
        rigs(fleet.settings, {"fast": FAST_MS, "slow": SLOW_MS}),
    ):
        asyncio.run(_slow_rig_leaves_the_model(fleet))
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
        told = rigflow("plan", "fingerprint", generated(FILM), "--nats", fleet.settings.nats)
        assert "slow-cpu" in told.stdout


async def _until_placed(fleet: Fleet) -> None:
    async with Broker.connected(fleet.settings, name="test") as broker:
        dones = await placed_with_work(broker, fleet.settings)
    assert {(done.frames, done.failures, done.lost) for done in dones} == {(40, (), 0)}
