"""Finds the fields that a model of pydantic has where a wrong one stands, and proposes the one that was meant."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from schemas.text import did_you_mean


def hint_of(detail: Mapping[str, Any], model: type[BaseModel], otherwise: str = "") -> str:
    """Return a hint for an entry of pydantic's errors of `model`: of an unknown field, what was probably meant."""
    if detail["type"] != "extra_forbidden":
        return otherwise
    *place, name = detail["loc"]
    return did_you_mean(str(name), fields_at(model, place), otherwise)


def fields_at(annotation: Any, place: Sequence[Any]) -> list[str]:
    """Return the fields that a model has at a place, as pydantic's errors have it: of all its kinds, for a union."""
    models = list(_models(annotation))
    for part in place:
        inner = [each.model_fields[part].annotation for each in models if part in each.model_fields]
        if inner:  # else it is the number of an item, a key, or a member of a union
            models = [model for each in inner for model in _models(each)]
    return [name for model in models for name in names_of(model)]


def names_of(model: type[BaseModel]) -> list[str]:
    """Return the names that fields of a model have outside."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models in an annotation, those of lists and unions too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is not None:
        for each in get_args(annotation):
            yield from _models(each)
