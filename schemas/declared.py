"""Shared by pipelines, models, rigs and engines: names, immutability, and a hash of the declared fields."""

import hashlib
import json
import re
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from schemas.errors import UsageError, format_field_error
from schemas.known_fields import hint_of
from schemas.toml import TomlError, parse_toml

TOKEN_HINT = "use letters, digits, - and _, at most 64, and begin with a letter or a digit"
TOKEN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"  # one token of a NATS subject, and a file name everywhere
_MODEL = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"


def spelled(pattern: str, words: str) -> AfterValidator:
    """Refuse other strings; the reason is in words instead of the expression."""

    def check(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(words)
        return text

    return AfterValidator(check)


Name: TypeAlias = Annotated[
    str, spelled(TOKEN, "takes letters, digits, - and _, at most 64, the first a letter or digit")
]
# of a model: it names files, and may come from any source
ModelName: TypeAlias = Annotated[
    str, spelled(_MODEL, "takes letters, digits, . - and _, at most 128, the first a letter or digit")
]
ModelRef: TypeAlias = Annotated[
    str, spelled(f"{_MODEL}(@{_MODEL})?", "takes NAME or NAME@VERSION, of letters, digits, . - and _")
]
# of a file of a model: it is never part of a path, and may come from any source
FileName: TypeAlias = Annotated[
    str, spelled(r"[A-Za-z0-9_][A-Za-z0-9._+@ -]{0,199}", "takes letters, digits, blanks, . _ + @ and -, at most 200")
]
Sha256: TypeAlias = Annotated[str, spelled(r"[0-9a-f]{64}", "takes the 64 hex digits of a SHA-256")]


def digest(declared: dict[str, Any]) -> str:
    """Return the SHA-256 of a declaration, 64 hex digits, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(declared, sort_keys=True).encode()).hexdigest()


def is_token(text: str) -> bool:
    """Return whether `text` can be one token of a subject, of a key and of an object's name, and a file name."""
    return re.fullmatch(TOKEN, text) is not None


class Spec(BaseModel):
    """Base of declarations: immutable, unknown keys are errors, and so are numbers that json does not have."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_Spec = TypeVar("_Spec", bound=Spec)


def parse_spec(spec: type[_Spec], text: str, source: str, hint: str) -> _Spec:
    """A spec from the text of its TOML file; `source` names it in errors. Raises UsageError, by field."""
    try:
        return spec.model_validate(parse_toml(text))
    except TomlError as error:
        raise UsageError(f"{source}: not TOML, {error}", hint) from error
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{source}, {format_field_error(first)}", hint_of(first, spec, hint)) from error
