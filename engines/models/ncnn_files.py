"""Reads ncnn's .param, which has a network's layers, and .bin, which has their weights.

The formats: https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure, version of 2026-01.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from engines.part import Array
from schemas.errors import ModelError

Params: TypeAlias = Mapping[int, "float | list[float]"]
_MAGIC = "7767517"
_HALF, _PLAIN, _TAGGED = 0x01306B47, 0, 0x0002C056  # what weights begin with: float16, float32 and float32 again
_LIST = -23300  # a parameter that is a list has this minus its number
CONVERT_HINT = "export the network to ONNX from where it was trained"


@dataclass(frozen=True, slots=True)
class Layer:
    """A line of a .param file."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: Params

    def number(self, key: int, default: float = 0.0) -> float:
        """A parameter that is one number."""
        value = self.params.get(key, default)
        if isinstance(value, list):
            raise ModelError(f"layer {self.name}: parameter {key} is a list", CONVERT_HINT)
        return value

    def integer(self, key: int, default: int = 0) -> int:
        """A parameter that is a whole number."""
        return int(self.number(key, default))

    def numbers(self, key: int) -> list[float]:
        """A parameter that is a list; empty where it is missing."""
        value = self.params.get(key, [])
        return value if isinstance(value, list) else [value]


def read_layers(text: bytes, path: Path) -> Iterator[Layer]:
    """The layers of a .param file in its order. Raises ModelError."""
    broken = ModelError(f"{path} is not ncnn's text format", "give the .param, not the .param.bin")
    lines = text.decode("ascii", "replace").splitlines()
    if not lines or lines[0].strip() != _MAGIC:
        raise broken
    for line in lines[2:]:
        if not (words := line.split()):
            continue
        try:
            kind, name, takes, gives = words[0], words[1], int(words[2]), int(words[3])
            blobs, rest = words[4 : 4 + takes + gives], words[4 + takes + gives :]
            params = dict(_parameter(each) for each in rest)
        except (ValueError, IndexError) as error:
            raise broken from error
        yield Layer(kind, name, tuple(blobs[:takes]), tuple(blobs[takes:]), params)


def _parameter(text: str) -> tuple[int, "float | list[float]"]:
    key, _, value = text.partition("=")
    number = int(key)
    if number <= _LIST:
        return _LIST - number, [float(each) for each in value.split(",")[1:]]
    return number, float(value)


class Weights:
    """A .bin file, read from its beginning to its end."""

    def __init__(self, body: bytes, path: Path) -> None:
        self._body, self._path, self._at = body, path, 0

    def plain(self, count: int) -> Array:
        """So many float32, as a bias has them."""
        return self._taken(count, "<f4")

    def tagged(self, count: int) -> Array:
        """Return `count` weights after a tag that gives their format, padded to 4 bytes."""
        tag = int(self._taken(1, "<u4")[0])
        if tag == _HALF:
            found = self._taken(count, "<f2").astype(np.float32)
            self._at += -self._at % 4
            return found
        if tag in (_PLAIN, _TAGGED):
            return self._taken(count, "<f4")
        raise ModelError(f"{self._path} has int8 or quantised weights", "give the float16 or float32 network")

    def check_all_read(self) -> None:
        """Raise ModelError unless every byte had its layer."""
        if self._at != len(self._body):
            raise ModelError(
                f"{self._path} has {len(self._body)} bytes, its .param {self._at}", "give both of one export"
            )

    def _taken(self, count: int, dtype: str) -> Array:
        nbytes = count * np.dtype(dtype).itemsize
        if count < 0 or self._at + nbytes > len(self._body):
            raise ModelError(f"{self._path} is shorter than its .param says", "give both files of one export")
        found = np.frombuffer(self._body, dtype, count, self._at)
        self._at += nbytes
        return found
