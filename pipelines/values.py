"""Parses values of the broker's buckets. One that cannot be read is logged once and left out.

Another version of rigflow, or any client with access, may have written it: it must not end a worker or a command.
"""

import logging
from functools import lru_cache
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from schemas.errors import format_field_error
from schemas.fields import clean_name

log = logging.getLogger("rigflow")
Model = TypeVar("Model", bound=BaseModel)


def decoded(model: type[Model], body: bytes, where: str) -> Model | None:
    """Parse json as `model`. A value that does not fit is logged with `where` it is, and gives None."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        report_skipped(
            where, format_field_error(error.errors(include_url=False, include_input=False)[0]).removeprefix(": ")
        )
    return None


def report_skipped(where: str, reason: str) -> None:
    """Log that a value is left out, the first time."""
    _log_once(clean_name(where), clean_name(reason))


@lru_cache(1000)
def _log_once(where: str, reason: str) -> None:
    log.warning("%s cannot be read, and is left out: %s", where, reason)
