"""What options the stages of a pipeline have: the json schema of each stage's own class, with its descriptions."""

from typing import Any

from engines.registry import load
from schemas.pipeline import DecodeStage, EncodeStage, OperatorStage, PipelineSpec


def option_schemas(spec: PipelineSpec) -> dict[str, dict[str, Any]]:
    """Stage -> the json schema of what may be set there, as `stage.field`. Raises PipelineError for unknown kinds."""
    return {stage.name: _schema(stage, spec) for stage in spec.stage}


def _schema(stage: DecodeStage | OperatorStage | EncodeStage, spec: PipelineSpec) -> dict[str, Any]:
    if isinstance(stage, DecodeStage):
        classes = [load("media", kind).options_class for kind in spec.media]
    elif isinstance(stage, OperatorStage):
        classes = [load("operators", stage.kind).options_class]
    else:
        classes = [load("formats", stage.format).options_class]
    schema: dict[str, Any] = {"type": "object", "properties": {}}
    for kind in (type(stage), *classes):
        own = kind.model_json_schema()
        schema["properties"] |= own.get("properties", {})
        if "$defs" in own:
            schema.setdefault("$defs", {}).update(own["$defs"])
    for fixed in ("kind", "name", "options"):
        schema["properties"].pop(fixed, None)
    return schema
