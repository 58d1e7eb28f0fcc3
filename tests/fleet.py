"""A fleet for tests: a real broker on a temporary store and real worker processes, each with the stages it is given."""

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from pipelines.broker import Broker
from pipelines.server import EmbeddedServer
from schemas.jobs import Priority
from schemas.parts import PartMeta
from schemas.pipeline import PipelineSpec
from schemas.rig import ALL_STAGES
from schemas.settings import Settings
from tests.simulated import DEFAULT_MS, at_pace, models_of
from workers.forkserver import Entry, WorkerProcess
from workers.inputs import JobOutcome
from workers.options import WorkerOptions, with_gpu_peers
from workers.process import start_worker
from workers.run import run_jobs

DEVICE = os.environ.get("TEST_DEVICE", "cpu")
ONE_WORKER = (ALL_STAGES,)
ONE_STAGE_EACH = (("decode",), ("resize",), ("infer",), ("encode", "split", "collect"))


class Silent:
    """A listener that shows nothing, and counts."""

    def __init__(self) -> None:
        self.parts = 0
        self.events: list[str] = []

    def planned(self, outcomes: list[JobOutcome], files_over: int | None = None) -> None: ...

    def sent(self, job: str, seconds: float, segments: int) -> None: ...

    def part(self, job: str, meta: PartMeta) -> None:
        self.parts += 1

    def share(self, job: str, share: float) -> None: ...

    def event(self, text: str) -> None:
        self.events.append(text)


class Fleet:
    """A broker (unless `nats` names one) and a worker process for each entry of `stages`; ends all it started.

    `paces` are milliseconds that the model `simulated` takes for a frame, worker by worker, or else `pace_ms` for all.
    `entry` is what they run.
    They compute on `devices` by turns.
    """

    def __init__(
        self,
        stages: Sequence[tuple[str, ...]],
        cache: Path,
        paces: Sequence[float] = (),
        devices: Sequence[str] = (DEVICE,),
        entry: Entry = start_worker,
        pace_ms: float = DEFAULT_MS,
        **settings: float | str,
    ) -> None:
        self.entry = entry
        self._stages = stages
        self._paces = paces
        self._pace_ms = pace_ms
        self._devices = devices
        self._given = {"cache": str(cache), **settings}
        self.server = EmbeddedServer()
        self.workers: list[WorkerProcess] = []

    def __enter__(self) -> Self:
        if "nats" not in self._given:
            self.server.start()
            self._given["nats"] = self.server.url
        self.settings = Settings.model_validate(self._given)
        for number in range(len(self._stages)):
            self.workers.append(self._spawn(number))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        self.server.stop()

    def run(
        self,
        spec: PipelineSpec,
        inputs: Sequence[Path],
        out: Path,
        listener: Silent | None = None,
        folder: Path | None = None,
    ) -> list[JobOutcome]:
        """Run a pipeline over files on this fleet, as `rigflow run` does; `folder` has the pipeline's own models."""
        return asyncio.run(self.run_async(spec, inputs, out, listener, folder))

    async def run_async(
        self,
        spec: PipelineSpec,
        inputs: Sequence[Path],
        out: Path,
        listener: Silent | None = None,
        folder: Path | None = None,
    ) -> list[JobOutcome]:
        """`run`, for tests that do something meanwhile."""
        out.mkdir(parents=True, exist_ok=True)
        models = models_of(spec, folder)
        return await run_jobs(self.settings, spec, models, inputs, out, Priority.BULK, listener or Silent())

    def kill(self, number: int) -> None:
        """Kill -9 a worker, and start another in its place."""
        self.workers[number].send_signal(signal.SIGKILL)
        self.workers[number].wait()
        self.workers[number] = self._spawn(number)

    def revive(self) -> int:
        """Start another worker in place of each that died; how many had."""
        died = [number for number, worker in enumerate(self.workers) if worker.poll() is not None]
        for number in died:
            self.workers[number] = self._spawn(number)
        return len(died)

    def add(self, stages: tuple[str, ...] = ALL_STAGES) -> None:
        """Start one more worker."""
        self._stages = (*self._stages, stages)
        self.workers.append(self._spawn(len(self.workers)))

    def _spawn(self, number: int) -> WorkerProcess:
        rig = [
            WorkerOptions(
                settings=self.settings, stages=stages, name=f"test-{at}", device=self._devices[at % len(self._devices)]
            )
            for at, stages in enumerate(self._stages)
        ]
        options = with_gpu_peers(rig)[number]
        pace_ms = self._paces[number] if self._paces else self._pace_ms
        worker = WorkerProcess(options, at_pace(self.entry, pace_ms))
        worker.start_now()
        return worker


class Killing(Silent):
    """Kills a worker as soon as the first part is there."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__()
        self._fleet = fleet

    def part(self, job: str, meta: PartMeta) -> None:
        super().part(job, meta)
        if self.parts == 1:
            self._fleet.kill(0)


async def redeliveries(broker: Broker, pipelines: set[str]) -> int:
    """How often the queues gave out work that they had given out before, as their consumers counted."""
    total = 0
    for info in (await broker.api("STREAM.LIST"))["streams"]:
        name = info["config"]["name"]
        if any(name.startswith(f"RIGFLOW_WORK_{pipeline}_") for pipeline in pipelines):
            consumer = await broker.api(f"CONSUMER.INFO.{name}.bulk")
            total += max(0, consumer["delivered"]["consumer_seq"] - info["state"]["last_seq"])
    return total
