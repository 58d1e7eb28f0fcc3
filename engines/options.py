"""Options of operators, formats and media: each class has a pydantic model of its own, `options_class`."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from engines.registry import exists, load, names
from schemas.errors import PipelineError, reason_of
from schemas.known_fields import hint_of
from schemas.pipeline import MOST_STAGES, DecodeStage, EncodeStage, OperatorStage
from schemas.text import did_you_mean
from schemas.toml import TomlError, line_of, parse_toml

OptionsT = TypeVar("OptionsT", bound=BaseModel)
_CLASSES = {"encode": ("formats", "format")}  # of a stage's kind: the group of its class, and the field that names it
_OPERATORS = ("operators", "kind")
_NO_OPTIONS = frozenset(("kind", "name", "options"))  # fields of a stage that hints do not propose
_MakeError: TypeAlias = Callable[..., PipelineError]


class Options(BaseModel):
    """Base of the options of a class: immutable; an unknown option is an error, and so is a number in quotes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def parse_options(kind: type[OptionsT], stage: DecodeStage | OperatorStage | EncodeStage, owner: str) -> OptionsT:
    """Return the options of a stage as `kind`. Raises PipelineError that names the option and its `owner`."""
    try:
        return kind.model_validate(stage.options)
    except ValidationError as error:
        detail = error.errors()[0]
        option, reason = _option_and_reason(detail)
        if detail["type"] == "extra_forbidden":
            what = f"stage {stage.name}: {owner} has no option `{option}`"
        else:
            what = f"stage {stage.name}, option {option}: {reason}" if option else f"stage {stage.name}: {reason}"
        raise PipelineError(what, _hint(detail, kind, type(stage))) from error


def check_options(text: str, source: str) -> list[PipelineError]:
    """Return the errors in kinds, formats and options of the text of a pipeline file, with line and field.

    Errors that `schemas.pipeline_check` reports are not among them.
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
            fields = {name for kind in kinds for name in kind.model_fields} | DecodeStage.model_fields.keys()
            known = sorted(fields - _NO_OPTIONS)
            hint = did_you_mean(option, known, f"there are {', '.join(known)}")
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

    yield from _check_decode(given, media, problem) if given.get("kind") == "decode" else _check_class(given, problem)


def _check_decode(given: dict[str, Any], media: Sequence[str], problem: _MakeError) -> Iterator[PipelineError]:
    kinds = [load("media", kind).options_class for kind in media]
    stage = DecodeStage(kind="decode", options=_options_in(given, DecodeStage))
    for option, value in stage.options.items() if kinds else ():
        try:
            check_decode_options(stage.model_copy(update={"options": {option: value}}), kinds)
        except PipelineError as error:
            yield problem([option], "there is no such option", error.hint)
    for kind in kinds:
        for option, reason, hint in _wrong(kind, _own(kind, stage), DecodeStage):
            yield problem([option], reason, hint)


def _check_class(given: dict[str, Any], problem: _MakeError) -> Iterator[PipelineError]:
    group, field = _CLASSES.get(str(given.get("kind")), _OPERATORS)
    try:
        kind = load(group, str(given.get(field)))
    except PipelineError as error:
        yield problem([field], error.what, error.hint)
        return
    if group == "operators" and kind.needs_model and "model" not in given:
        yield problem(["model"], "it is missing", "name the model that the stage runs")
    stage = EncodeStage if group == "formats" else OperatorStage
    for option, reason, hint in _wrong(kind.options_class, _options_in(given, stage), stage):
        yield problem(["options", option] if group == "formats" else [option], reason, hint)


def _options_in(given: dict[str, Any], stage: type[BaseModel]) -> dict[str, Any]:
    """Return the options in a stage of a pipeline file, whatever its fields are; see `OptionsBeside`."""
    inside = given.get("options", {})
    beside = {} if stage is EncodeStage else {key: given[key] for key in given if key not in stage.model_fields}
    return {**(inside if isinstance(inside, dict) else {}), **beside}


def _own(kind: type[BaseModel], stage: DecodeStage) -> dict[str, Any]:
    """Return the options of a decode stage that are in `kind`."""
    return {name: value for name, value in stage.options.items() if name in kind.model_fields}


def _wrong(kind: type[BaseModel], options: dict[str, Any], stage: type[BaseModel]) -> list[tuple[str, str, str]]:
    """Return each option of a stage that is wrong, the reason, and a hint."""
    try:
        kind.model_validate(options)
    except ValidationError as error:
        first = {
            detail["loc"][:1]: detail for detail in reversed(error.errors())
        }  # not one for each type that it may be
        return [(*_option_and_reason(detail), _hint(detail, kind, stage)) for detail in reversed(first.values())]
    return []


def _hint(detail: ErrorDetails, kind: type[BaseModel], stage: type[BaseModel]) -> str:
    """Return the options that there are; of an unknown one before them what was meant, which may be a stage's field."""
    if detail["type"] != "extra_forbidden" or len(detail["loc"]) != 1:
        return hint_of(detail, kind, known_options(kind))
    fields = () if stage is EncodeStage else stage.model_fields.keys() - _NO_OPTIONS
    return did_you_mean(str(detail["loc"][0]), {*kind.model_fields, *fields}, known_options(kind))


def _option_and_reason(detail: ErrorDetails) -> tuple[str, str]:
    option = ".".join(str(part) for part in detail["loc"] if str(part).isidentifier() or isinstance(part, int))
    if detail["type"] == "extra_forbidden":
        return option, "there is no such option"
    return option, f"{reason_of(detail)}, found {detail['input']!r}" if option else reason_of(detail)
