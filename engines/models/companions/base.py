"""Shared by the companions: a line of a proposed card, and the model that they read."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Protocol

from engines.part import Array
from schemas.errors import ModelError
from schemas.text import size

_FREE = "pixel_values"  # exports by optimum leave all four dimensions of this input free
MOST_BYTES = 64 << 20  # of a companion; the largest known, selected_tags.csv, has 300 kB


class Sure(IntEnum):
    """How certain a line is: a file states it, the model's form shows it, or most such models want it."""

    guess = 0
    likely = 1
    certain = 2


@dataclass(frozen=True, slots=True)
class Line:
    """One field of a card, as in `inputs.0.mean`; its value; how certain it is; and the reason."""

    field: str
    value: Any
    sure: Sure
    why: str


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output as the graph declares it. A free dimension is a name, or "" without one."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """The input that takes pictures: which one, in which layout; height and width are None where they are free."""

    number: int
    layout: str  # nchw or nhwc
    channels: int
    height: int | None
    width: int | None
    batch: bool  # whether the graph has one

    @property
    def path(self) -> str:
        """The path of this input in a card."""
        return f"inputs.{self.number}"


@dataclass(frozen=True)
class Model:
    """What companions read: a model's file and the files beside it, its graph, and its answers to a test picture.

    `answers`: for the values "unit" (0 ... 1), "bytes" (0 ... 255) and "signed" (-1 ... 1) of the picture the outputs
    by name; empty where the model could not be run. `picture_values [H, W, 3]`: that picture, 0 ... 1, as it was fed.
    `first`: the kinds of the first nodes behind the picture input. `parameters`: how many numbers the graph has.
    """

    path: Path
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    producer: str = ""
    first: tuple[str, ...] = ()
    answers: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    picture_values: Array | None = None
    parameters: int = 0

    @property
    def folder(self) -> Path:
        """The folder of the model and of the files beside it."""
        return self.path.parent

    @property
    def picture(self) -> Picture | None:
        """The first input that looks like a picture."""
        return next((found for number, port in enumerate(self.inputs) if (found := _picture(number, port))), None)

    @property
    def shapes(self) -> dict[str, tuple[int | str, ...]]:
        """Shapes of the outputs: those of an answer to one row, or those that the graph declares."""
        seen = self.answers.get("unit", {})
        return {port.name: tuple(seen[port.name].shape) if port.name in seen else port.shape for port in self.outputs}

    def answer(self, name: str) -> Array | None:
        """An output for the test picture with values 0 ... 1."""
        return self.answers.get("unit", {}).get(name)

    def beside(self, *names: str) -> Iterator[Path]:
        """The files of these names beside the model; a name may be a pattern. First those that carry its own name."""
        for name in names:
            for pattern in (f"{self.path.stem}.{name}", f"{self.path.stem}_{name}", name):
                yield from (each for each in sorted(self.folder.glob(pattern)) if each.is_file())

    def configured(self, name: str) -> Path | None:
        """The file of that name beside the model, or in the folder above `onnx/`, as in models for transformers.js."""
        folder = self.folder.resolve()
        above = folder.parent / name
        found = next(self.beside(name), None)
        return found or (above if folder.name == "onnx" and above.is_file() else None)


class Companion(Protocol):
    """Reads one kind of file beside a model, or one property of its graph."""

    def __call__(self, model: Model) -> Sequence[Line]:
        """The lines that it finds; none without such a file or property. Raises ModelError when the file is broken."""
        ...


def text_of(path: Path) -> str:
    """The text of a companion. Raises ModelError."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ModelError(f"{path} has more than {size(MOST_BYTES)}", "move it away from the model")
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", "check its permissions, or move it away") from error
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is not UTF-8 text", "save it as UTF-8, or move it away from the model") from error


def json_of(path: Path) -> dict[str, Any]:
    """A companion's json object. Raises ModelError."""
    return _object(text_of(path), str(path), "correct it, or move it away from the model")


def lines_of_metadata(model: "Model", key: str, table: str) -> list[Line]:
    """Fields of a card's table, which rigflow put into a model's metadata when it was taken. Raises ModelError."""
    if key not in model.metadata:
        return []
    found = _object(model.metadata[key], f"metadata {key} of the model", "export the model again")
    return [Line(f"{table}.{name}", value, Sure.certain, "the files beside the model") for name, value in found.items()]


def _object(text: str, what: str, hint: str) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        found = json.loads(text)
        if isinstance(found, dict):
            return found
    raise ModelError(f"{what} is not a json object", hint)


def _picture(number: int, port: Port) -> Picture | None:
    if port.dtype not in ("float32", "float16", "float64", "uint8") or len(port.shape) not in (3, 4):
        return None
    batch = len(port.shape) == 4
    first, middle, last = port.shape[-3:]
    for layout, channels, shape in (("nchw", first, (middle, last)), ("nhwc", last, (first, middle))):
        height, width = (side if isinstance(side, int) and side > 0 else None for side in shape)
        if channels in (1, 3) and all(side is None or side > 4 for side in (height, width)):
            if not batch and (height is None or width is None):  # [batch, samples, 1] and the like
                continue
            return Picture(number, layout, int(channels), height, width, batch)
    if port.name == _FREE and batch and all(isinstance(size, str) for size in port.shape):
        return Picture(number, "nchw", 3, None, None, True)
    return None
