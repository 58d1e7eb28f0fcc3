"""Where a model is ready: its compiled engines in the fleet, and the workers that run it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field

from gateway.callers import Reader
from gateway.fleet import Connected
from gateway.route import checked_router
from pipelines.engines import fleet_engines
from pipelines.registry import known_pipelines
from pipelines.status import process_statuses
from pipelines.variants import find_model
from schemas.engine import EngineSpec
from schemas.pipeline import PipelineSpec
from schemas.rig import runs_stage

router = checked_router(prefix="/models", tags=["models"])


class EngineView(BaseModel):
    """An engine that was compiled of the model, which every GPU of its `targets` takes from the fleet."""

    key: str
    backend: str
    version: str
    targets: list[str] = Field(description="compute capabilities")
    device: str = Field(description="the GPU that it was timed on; empty where any of its targets will do")
    precision: str
    size_bytes: int
    current: bool = Field(description="whether it was made of the model as it is now")


class PlaceView(BaseModel):
    """A worker that runs the model, or would if it could."""

    worker: str
    device: str
    gpu: str
    pipeline: str
    ready: bool
    why: str = Field(description="why it is not ready; empty if it is")


class Readiness(BaseModel):
    """Where a model is ready."""

    engines: list[EngineView]
    workers: list[PlaceView]


@router.get("/{model}/readiness")
async def readiness(model: str, caller: Reader, broker: Connected) -> Readiness:
    """Show the engines of a model, and on which workers it is ready."""
    card = await find_model(broker, model)
    specs, (workers, _) = await known_pipelines(broker), await process_statuses(broker)
    of_model = [spec for spec in await fleet_engines(broker) if spec.model.partition("@")[0] == card.name]
    return Readiness(
        engines=[_engine(each, each.basis.model_sha256 == card.sha256) for each in of_model],
        workers=[*places(model, specs, workers)],
    )


def places(model: str, specs: Sequence[PipelineSpec], workers: Sequence[Mapping[str, Any]]) -> Iterator[PlaceView]:
    """The workers that have a stage with this model, once for each pipeline."""
    for spec in specs:
        stages = [stage for stage in spec.operators if stage.model == model]
        for worker in workers:
            if not any(runs_stage(worker["stages"], stage.name, stage.kind) for stage in stages):
                continue
            loading = [each for each in worker.get("why", "").split("; ") if each.startswith(f"{spec.name}: ")]
            why = worker.get("declined", {}).get(spec.name) or "; ".join(loading).removeprefix(f"{spec.name}: ")
            yield PlaceView(
                worker=worker["worker"],
                device=worker["device"],
                gpu=str(worker.get("gpu", {}).get("name", "")),
                pipeline=spec.name,
                ready=not why,
                why=why,
            )


def _engine(spec: EngineSpec, current: bool) -> EngineView:
    basis = spec.basis
    return EngineView(
        key=spec.key,
        backend=basis.backend,
        version=basis.version,
        targets=list(basis.targets),
        device=basis.device,
        precision=basis.precision,
        size_bytes=spec.size_bytes,
        current=current,
    )
