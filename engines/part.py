"""A part in memory: named arrays and where they belong."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from schemas.errors import MediaError, ModelError
from schemas.messages import ArraySpec, PartMessage, PartMeta
from schemas.wire import Buffer

Array = npt.NDArray[Any]
Tick = Callable[[], None]
"""Called from inside a step whenever it has moved (a frame, a batch): a step that is slow is not stuck. Any thread."""
_FRAMES = re.compile(r"pixels|plane\d")  # arrays with a row a frame, which `index` makes windows of


def no_tick() -> None:
    """The tick of a step without a watchdog."""


def holds_frames(name: str) -> bool:
    """Whether the array of that name has a row a frame, which `index` points to."""
    return _FRAMES.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Part:
    """A bounded slice of a segment after decoding: the unit that moves between stages.

    `arrays` by stage: decode leaves `frame0`, `frame1` ... (see engines.media.frames) and `index`; preprocess `pixels`
    or `plane0` ...; infer its outputs. `index [W, T]` int32 says which rows of `pixels` each window looks at.
    """

    meta: PartMeta
    arrays: dict[str, Array]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays.values())

    def on_host(self) -> "Part":
        """The same part, with copies of what lies on a GPU."""
        return self.with_arrays({name: np.asarray(array) for name, array in self.arrays.items()})

    def with_arrays(self, arrays: dict[str, Array], **meta: Any) -> "Part":
        """The same part holding other arrays, and with changed fields of its meta."""
        return replace(self, arrays=arrays, meta=self.meta.model_copy(update=meta) if meta else self.meta)


def not_finite(part: Part) -> dict[str, int]:
    """How many rows of each array of floats have values that are NaN or infinite, without arrays that have none."""
    counts = {}
    for name, array in part.arrays.items():
        if array.dtype.kind == "f" and array.ndim and array.size:
            finite = np.isfinite(np.asarray(array)).reshape(len(array), -1).all(axis=1)
            counts[name] = int(len(finite) - finite.sum())
    return {name: count for name, count in counts.items() if count}


def pack_arrays(arrays: dict[str, Array]) -> tuple[dict[str, ArraySpec], list[Buffer]]:
    """Specs and buffers of arrays for the wire; contiguous arrays are not copied.

    Raises ModelError for arrays that cannot be sent: text, objects, complex numbers, more than 32 dimensions.
    """
    specs: dict[str, ArraySpec] = {}
    buffers: list[Buffer] = []
    for name, array in arrays.items():
        try:
            specs[name] = ArraySpec.model_validate(
                {"dtype": array.dtype.str, "shape": array.shape, "buffer": len(buffers)}
            )
        except ValidationError as error:
            what = f"array `{name}`, {array.dtype}, shape {list(array.shape)}, can not travel between stages"
            raise ModelError(what, "give numbers of at most 8 bytes, in at most 32 dimensions") from error
        buffers.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return specs, buffers


def unpack_arrays(specs: dict[str, ArraySpec], buffers: list[memoryview]) -> dict[str, Array]:
    """Read-only arrays that are views into the buffers of a message that `schemas.messages.decode` gave."""
    return {
        name: np.frombuffer(buffers[spec.buffer], dtype=np.dtype(spec.dtype)).reshape(spec.shape)
        for name, spec in specs.items()
    }


def encode_part(part: Part) -> bytes:
    """The body of a part's message."""
    specs, buffers = pack_arrays(part.arrays)
    return PartMessage(meta=part.meta, arrays=specs).encode(buffers)


def decode_part(message: PartMessage, buffers: list[memoryview]) -> Part:
    """A part from its message. Raises MediaError when its windows are none of its frames."""
    part = Part(message.meta, unpack_arrays(message.arrays, buffers))
    _check_index(part)
    return part


def _check_index(part: Part) -> None:
    """NumPy would count a negative row from the end, and a kernel on a GPU reads beyond the array."""
    index = part.arrays.get("index")
    if index is None:
        return
    if index.ndim != 2 or index.dtype != np.int32 or len(index) != len(part.meta.pts):
        windows = f"{len(part.meta.pts)} windows"
        raise MediaError(f"`index` of a part of {windows} is {index.dtype}, shape {list(index.shape)}")
    for name, array in part.arrays.items():
        rows = len(array) if array.ndim else 0
        if (holds_frames(name) or name == "frame_info") and index.size and not 0 <= index.min() <= index.max() < rows:
            raise MediaError(f"`index` of a part points outside the {rows} frames of `{name}`")
