"""Finds all errors of a pipeline file that can be known at once."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from pydantic import TypeAdapter, ValidationError

from schemas.declared import ModelRef
from schemas.errors import PipelineError
from schemas.pipeline import MOST_STAGES, PipelineSpec, pipeline_errors, problems_of_order
from schemas.toml import TomlError, parse_toml

_MODEL: TypeAdapter[str] = TypeAdapter(ModelRef)


def check_pipeline(text: str, source: str) -> list[PipelineError]:
    """What is wrong with the text of a pipeline file, each with line and field; nothing when it is fine.

    Only the first errors of many.
    """
    try:
        given = parse_toml(text)
        PipelineSpec.model_validate(given)
    except ValidationError as error:
        found = pipeline_errors(error, text, source)
        if all(
            detail["loc"] for detail in error.errors()
        ):  # pydantic looks at the whole only where its fields are fine
            found += [PipelineError(f"{source}, line 1, the file", problem) for problem in _order_in(given)]
        return found
    except TomlError as error:
        return [PipelineError(f"{source}: not TOML, {error}", "see docs/pipelines.md for an example")]
    return []


def models_in(text: str) -> dict[int, str]:
    """The models that the stages of a pipeline file name, by number of the stage, whatever is wrong with the file."""
    try:
        stages = parse_toml(text).get("stage")
    except TomlError:
        return {}
    found = {}
    for number, stage in enumerate(stages[:MOST_STAGES] if isinstance(stages, list) else ()):
        with suppress(ValidationError):
            found[number] = _MODEL.validate_python(stage.get("model") if isinstance(stage, dict) else None)
    return found


def _order_in(given: Mapping[str, Any]) -> Iterator[str]:
    stages = given.get("stage")
    if not isinstance(stages, list) or not 0 < len(stages) <= MOST_STAGES:
        return  # which is an error of the field
    kinds = [str(stage.get("kind")) for stage in stages if isinstance(stage, dict)]
    names = [str(stage.get("name", stage.get("kind"))) for stage in stages if isinstance(stage, dict)]
    yield from problems_of_order(kinds, names)
