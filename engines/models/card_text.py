"""Writes model cards as TOML that a user can read and change."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from engines.models.pictures import is_clear
from schemas.model import InputCard, ModelCard, ModelSpec, TensorSpec


def card_toml(card: ModelCard | ModelSpec) -> str:
    """A model card as TOML; `engines.models.catalogue.load_model` reads the same back."""
    if isinstance(card, ModelSpec):
        card = card_of(card)
    head = card.model_dump(mode="json", include={"name", "version", "description", "sha256"})
    head |= card.model_dump(mode="json", include={"backend", "precision", "batch"}, exclude_defaults=True)
    lines = [_toml(head)]
    for title, tables in (("inputs", card.inputs), ("outputs", card.outputs)):
        for each in tables:
            lines.append(f"[[{title}]]\n{_toml(each.model_dump(mode='json', exclude_unset=True, exclude_none=True))}")
    for file in card.files:
        lines.append(f"[[files]]\n{_toml(file.model_dump())}")
    if card.text is not None:
        lines.append(f"[text]\n{_toml(card.text.model_dump(exclude_defaults=True))}")
    if card.speech is not None:
        lines.append(f"[speech]\n{_toml(card.speech.model_dump(mode='json', exclude_defaults=True))}")
    if card.recogniser is not None:
        lines.append(f"[recogniser]\n{_toml(card.recogniser.model_dump(mode='json', exclude_defaults=True))}")
    for head_spec in card.heads:
        lines.append(f"[[heads]]\n{_toml({'kind': head_spec.kind, **head_spec.options})}")
    return "\n".join(lines)


def card_of(spec: ModelSpec) -> ModelCard:
    """The card of a model that travels already: with its ONNX file it makes the same again."""
    same = spec.model_dump(include={"name", "version", "description", "sha256", "backend", "precision"})
    inputs = tuple(map(_input, spec.inputs))
    kept = {name: getattr(spec, name) for name in ("outputs", "heads", "files", "text", "speech", "recogniser")}
    return ModelCard(**same, inputs=inputs, **kept)


def _input(tensor: TensorSpec) -> InputCard:
    fields: dict[str, Any] = {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": tensor.shape,
        "range": tensor.range,
        "state": tensor.state,
    }
    if tensor.picture is not None:
        fields |= tensor.picture.model_dump(exclude_defaults=True, exclude={"layout"}) | {"size": tensor.picture.size}
        fields |= {"colours": "gray"} if tensor.picture.layout == "gray" else {"colours": "rgb", "layout": "nhwc"}
    elif tensor.sound is not None:
        fields |= tensor.sound.model_dump(exclude_defaults=True)
    elif is_clear(tensor, alone=True):
        fields["reads"] = tensor.name
    return InputCard(**{name: value for name, value in fields.items() if value is not None})


def _toml(fields: Mapping[str, object]) -> str:
    return "".join(f"{line}\n" for line in _pairs(fields))


def _pairs(fields: Mapping[str, object]) -> Iterator[str]:
    for name, value in fields.items():
        if value is not None:
            yield f"{name if re.fullmatch('[A-Za-z0-9_-]+', name) else json.dumps(name)} = {toml_value(value)}"


def toml_value(value: object) -> str:
    """Strings, numbers and truths look in TOML as in json; tables stand in one line."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(_pairs(value))} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")
