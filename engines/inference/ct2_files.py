"""Reads what a file `model.bin` of CTranslate2 is: its kind, and the shapes of its variables. Weights are not read.

Source: OpenNMT/CTranslate2, python/ctranslate2/specs/model_spec.py, binary versions 4 to 6: numbers are little-endian,
a text is its length with the zero behind it in 16 bits, and the text.
"""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from schemas.errors import ModelError

MODEL_FILE = "model.bin"
DECODER = "TransformerDecoderSpec"  # the kind of a language model
_VERSIONS = range(4, 7)
_MOST_VARIABLES = 1 << 20
_FLOAT_BYTES = 4
_HINT = "convert it again, or download it again"


@dataclass(frozen=True, slots=True)
class BinaryModel:
    """`kind` is the name of its specification, as in `WhisperSpec`; `shapes` those of its variables, by name."""

    kind: str
    shapes: Mapping[str, tuple[int, ...]]


def read_binary(path: Path) -> BinaryModel:
    """Read the descriptions in a `model.bin`. Raises ModelError: it cannot be read, is damaged, or is no such file."""
    try:
        with path.open("rb") as file:
            return _read(file, path)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", "check the path") from error
    except (struct.error, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is damaged, or no model of CTranslate2", _HINT) from error


def kind_of(path: Path) -> str:
    """Return the kind of network of a `model.bin`; "" for a file that `read_binary` refuses."""
    try:
        with path.open("rb") as file:
            return _kind(file, path)
    except (OSError, ModelError, struct.error, UnicodeDecodeError):
        return ""


def token_bytes(binary: BinaryModel, name: str) -> int:
    """Return the bytes of the keys and values of one token, as float32. Raises ModelError: it is no such network."""
    queries_and_keys = binary.shapes.get("decoder/layer_0/self_attention/linear_0/weight", ())
    output = binary.shapes.get("decoder/layer_0/self_attention/linear_1/weight", ())
    if binary.kind != DECODER or len(queries_and_keys) != 2 or len(output) != 2:
        raise ModelError(f"{name}: {MODEL_FILE} lacks weights of a language model", _HINT)
    both = queries_and_keys[0] - output[1]  # keys and values
    return blocks(binary) * (both if both > 0 else 2 * output[0]) * _FLOAT_BYTES


def blocks(binary: BinaryModel) -> int:
    """Return the number of blocks of a decoder."""
    return len({each[1] for name in binary.shapes if (each := re.match(r"decoder/layer_(\d+)/", name))})


def _kind(file: BinaryIO, path: Path) -> str:
    [version] = _numbers(file, "I")
    if version not in _VERSIONS:
        known = f"versions {_VERSIONS[0]} to {_VERSIONS[-1]} are known"
        raise ModelError(f"{path} is no model of CTranslate2, or of version {version}: {known}", _HINT)
    return _text(file)


def _read(file: BinaryIO, path: Path) -> BinaryModel:
    size = path.stat().st_size
    kind = _kind(file, path)
    _, count = _numbers(file, "II")
    if count > _MOST_VARIABLES:
        raise ModelError(f"{path} is damaged: it has {count} variables", _HINT)
    shapes: dict[str, tuple[int, ...]] = {}
    for _ in range(count):
        name = _text(file)
        [rank] = _numbers(file, "B")
        shapes[name] = _numbers(file, f"{rank}I")
        _, nbytes = _numbers(file, "BI")
        if file.seek(nbytes, 1) > size:
            raise ModelError(f"{path} is damaged: it ends within its variable {name[:100]}", _HINT)
    return BinaryModel(kind, shapes)


def _numbers(file: BinaryIO, form: str) -> tuple[int, ...]:
    return struct.unpack(f"<{form}", file.read(struct.calcsize(f"<{form}")))


def _text(file: BinaryIO) -> str:
    [length] = _numbers(file, "H")
    data = file.read(length)
    if len(data) != length:
        raise struct.error("it ends within a text")
    return data.rstrip(b"\0").decode()
