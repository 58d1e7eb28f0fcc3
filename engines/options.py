"""Options of operators, formats and media: each class has a pydantic model of its own, `options_class`."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from engines.registry import exists, load, names
from schemas.errors import PipelineError, reason_of
from schemas.pipeline import MOST_STAGES, DecodeStage, EncodeStage, OperatorStage, line_of
from schemas.toml import TomlError, parse_toml

OptionsT = TypeVar("OptionsT", bound=BaseModel)
_CLASSES = {"encode": ("formats", "format")}  # of a stage's kind: the group of its class, and the field that names it
_OPERATORS = ("operators", "kind")
_NO_OPTIONS = frozenset(("kind", "name", "options"))  # fields of a decode stage that its hint does not list
_MakeError: TypeAlias = Callable[..., PipelineError]


class Options(BaseModel):
    """Base of the options of a class: immutable; an unknown option is an error, and so is a number in quotes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def parse_options(kind: type[OptionsT], stage: DecodeStage | OperatorStage | EncodeStage, owner: str) -> OptionsT:
    """Return the options of a stage as `kind`. Raises PipelineError that names the option and its `owner`."""
    try:
        return kind.model_validate(stage.options)
    except ValidationError as error:
        option, reason = _first_of(error)
        if error.errors()[0]["type"] == "extra_forbidden":
            what = f"stage {stage.name}: {owner} has no option `{option}`"
        else:
            what = f"stage {stage.name}, option {option}: {reason}" if option else f"stage {stage.name}: {reason}"
        raise PipelineError(what, known_options(kind)) from error


def check_options(text: str, source: str) -> list[PipelineError]:
    """Return the errors in kinds, formats and options of the text of a pipeline file, with line and field.

    Errors that `schemas.pipeline.check_pipeline` reports are not among them.
    """
    try:
        given = parse_toml(text)
    except TomlError:
        return []
    stages, media = _list_of(given, "stage"), _list_of(given, "media")
    if len(stages) > MOST_STAGES:
        return []
    kinds = [kind for kind in media if isinstance(kind, str)]
    found = list(_check_media(text, source, kinds))
    for number, stage in enumerate(stages):
        if isinstance(stage, dict):
            found += _check_stage(text, source, number, stage, [kind for kind in kinds if exists("media", kind)])
    return found


def known_options(kind: type[BaseModel]) -> str:
    """Return a sentence with the names of the options of a class."""
    return f"its options are: {', '.join(kind.model_fields) or 'none'}"


def parse_decode_options(kind: type[OptionsT], stage: DecodeStage) -> OptionsT:
    """Return the options of a decode stage that a medium has, as `kind`. Raises PipelineError that names the option."""
    return parse_options(kind, stage.model_copy(update={"options": _own(kind, stage)}), "decode")


def check_decode_options(stage: DecodeStage, kinds: Sequence[type[BaseModel]]) -> None:
    """Raise PipelineError for an option that is in none of `kinds`, the options of the pipeline's media."""
    for option in stage.options:
        if not any(option in kind.model_fields for kind in kinds):
            known = {name for kind in kinds for name in kind.model_fields} | DecodeStage.model_fields.keys()
            hint = f"there are {', '.join(sorted(known - _NO_OPTIONS))}"
            raise PipelineError(f"stage {stage.name}: decode has no option `{option}`", hint)


def _list_of(given: dict[str, Any], field: str) -> list[Any]:
    """Return the list in a field; empty if the field has another type, which `check_pipeline` reports."""
    value = given.get(field)
    return value if isinstance(value, list) else [value] if isinstance(value, str) else []


def _check_media(text: str, source: str, kinds: Sequence[str]) -> Iterator[PipelineError]:
    for kind in dict.fromkeys(kinds):
        if not exists("media", kind):
            what = f"{source}, line {line_of(text, ['media'])}, media: there is no medium {kind}"
            yield PipelineError(what, f"there are {', '.join(names('media'))}")


def _check_stage(
    text: str, source: str, number: int, given: dict[str, Any], media: Sequence[str]
) -> Iterator[PipelineError]:
    def problem(path: list[str | int], reason: str, hint: str = "") -> PipelineError:
        where = ["stage", number, *path]
        return PipelineError(f"{source}, line {line_of(text, where)}, {'.'.join(map(str, where))}: {reason}", hint)

    check = _check_decode(given, media, problem) if given.get("kind") == "decode" else _check_class(given, problem)
    if check is not None:
        yield check


def _check_decode(given: dict[str, Any], media: Sequence[str], problem: _MakeError) -> PipelineError | None:
    try:
        stage = DecodeStage.model_validate(given)
    except ValidationError:
        return None
    kinds = [load("media", kind).options_class for kind in media]
    for option, value in stage.options.items() if kinds else ():
        try:
            check_decode_options(stage.model_copy(update={"options": {option: value}}), kinds)
        except PipelineError as error:
            return problem([option], "there is no such option", error.hint)
    for kind in kinds:
        try:
            kind.model_validate(_own(kind, stage))
        except ValidationError as error:
            option, reason = _first_of(error)
            return problem([option], reason, known_options(kind))
    return None


def _check_class(given: dict[str, Any], problem: _MakeError) -> PipelineError | None:
    group, field = _CLASSES.get(str(given.get("kind")), _OPERATORS)
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
        option, reason = _first_of(error)
        return problem(
            ["options", option] if group == "formats" else [option], reason, known_options(kind.options_class)
        )
    return None


def _own(kind: type[BaseModel], stage: DecodeStage) -> dict[str, Any]:
    """Return the options of a decode stage that are in `kind`."""
    return {name: value for name, value in stage.options.items() if name in kind.model_fields}


def _first_of(error: ValidationError) -> tuple[str, str]:
    """Return the first option that is wrong, and the reason."""
    first = error.errors()[0]
    option = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return option, "there is no such option"
    return option, f"{reason_of(first)}, found {first['input']!r}" if option else reason_of(first)
