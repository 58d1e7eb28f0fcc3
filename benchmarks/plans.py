"""Holds `rigflow plan` and `rigflow simulate` against real fleets: `python -m benchmarks.plans [PIPELINE] [FLEET]`.

Four pipelines on three fleets. Each row is one job, on a fleet that is slowed down until the job takes `--seconds` by
the plan: as `plan` and as `simulate` predict it, and as a real broker and real workers take for it, whose every part of
a machine takes the time that the plan has for it (tests/simulated_machine.py), placed as the plan says. A busy machine
adds to what is measured; its load is printed.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from benchmarks.plan_rows import EACH, FLEETS, PIPELINES, Row, film_of, row_of
from pipelines.broker import Broker
from pipelines.placements import agree, known_placement
from pipelines.status import running_statuses
from schemas.jobs import Priority
from schemas.parts import PartMeta
from schemas.pipeline import PipelineSpec
from schemas.placed import PlacedDevice, PlacedPipeline
from schemas.settings import Settings
from tests.fleet import Fleet as RealFleet
from tests.fleet import Silent
from tests.simulated_machine import machine_entry, names_of, simulated_workers
from workers.definitions import register
from workers.forkserver import WorkerProcess
from workers.options import WorkerOptions
from workers.run import run_jobs

RENEW_S = 3.0
START_S = 120.0


class Times(Silent):
    """When the first segment of a job was at the broker, and when its last result came."""

    def __init__(self) -> None:
        super().__init__()
        self.began_s = self.ended_s = 0.0

    def sent(self, job: str, seconds: float, segments: int) -> None:
        self.began_s = self.began_s or time.monotonic()

    def part(self, job: str, meta: PartMeta) -> None:
        self.ended_s = time.monotonic()


@contextmanager
def simulated_fleet(row: Row, settings: Settings, folder: Path) -> Iterator[list[str]]:
    """Workers that imitate the fleet of a row, each on a rig of its name: the names of them all."""
    machines = simulated_workers(row.fleet, row.work, folder)
    processes = []
    for device in (device for _, device in row.fleet.places()):
        for name in names_of(device):
            options = WorkerOptions(settings=settings, name=name, rig=device.name, auto=True)
            processes.append(WorkerProcess(options, machine_entry(machines)))
            processes[-1].start_now()
    try:
        yield list(machines)
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.wait()


@asynccontextmanager
async def placed(broker: Broker, row: Row, spec: PipelineSpec, workers: Sequence[str]) -> AsyncIterator[None]:
    """Have the workers do what the plan says, and wait until they know it."""
    devices = {
        f"{name}-cpu": PlacedDevice(runs=role.runs, takes=role.takes) for name, role in row.plan.placement.roles.items()
    }

    async def renew() -> None:
        while True:
            known = PlacedPipeline(
                pipeline=spec.name, revision=spec.revision, devices=devices, since_s=time.time(), by="plans"
            )
            _, sequence = await known_placement(broker, spec.name)
            await agree(broker, known, sequence)
            await asyncio.sleep(RENEW_S)

    renewing = asyncio.create_task(renew())
    try:
        async with asyncio.timeout(START_S):
            while True:
                statuses, _ = await running_statuses(broker)
                ready = [each for each in statuses if spec.name in each["roles"] and each["state"] == "idle"]
                if len(ready) == len(workers):
                    break
                await asyncio.sleep(0.2)
        yield
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)


async def measured(row: Row, folder: Path) -> float:
    """Seconds that the job of a row takes on a real fleet of simulated workers."""
    with RealFleet([], folder / "cache") as real, simulated_fleet(row, real.settings, folder) as workers:
        async with Broker.connected(real.settings, name="plans") as broker:
            spec = await register(broker, real.settings, row.spec, row.models)
            async with placed(broker, row, spec, workers):
                for film in (film_of(folder, row.spec.name, len(workers)), row.film):
                    times = Times()
                    out = folder / film.stem
                    out.mkdir()
                    [outcome] = await run_jobs(real.settings, row.spec, row.models, [film], out, Priority.BULK, times)
                    assert outcome.error is None, outcome.error
                    assert outcome.done is not None
                    assert not outcome.done.failures
    return times.ended_s - times.began_s


def line(pipeline: str, fleet: str, row: Row, took_s: float) -> str:
    """A row of the table, in Markdown."""
    plan_s, simulated_s = row.plan.finish_s, row.simulated_s
    return (
        f"| {pipeline} | {fleet} | {row.work.pieces} | {row.plan.moved:.0%} | {plan_s:.1f} | {simulated_s:.1f} | "
        f"{took_s:.1f} | {took_s / plan_s:.2f} | {took_s / simulated_s:.2f} | {os.getloadavg()[0]:.0f} |"
    )


HEAD = """| pipeline | fleet | segments | moved | plan, s | simulate, s | measured, s | by plan | by simulate | load |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", help="names of pipelines and of fleets; all without them")
    parser.add_argument("--seconds", type=float, default=12.0, help="about how long each job shall take")
    parser.add_argument("--each", type=int, default=EACH, help="segments for each worker")
    parser.add_argument("--predict", action="store_true", help="measure nothing")
    options = parser.parse_args(arguments)
    print(HEAD, flush=True)
    for pipeline in PIPELINES:
        for fleet in FLEETS:
            if set(options.only) - {pipeline, fleet}:
                continue
            with tempfile.TemporaryDirectory(prefix="rigflow-plans-") as name:
                row = row_of(pipeline, fleet, Path(name), options.seconds, options.each)
                took_s = 0.0 if options.predict else asyncio.run(measured(row, Path(name)))
            print(line(pipeline, fleet, row, took_s), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
