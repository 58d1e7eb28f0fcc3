"""rigflow as in `rigflow run`: a broker and workers on this machine, publish, collect into files."""

import asyncio
import json
import logging
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from benchmarks.chain import Arrived, Task
from benchmarks.measure import role_of
from engines.content import Content
from pipelines.server import EmbeddedServer
from schemas.jobs import Priority
from schemas.model import ModelSpec
from schemas.parts import PartMeta
from schemas.pipeline import PipelineSpec
from schemas.rig import ALL_STAGES
from schemas.settings import Settings
from workers.inputs import JobOutcome
from workers.options import WorkerOptions
from workers.reporter import HEARTBEAT_S
from workers.run import run_jobs
from workers.supervisor import Supervisor
from workers.telemetry import Event, StageCounts

Models: TypeAlias = Mapping[str, tuple[ModelSpec, Content]]


class LocalFleet:
    """`workers` workers and a broker that are up and warm; each run publishes its jobs in a tenant of its own."""

    def __init__(self, workers: int, backend: str = "onnxruntime", device: str = "cpu") -> None:
        self._workers, self._backend, self._device = workers, backend, device
        self._server = EmbeddedServer()
        self._runs = 0

    async def start(self) -> None:
        self._server.start()
        self._settings = Settings(nats=self._server.url, shared=("/",), backend=self._backend, device=self._device)
        options = [
            WorkerOptions(settings=self._settings, stages=ALL_STAGES, name=f"local-{n + 1}", device=self._device)
            for n in range(self._workers)
        ]
        self._supervisor = Supervisor(options, _show)
        self._watch = asyncio.create_task(self._supervisor.watch())

    async def outcomes(
        self,
        spec: PipelineSpec,
        models: Models,
        paths: Sequence[Path],
        out: Path,
        arrived: Arrived = lambda: None,
        priority: Priority = Priority.BULK,
    ) -> list[JobOutcome]:
        """The jobs of a run, with their files in `out`."""
        self._runs += 1  # in one tenant the same file is the same job
        settings = self._settings.model_copy(update={"tenant": f"run{self._runs}"})
        return await run_jobs(settings, spec, models, paths, out, priority, ProgressListener(arrived))

    async def stop(self) -> None:
        self._watch.cancel()
        await self._supervisor.stop(grace_s=2.0)
        self._server.stop()

    async def counts(self, stage: str) -> StageCounts:
        """What the workers counted at a stage, of any pipeline, since they started."""
        await asyncio.sleep(2 * HEARTBEAT_S)  # they report every so often
        total = StageCounts()
        for (_, name), counts in self._supervisor.counts().items():
            if name == stage:
                total.add(counts)
        return total


class FilmFleet(LocalFleet):
    """Runs one pipeline over a film at a time, each into a folder of its own under `out`. A context manager."""

    def __init__(
        self, spec: PipelineSpec, models: Models, workers: int, out: Path, backend: str = "onnxruntime"
    ) -> None:
        super().__init__(workers, backend)
        self._spec, self._models, self._out = spec, models, out

    async def __aenter__(self) -> "FilmFleet":
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    async def run(self, film: Path, priority: Priority = Priority.BULK) -> Path:
        """The files that the job made, without their suffix. Ends the process if it fails."""
        out = self._out / str(self._runs + 1)
        out.mkdir(parents=True)
        [outcome] = await self.outcomes(self._spec, self._models, [film], out, priority=priority)
        if not outcome.ok:
            sys.exit(f"rigflow: {outcome.error or outcome.done}")
        return outcome.target


class Rigflow(LocalFleet):
    """The contestant: the pipeline and models of a task."""

    role_of = staticmethod(role_of)

    def __init__(self, task: Task, workers: int) -> None:
        super().__init__(workers)
        self._task = task

    async def start(self) -> None:
        await super().start()
        self._spec, self._models = self._task.spec, self._task.models

    async def run(self, paths: Sequence[Path], out: Path, arrived: Arrived) -> None:
        outcomes = await self.outcomes(self._spec, self._models, paths, out, arrived)
        assert all(outcome.ok for outcome in outcomes), outcomes

    def broker_bytes(self) -> int:
        return broker_bytes(self._server)


class ProgressListener:
    """Counts results, and prints messages for the user."""

    def __init__(self, arrived: Arrived = lambda: None) -> None:
        self._arrived = arrived

    def planned(self, outcomes: list[JobOutcome], files_over: int | None = None) -> None: ...

    def sent(self, job: str, seconds: float, segments: int) -> None: ...

    def part(self, job: str, meta: PartMeta) -> None:
        self._arrived()

    def share(self, job: str, share: float) -> None: ...

    def event(self, text: str) -> None:
        print(text, file=sys.stderr)


def _show(event: Event) -> None:
    if event.level > logging.INFO:
        print(event, file=sys.stderr)


def broker_bytes(server: EmbeddedServer) -> int:
    """Bytes of messages that went into and out of a server since it started, by its own count."""
    ports = json.loads((server.store / f"nats-server_{server.pid}.ports").read_text())
    with urllib.request.urlopen(f"{ports['monitoring'][0]}/varz", timeout=600) as answer:
        counted = json.load(answer)
    return int(counted["in_bytes"]) + int(counted["out_bytes"])


make = Rigflow
