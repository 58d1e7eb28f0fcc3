"""A runner in the test's own process on a real broker: what it computes with can be watched, and stopped half-way."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import numpy as np

from engines.device import Host
from engines.part import Array
from engines.plan import plan_pipeline
from engines.ports import Session
from pipelines.attempts import Attempts
from pipelines.broker import Broker
from pipelines.publish import Publisher
from pipelines.registry import load_pipeline
from pipelines.topology import ensure_topology
from schemas.errors import RigflowError
from schemas.jobs import JobRef, Priority
from schemas.messages import decode
from schemas.model import ModelSpec, TensorSpec
from schemas.pipeline import PipelineSpec
from schemas.results import Result
from schemas.settings import Settings
from schemas.subjects import HEADER_TYPE
from workers.computing import ComputingThread
from workers.failures import Failures
from workers.runner import Runner
from workers.stages import LoadedPipeline
from workers.trust import Trust

CARD = ModelSpec(
    name="mean",
    inputs=(TensorSpec(name="pixels", dtype="uint8", shape=("N", 8, 8, 3)),),
    outputs=(TensorSpec(name="mean", dtype="float32", shape=("N",)),),
    sha256="0" * 64,
)


def spec_of(max_batch: int = 32, max_delay_ms: float = 0.0) -> PipelineSpec:
    """Frames of 8 x 8 -> `mean` of each, as npz."""
    return PipelineSpec.model_validate(
        {
            "name": "p",
            "media": ["video", "image"],
            "stage": [
                {"kind": "decode"},
                {"kind": "resize", "size": [8, 8]},
                {"kind": "infer", "model": "mean", "max_batch": max_batch, "max_delay_ms": max_delay_ms},
                {"kind": "encode", "format": "npz"},
            ],
        }
    )


class Mean:
    """The model: notes the rows of each batch, and does `before` first."""

    batch_bytes = 1 << 20
    spec = CARD

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.before: Callable[[int], None] = lambda number: None
        self.running = threading.Event()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.running.set()
        self.batches.append(len(inputs["pixels"]))
        self.before(len(self.batches))
        return {"mean": inputs["pixels"].mean(axis=(1, 2, 3), dtype=np.float32)}

    def warm_up(self) -> None: ...

    def close(self) -> None: ...


class Trial:
    """A broker with the streams of `spec`, and a runner that serves them until the trial ends.

    `sessions`: those of the pipeline's models; by default `session` alone.
    """

    def __init__(
        self, broker: Broker, spec: PipelineSpec, session: Mean, sessions: Mapping[str, Session] | None = None
    ) -> None:
        self.broker = broker
        self.spec = spec
        self.session = session
        attempts = Attempts(broker, "worker", "host", "cpu")
        failures = Failures(broker, attempts, "worker")
        sessions = sessions or {"mean": session}
        cards = {name: each.spec for name, each in sessions.items()}
        by_stage = {stage.name: sessions[stage.model] for stage in spec.operators if stage.model}
        self.pipeline = LoadedPipeline(plan_pipeline(spec, cards), lambda stage: True, by_stage, Host(broker.settings))
        device = Host(broker.settings)
        self.computing = ComputingThread(device)
        given = broker, broker.settings, self._load_pipeline, failures
        self.runner = Runner(*given, self.computing, device.concurrency, Trust("", "worker"))
        self.publisher = Publisher(broker, spec, "main", Priority.BULK)
        self.serving: asyncio.Task[None] | None = None

    async def _load_pipeline(self, revision: str) -> LoadedPipeline:
        if revision != self.spec.revision:
            await load_pipeline(self.broker, revision)  # raises what a worker meets
        return self.pipeline

    async def serve(self) -> None:
        """Host the pipeline and compute."""
        await self.runner.intake.host(self.spec, [stage.name for stage in self.spec.stage])
        await self.runner.serve()

    def ref(self, job: str) -> JobRef:
        return self.publisher.ref(job)

    async def results(self, job: str, kind: str = "part") -> list[Result]:
        """What the job has by now; of failures, instead of parts, when `kind` says so."""
        stored = [
            each
            async for each in self.broker.read(
                self.broker.names.results_stream, self.broker.names.results(self.ref(job))
            )
        ]
        return [decode(each.body)[0] for each in stored if each.headers.get(HEADER_TYPE) == kind]  # type: ignore[misc]

    async def queued(self) -> int:
        """Messages in all queues of the pipeline."""
        streams = [self.broker.names.work_stream("p", stage.name) for stage in self.spec.stage]
        infos = [await self.broker.api(f"STREAM.INFO.{stream}") for stream in streams]
        return sum(int(info["state"]["messages"]) for info in infos)


@asynccontextmanager
async def a_trial(
    settings: Settings, spec: PipelineSpec, sessions: Mapping[str, Session] | None = None
) -> AsyncIterator[Trial]:
    """A trial whose runner serves until the block ends."""
    broker = await Broker.connect(settings)
    serving: asyncio.Task[None] | None = None
    try:
        await ensure_topology(broker, settings, [spec])
        trial = Trial(broker, spec, Mean(), sessions)
        serving = trial.serving = asyncio.create_task(trial.serve())
        yield trial
        if not serving.cancelled():
            await trial.runner.stop(5.0)
            await serving
    finally:
        if serving is not None:
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError, RigflowError):
                await serving
            trial.computing.close()
        await broker.close()
