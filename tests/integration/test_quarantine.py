"""A model that ends the processes that load it is found and loaded no more; everything else on the fleet goes on."""

import asyncio
from pathlib import Path

from benchmarks.fleet import simulated
from pipelines.broker import Broker
from pipelines.registry import builtin_pipeline
from pipelines.status import fleet_status
from tests.clips import Clip, make_clip
from tests.fleet import Fleet
from tests.poison import start_with_deadly_model
from tests.simulated import models_of
from workers.definitions import register
from workers.options import WorkerOptions
from workers.quarantine import UNEXPLAINED_S, LoadCrashes
from workers.supervisor import Supervisor

QUICK, DEADLY = simulated(), builtin_pipeline("scenes")
REASON = "its model ended the process that loaded it (SIGSEGV)"


async def test_a_model_that_ends_its_workers_is_quarantined_and_the_fleet_goes_on(tmp_path: Path) -> None:
    clip = make_clip(tmp_path, Clip(frames=16, gop=8, b_frames=0, size=(32, 32)))
    with Fleet((), tmp_path / "cache", ack_wait_s=3.0, pace_ms=1.0) as fleet:
        broker = await Broker.connect(fleet.settings)
        for spec in (DEADLY, QUICK):
            await register(broker, fleet.settings, spec, models_of(spec))
        workers = [WorkerOptions(settings=fleet.settings, name=f"w{number}") for number in range(2)]
        supervisor = Supervisor(workers, entry=start_with_deadly_model)
        watching = asyncio.create_task(supervisor.watch())
        try:
            (failed,) = await fleet.run_async(DEADLY, [clip], tmp_path / "out")
            (done,) = await fleet.run_async(QUICK, [clip], tmp_path / "out")
            async with asyncio.timeout(30):
                shown = [""]
                while not all(f"{DEADLY.name}: {REASON}" in why for why in shown):
                    shown = [str(worker["why"]) for worker in (await fleet_status(broker)).workers]
                    await asyncio.sleep(0.05)
                while not all(REASON in slot.unready for slot in supervisor.slots):
                    await asyncio.sleep(0.05)
        finally:
            watching.cancel()
            await supervisor.stop(0.0)
            await broker.close()
    assert done.ok
    assert failed.done is not None
    assert REASON in failed.done.failures[0]
    assert [slot.died for slot in supervisor.slots] <= [2, 2], "two deaths find the model"


def test_the_model_is_found_among_those_that_were_loaded_together() -> None:
    crashes = LoadCrashes()
    assert not crashes.died(["good", "bad", "better"], 1.0, "SIGSEGV", False), "it may have been any of them"
    assert crashes.unexplained, "so the next process loads them one by one"
    crashes.loaded(["good"])
    assert crashes.died(["bad"], 1.0, "SIGSEGV", True) == ["bad"]
    assert crashes.quarantined == {"bad": REASON}
    crashes.loaded(["better"])
    assert not crashes.unexplained


def test_kills_from_outside_hardly_blame_a_model() -> None:
    crashes = LoadCrashes()
    assert not any(crashes.died(["good"], 0.5, "SIGKILL", True) for _ in range(3))
    crashes.loaded(["good"])
    assert not any(crashes.died(["good"], 0.5, "SIGKILL", True) for _ in range(3))


def test_a_worker_that_also_works_may_have_died_of_its_work() -> None:
    now_s = 0.0
    crashes = LoadCrashes(lambda: now_s)
    assert not any(crashes.died(["slow"], 1.0, "SIGSEGV", alone=False) for _ in range(5))
    assert crashes.unexplained
    now_s = 2 * UNEXPLAINED_S
    assert not crashes.unexplained, "it is not a candidate for ever"
