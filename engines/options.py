"""Options of operators and formats: each class has a pydantic model of its own."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from schemas.errors import PipelineError, reason_of
from schemas.pipeline import EncodeStage, OperatorStage

OptionsT = TypeVar("OptionsT", bound=BaseModel)


def parse_options(kind: type[OptionsT], stage: OperatorStage | EncodeStage, owner: str) -> OptionsT:
    """The stage's options as `kind`. Raises PipelineError that names the option, and says that it is `owner`'s."""
    try:
        return kind.model_validate(stage.options)
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(str(part) for part in first["loc"])
        known = ", ".join(kind.model_fields) or "none"
        if first["type"] == "extra_forbidden":
            what = f"stage {stage.name}: {owner} has no option `{option}`"
        elif not option:
            what = f"stage {stage.name}: {reason_of(first)}"
        else:
            what = f"stage {stage.name}, option {option}: {reason_of(first)}, found {first['input']!r}"
        raise PipelineError(what, f"its options are: {known}") from error
