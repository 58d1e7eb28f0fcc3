"""Values that the broker keeps, as what they should be. One that cannot be read is reported once, and left out.

Another version of rigflow, or anyone with access, may have written it: it ends no worker and no command.
"""

import logging
from functools import lru_cache
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from schemas.errors import fault_of
from schemas.fields import clean_name

log = logging.getLogger("rigflow")
Model = TypeVar("Model", bound=BaseModel)


def decoded(model: type[Model], body: bytes, where: str) -> Model | None:
    """A value in json as `model`; None, and a line of log that says `where` it is, when it is something else."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        report_skipped(where, fault_of(error.errors(include_url=False, include_input=False)[0]).removeprefix(": "))
    return None


def report_skipped(where: str, reason: str) -> None:
    """Log that a value is left out, the first time."""
    _log_once(clean_name(where), clean_name(reason))


@lru_cache(1000)
def _log_once(where: str, reason: str) -> None:
    log.warning("%s cannot be read, and is left out: %s", where, reason)
