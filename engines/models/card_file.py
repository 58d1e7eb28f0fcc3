"""Reads the file of a model card."""

from pathlib import Path
from typing import Any

from schemas.errors import ModelError
from schemas.toml import TomlError, parse_toml

_SEE = "see docs/models.md"


def read_file(path: Path, kind: str = "") -> bytes:
    """Return the content of a file. Raises ModelError; `kind` is what the file is, for errors."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {kind and f'{kind} '}{path}: {error.strerror}", "check the path") from error


def read_card(path: Path) -> dict[str, Any]:
    """Return the fields of a model card. Raises ModelError: it cannot be read, is not TOML, or is a pipeline's file."""
    try:
        fields = parse_toml(read_file(path, "model card"))
    except TomlError as error:
        raise ModelError(f"model card {path}: not TOML, {error}", _SEE) from error
    if "stage" in fields:  # every pipeline has stages, and no card has
        hint = f"rename it; a model card has [[inputs]] and [[heads]], {_SEE}"
        raise ModelError(f"{path} is a pipeline, not the card of a model", hint)
    return fields
