"""A part in memory: named arrays and where they belong."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.messages import ArraySpec, PartMessage, PartMeta
from schemas.wire import Buffer

Array = npt.NDArray[Any]
Tick = Callable[[], None]
"""Called from inside a step whenever it has moved (a frame, a batch): a step that is slow is not stuck. Any thread."""


def no_tick() -> None:
    """The tick of a step that nothing watches."""


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
        """The same part, with copies of what lies on a card."""
        return self.with_arrays({name: np.asarray(array) for name, array in self.arrays.items()})

    def with_arrays(self, arrays: dict[str, Array], **meta: Any) -> "Part":
        """The same part holding other arrays, and with changed fields of its meta."""
        return replace(self, arrays=arrays, meta=self.meta.model_copy(update=meta) if meta else self.meta)


def pack_arrays(arrays: dict[str, Array]) -> tuple[dict[str, ArraySpec], list[Buffer]]:
    """Specs and buffers of arrays for the wire; contiguous arrays are not copied."""
    specs: dict[str, ArraySpec] = {}
    buffers: list[Buffer] = []
    for name, array in arrays.items():
        specs[name] = ArraySpec(dtype=array.dtype.str, shape=array.shape, buffer=len(buffers))
        buffers.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return specs, buffers


def unpack_arrays(specs: dict[str, ArraySpec], buffers: list[memoryview]) -> dict[str, Array]:
    """Read-only arrays that are views into the buffers. Raises ValueError when a spec does not fit its buffer."""
    return {
        name: np.frombuffer(buffers[spec.buffer], dtype=np.dtype(spec.dtype)).reshape(spec.shape)
        for name, spec in specs.items()
    }


def encode_part(part: Part) -> bytes:
    """The body of a part's message."""
    specs, buffers = pack_arrays(part.arrays)
    return PartMessage(meta=part.meta, arrays=specs).encode(buffers)


def decode_part(message: PartMessage, buffers: list[memoryview]) -> Part:
    """A part from its message."""
    return Part(message.meta, unpack_arrays(message.arrays, buffers))
