"""Options of operators and formats: each class has a pydantic model of its own, `options_class`."""

import tomllib
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from engines.registry import exists, load, names
from schemas.errors import PipelineError, reason_of
from schemas.pipeline import EncodeStage, OperatorStage, line_of

OptionsT = TypeVar("OptionsT", bound=BaseModel)
_CLASSES = {"encode": ("formats", "format")}  # of a stage's kind: the group of its class, and the field that names it
_OPERATORS = ("operators", "kind")


def parse_options(kind: type[OptionsT], stage: OperatorStage | EncodeStage, owner: str) -> OptionsT:
    """The stage's options as `kind`. Raises PipelineError that names the option, and says that it is `owner`'s."""
    try:
        return kind.model_validate(stage.options)
    except ValidationError as error:
        option, reason = _problem(error)
        if error.errors()[0]["type"] == "extra_forbidden":
            what = f"stage {stage.name}: {owner} has no option `{option}`"
        else:
            what = f"stage {stage.name}, option {option}: {reason}" if option else f"stage {stage.name}: {reason}"
        raise PipelineError(what, known_options(kind)) from error


def check_options(text: str, source: str) -> list[PipelineError]:
    """What is wrong with the kinds, formats and options that the text of a pipeline file names, by line and field.

    What `schemas.pipeline.check_pipeline` reports is left out.
    """
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return []
    stages = given.get("stage", [])
    found = (
        _check_stage(text, source, number, stage) for number, stage in enumerate(stages) if isinstance(stage, dict)
    )
    return [*_check_media(text, source, given), *(error for error in found if error is not None)]


def known_options(kind: type[BaseModel]) -> str:
    """The names of the options of a class, in words."""
    return f"its options are: {', '.join(kind.model_fields) or 'none'}"


def _check_media(text: str, source: str, given: dict[str, Any]) -> Iterator[PipelineError]:
    media = given.get("media", ())
    for kind in (media,) if isinstance(media, str) else media:
        if isinstance(kind, str) and not exists("media", kind):
            what = f"{source}, line {line_of(text, ['media'])}, media: there is no medium {kind}"
            yield PipelineError(what, f"there are {', '.join(names('media'))}")


def _check_stage(text: str, source: str, number: int, given: dict[str, Any]) -> PipelineError | None:
    if given.get("kind") == "decode":
        return None
    group, field = _CLASSES.get(str(given.get("kind")), _OPERATORS)

    def problem(path: list[str | int], reason: str, hint: str = "") -> PipelineError:
        where = ["stage", number, *path]
        return PipelineError(f"{source}, line {line_of(text, where)}, {'.'.join(map(str, where))}: {reason}", hint)

    try:
        kind = load(group, str(given.get(field)))
    except PipelineError as error:
        return problem([field], error.what, error.hint)
    try:
        stage = EncodeStage.model_validate(given) if group == "formats" else OperatorStage.model_validate(given)
        kind.options_class.model_validate(stage.options)
        if isinstance(stage, OperatorStage) and kind.needs_model and stage.model is None:
            return problem(["model"], "it is missing", "name the model that the stage runs")
    except ValidationError as error:
        if error.title != kind.options_class.__name__:
            return None
        option, reason = _problem(error)
        return problem(
            ["options", option] if group == "formats" else [option], reason, known_options(kind.options_class)
        )
    return None


def _problem(error: ValidationError) -> tuple[str, str]:
    """The first option that is wrong, and why."""
    first = error.errors()[0]
    option = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return option, "there is no such option"
    return option, f"{reason_of(first)}, found {first['input']!r}" if option else reason_of(first)
