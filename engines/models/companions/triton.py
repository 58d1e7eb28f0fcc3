"""Reads Triton's config.pbtxt: names, layouts, sizes and labels. Its text format is parsed here, without protobuf.

The grammar: https://protobuf.dev/reference/protobuf/textformat-spec/, of which a configuration uses messages, lists,
strings, numbers and names.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from engines.models.companions.base import Line, Model, Sure, text_of
from engines.models.companions.labels import parse as parse_labels
from schemas.errors import ModelError

_TOKEN = re.compile(r"""\s+|\#[^\n]*|("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[{}\[\]<>:,;]|[^\s{}\[\]<>:,;"'#]+)""")
_DEEPEST = 32  # messages within messages
_LAYOUTS = {"FORMAT_NCHW": "nchw", "FORMAT_NHWC": "nhwc"}


def look(model: Model) -> Sequence[Line]:
    """Name, layout and size of the picture, labels of the first output that has any."""
    path = next(model.beside("config.pbtxt"), None)
    if path is None and (above := model.folder.resolve().parent / "config.pbtxt").is_file():
        path = above if model.folder.resolve().name.isdigit() else None  # MODEL/1/model.onnx
    if path is None:
        return []
    config = parse(text_of(path), str(path))
    lines = [Line("name", each, Sure.certain, f"{path.name}: name") for each in config.get("name", [])[:1]]
    picture = model.picture
    for given in config.get("input", []):
        number = next((at for at, port in enumerate(model.inputs) if [port.name] == given.get("name")), None)
        if number is None:
            continue
        why = f"{path.name}: input {model.inputs[number].name}"
        layout = _LAYOUTS.get(str((given.get("format") or [""])[0]))
        if layout:
            lines.append(Line(f"inputs.{number}.layout", layout, Sure.certain, f"{why}, format"))
        if picture is not None and picture.number == number and picture.height is None:
            dims = [int(dim) for dim in given.get("dims", [])][-3:]
            sides = dims[:2] if picture.layout == "nhwc" else dims[1:]
            if len(dims) == 3 and min(sides) > 0:
                lines.append(Line(f"inputs.{number}.size", sides, Sure.certain, f"{why}, dims"))
    for given in config.get("output", []):
        for name in given.get("label_filename", [])[:1]:
            labels = path.parent / str(name)
            if labels.resolve().parent == path.parent.resolve() and labels.is_file():
                found = parse_labels(text_of(labels))
                return [*lines, Line("heads.0.labels", found, Sure.certain, f"{path.name}: label_filename = {name}")]
    return lines


def parse(text: str, name: str) -> dict[str, list[Any]]:
    """A message as its fields, each a list of what it was given: text, numbers, names, messages. Raises ModelError."""
    try:
        return _message(_tokens(text), "", 0)
    except (ValueError, SyntaxError, StopIteration, RuntimeError) as error:
        raise ModelError(f"{name} is not a Triton configuration", "correct it, or move it away") from error


def _tokens(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError(at)
        if found[1]:
            yield found[1]
        at = found.end()


def _message(tokens: Iterator[str], end: str, depth: int) -> dict[str, list[Any]]:
    if depth > _DEEPEST:
        raise ValueError(depth)
    fields: dict[str, list[Any]] = {}
    for token in tokens:
        if token == end:
            return fields
        if token in (",", ";"):
            continue
        if not re.fullmatch(r"\w+", token):
            raise ValueError(token)
        found = next(tokens)
        found = next(tokens) if found == ":" else found
        fields.setdefault(token, []).extend(_list(tokens, depth) if found == "[" else [_value(found, tokens, depth)])
    if end:
        raise ValueError(end)
    return fields


def _list(tokens: Iterator[str], depth: int) -> Iterator[Any]:
    for token in tokens:
        if token == "]":
            return
        if token != ",":
            yield _value(token, tokens, depth)
    raise ValueError


def _value(token: str, tokens: Iterator[str], depth: int) -> Any:
    if token in ("{", "<"):
        return _message(tokens, "}" if token == "{" else ">", depth + 1)
    if token[0] in "\"'":
        return ast.literal_eval(token)
    if token in ("}", "]", ">", ":"):
        raise ValueError(token)
    with suppress(ValueError):
        return int(token, 0)
    with suppress(ValueError):
        return float(token)
    return token
