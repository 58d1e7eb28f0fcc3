"""Fields that a person gives as FIELD=VALUE: the value is TOML, or else text."""

from collections.abc import Sequence
from typing import Any

from schemas.errors import UsageError
from schemas.toml import TomlError, parse_toml


def parse_fields(given: Sequence[str], option: str, example: str) -> dict[str, Any]:
    """Return the fields by name. `option` is what they are given by, `example` one of them. Raises UsageError."""
    fields: dict[str, Any] = {}
    for each in given:
        field, equals, text = each.partition("=")
        if not field.strip() or not equals:
            raise UsageError(f"{option} {each}: no FIELD=VALUE", f"say, for example, {option} {example}")
        try:
            fields[field.strip()] = parse_toml(f"value = {text}")["value"]
        except TomlError:
            fields[field.strip()] = text.strip()
    return fields
