"""What is wrong with the parameters of a request, in words: those that are not known, and wrong values."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fastapi import Request

from schemas.errors import reason_of
from schemas.fields import clean_name
from schemas.known_fields import fields_at
from schemas.text import nearest

_SHOWN = 40  # names in a message
_NO_JSON = frozenset(("model_attributes_type", "model_type", "dict_type", "dict_attributes_type"))


def not_known(kind: str, name: str, known: Collection[str]) -> str:
    """Say that there is no parameter of this name, and what there is: the nearest one, or all."""
    what = f"there is no {kind} `{clean_name(name)}`"
    if near := nearest(name, known):
        return f"{what}: did you mean `{near}`?"
    there = sorted(known)
    rest = f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else ""
    return f"{what}: there are {', '.join(there[:_SHOWN])}{rest}" if there else f"{what}: there are none"


def unknown_fields(request: Request, details: Sequence[Mapping[str, Any]]) -> list[str]:
    """What to say of each field that is not known, from pydantic's errors of a request."""
    body = getattr(request.scope.get("route"), "body_field", None)
    model = None if body is None else body.field_info.annotation
    unknown = [tuple(detail["loc"]) for detail in details if detail["type"] == "extra_forbidden"]
    return [not_known("field", ".".join(map(str, loc[1:])), _beside(model, loc[1:])) for loc in unknown]


def wrong_fields(details: Sequence[Mapping[str, Any]]) -> list[str]:
    """What to say of each value that is wrong."""
    return [f"{clean_name(place_of(detail))}: {_reason(detail)}" for detail in details]


def place_of(detail: Mapping[str, Any]) -> str:
    """Where in a request one of pydantic's errors is."""
    return ".".join(str(part) for part in detail["loc"][1:]) or str(detail["loc"][0])


def _reason(detail: Mapping[str, Any]) -> str:
    if detail["type"] == "json_invalid":
        return f"is no JSON: {str(detail.get('ctx', {}).get('error', ''))[:200]}"
    if tuple(detail["loc"]) == ("body",) and detail["type"] in _NO_JSON:
        return "is no object of JSON: send one, with the header Content-Type: application/json"
    if detail.get("msg", "").startswith("Value error, Expected UploadFile"):
        return no_file(str(detail["loc"][-1]))
    return reason_of(detail)


def no_file(field: str) -> str:
    """What to say of a field that is a text in place of a file."""
    return f"is no file: send it as a part with a filename, as curl does with -F {field}=@FILE"


def _beside(annotation: Any, place: Sequence[Any]) -> list[str]:
    """The fields that stand where an unknown one does; with its own prefix, as it is named."""
    before = "".join(f"{part}." for part in place[:-1])
    return [f"{before}{name}" for name in fields_at(annotation, place[:-1])]
