"""The pipelines of the fleet, and what may be set in each of their stages."""

from typing import Any

from pydantic import BaseModel, Field

from engines.option_schemas import option_schemas
from gateway.callers import Reader
from gateway.fleet import Connected
from gateway.route import checked_router
from pipelines.registry import known_pipelines, load_pipeline
from schemas.pipeline import PipelineSpec

router = checked_router(prefix="/pipelines", tags=["pipelines"])


class PipelineView(BaseModel):
    """A pipeline: its media, and the kinds of its stages in order."""

    name: str
    revision: str
    description: str
    media: list[str] = Field(description="kinds of media that it takes")
    stages: list[str]
    models: dict[str, str] = Field(description="model -> its identity")

    @classmethod
    def of(cls, spec: PipelineSpec) -> "PipelineView":
        """The view of a pipeline."""
        return cls(
            name=spec.name,
            revision=spec.revision,
            description=spec.description,
            media=list(spec.media),
            stages=[stage.name for stage in spec.stage],
            models=spec.models,
        )


class StageView(BaseModel):
    """A stage: its fields as they are, and the json schema of what a job may set, as `set=STAGE.FIELD=VALUE`."""

    name: str
    kind: str
    fields: dict[str, Any]
    options: dict[str, Any]


class PipelineDetail(PipelineView):
    """A pipeline with its stages."""

    stage: list[StageView]


class PipelineList(BaseModel):
    """All pipelines of the fleet."""

    pipelines: list[PipelineView]


@router.get("")
async def list_(caller: Reader, broker: Connected) -> PipelineList:
    """List the pipelines of the fleet, by name."""
    return PipelineList(pipelines=[PipelineView.of(spec) for spec in await known_pipelines(broker)])


@router.get("/{pipeline}")
async def show(pipeline: str, caller: Reader, broker: Connected) -> PipelineDetail:
    """Show a pipeline, with the options of its stages and their descriptions."""
    spec = await load_pipeline(broker, pipeline)
    options = option_schemas(spec)
    stages = [
        StageView(
            name=stage.name,
            kind=stage.kind,
            fields=stage.model_dump(mode="json", exclude_defaults=True, exclude={"kind", "name"}),
            options=options[stage.name],
        )
        for stage in spec.stage
    ]
    return PipelineDetail(**PipelineView.of(spec).model_dump(), stage=stages)
