"""Reads .safetensors files: a header in JSON, and arrays behind it. Nothing in such a file is run.

Format: huggingface/safetensors, README.md: eight bytes with the header's size, the header, then the bytes of all
tensors, little-endian, without gaps.
"""

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from engines.part import Array
from schemas.errors import ModelError

_MOST_HEADER_BYTES = 100_000_000  # the limit of the format
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04")  # of torch
_AGAIN = "download it again"


class Safetensors:
    """A file; `names` are those of its tensors, `metadata` texts. Raises ModelError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                first = file.read(8)
                if first[:4] == _PICKLES[0] or first[:2] in _PICKLES:
                    raise ModelError(f"{path} is a pickle, which may run a program", "get it as .safetensors")
                length = int.from_bytes(first, "little")
                if len(first) < 8 or length > min(size - 8, _MOST_HEADER_BYTES):
                    raise ModelError(f"{path} is no safetensors file, or its end is missing", _AGAIN)
                header = file.read(length)
        except OSError as error:
            raise ModelError(f"cannot read {path}: {error.strerror}", "check the path") from error
        self._begin, self._size = 8 + length, size
        try:
            found = json.loads(header)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{path}: its header is no JSON", _AGAIN) from error
        if not isinstance(found, dict):
            raise ModelError(f"{path}: its header is no JSON object", _AGAIN)
        metadata = found.pop("__metadata__", None)
        self.metadata: Mapping[str, Any] = metadata if isinstance(metadata, dict) else {}
        self._tensors: dict[str, Any] = found

    @property
    def names(self) -> list[str]:
        """The names of the tensors, sorted."""
        return sorted(self._tensors)

    @property
    def is_half(self) -> bool:
        """Whether most of its tensors are in float16."""
        halves = sum(isinstance(each, dict) and each.get("dtype") == "F16" for each in self._tensors.values())
        return bool(2 * halves > len(self._tensors))

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor. Raises ModelError."""
        try:
            return tuple(int(each) for each in self._tensors[name]["shape"])
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise ModelError(f"{self._path}: its header does not describe {name[:200]}", _AGAIN) from error

    def array(self, name: str) -> Array:
        """Return a tensor of floats as float32. Raises ModelError."""
        described = self._tensors[name]
        try:
            kind, shape = str(described["dtype"]), [int(each) for each in described["shape"]]
            begin, end = (int(each) for each in described["data_offsets"])
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise ModelError(f"{self._path}: its header does not describe {name[:200]}", _AGAIN) from error
        if kind not in _DTYPES:
            raise ModelError(f"{self._path}: {name[:200]} has the type {kind[:20]}", "get it in float16")
        dtype = np.dtype(_DTYPES[kind])
        inside = 0 <= begin <= end <= self._size - self._begin
        if min(shape, default=0) < 0 or not inside or prod(shape) * dtype.itemsize != end - begin:
            raise ModelError(f"{self._path}: {name[:200]} does not lie in the file", _AGAIN)
        try:
            with self._path.open("rb") as file:
                file.seek(self._begin + begin)
                found = np.frombuffer(file.read(end - begin), dtype).reshape(shape)
        except (OSError, ValueError) as error:
            raise ModelError(f"{self._path}: {name[:200]} cannot be read", _AGAIN) from error
        if kind == "BF16":
            return (found.astype(np.uint32) << 16).view(np.float32).reshape(shape)
        return found.astype(np.float32)
