"""A part in memory: named arrays, and their position in the media."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from engines.ragged import Ragged
from schemas.arrays import ArraySpec
from schemas.errors import MediaError, ModelError, PipelineError, RigflowError
from schemas.media import Item
from schemas.parts import PartMessage, PartMeta
from schemas.wire import Buffer

Array = npt.NDArray[Any]
Value = Array | Ragged
Tick = Callable[[], None]
"""Called from inside a step after each frame or batch, so that a slow step is not taken for a stuck one. Any thread."""
_FRAMES = re.compile(r"(pixels|plane\d)(@.*)?|frame_size")  # arrays with a row a frame, which `index` makes windows of


def no_tick() -> None:
    """Do nothing: the tick of a step without a watchdog."""


def holds_frames(name: str) -> bool:
    """Return whether the array of that name has one row for each frame, which `index` refers to."""
    return _FRAMES.fullmatch(name) is not None


def is_on_gpu(value: Value) -> bool:
    """Return whether a value is an array on a GPU, which NumPy accepts as its own."""
    return not isinstance(value, np.ndarray | Ragged)


@dataclass(frozen=True, slots=True)
class Part:
    """A bounded slice of a segment after decoding: the unit that moves between stages.

    Decode makes pictures: `pixels`, `plane0` ... or `pixels@stage.input`; or `frame0` ... if another worker resizes
    (see engines.media.frames). `index [W, T]` int32 has the rows of those that each window consists of. Operators add
    arrays with one row for each window.
    """

    meta: PartMeta
    arrays: dict[str, Value]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays.values())

    def on_host(self) -> "Part":
        """Return the same part with host copies of the arrays that are on a GPU."""
        return self.with_arrays({name: _on_host(value) for name, value in self.arrays.items()})

    def array(self, name: str) -> Array:
        """Return the array of that name. Raises PipelineError if there is none, or if it is ragged."""
        value = self.arrays.get(name)
        if value is None or isinstance(value, Ragged):
            state = "has no array" if value is None else "has rows of different lengths in"
            raise PipelineError(f"a part {state} `{name}`", f"it has {', '.join(sorted(self.arrays)) or 'none'}")
        return value

    def without_warm_up(self) -> "Part":
        """The same part without the windows of its segment's warm-up, and without frames that they alone look at."""
        first, windows = self.meta.warm_up, len(self.meta.pts)
        if first == 0:
            return self
        index, begin = self.arrays.get("index"), first
        arrays = dict(self.arrays)
        if isinstance(index, np.ndarray):
            begin = int(index[first:].min(initial=index.max(initial=-1) + 1))
            arrays["index"] = index[first:] - begin
        for name, value in self.arrays.items():
            if isinstance(value, Ragged):
                arrays[name] = value.rows(first, windows)
            elif holds_frames(name):
                arrays[name] = value[begin:]
            elif name != "index":
                arrays[name] = value[first:]
        return self.with_arrays(arrays, pts=self.meta.pts[first:], warm_up=0)

    def without_failed(self, errors: Mapping[int, RigflowError], keeps: Sequence[str]) -> "Part":
        """Return a part of items with the arrays `keeps`, without the rows that failed; their items have the error.

        `errors`: by the number of the row; items that failed earlier have no row.
        """
        good = [number for number in range(len(self.meta.pts)) if number not in errors]
        rows = iter(range(len(self.meta.pts)))
        items = [item if item.error else _with_error(item, errors.get(next(rows))) for item in self.meta.items]
        arrays = {name: _taken(self.arrays[name], good) for name in keeps if name in self.arrays}
        pts = tuple(self.meta.pts[number] for number in good)
        counts = {"frames": self.meta.frames - len(errors), "lost": self.meta.lost + len(errors)}
        return self.with_arrays(arrays, items=tuple(items), pts=pts, **counts)

    def with_arrays(self, arrays: Mapping[str, Value], **meta: Any) -> "Part":
        """Return the same part with other arrays, and with these fields of its meta changed."""
        changed = self.meta.model_copy(update=meta) if meta else self.meta
        if type(self) is Part:  # `replace` takes several times as long
            return Part(changed, dict(arrays))
        return replace(self, arrays=dict(arrays), meta=changed)


def _with_error(item: Item, error: RigflowError | None) -> Item:
    return item if error is None else item.model_copy(update={"error": str(error)})


def _taken(value: Value, numbers: Sequence[int]) -> Value:
    return value.take(numbers) if isinstance(value, Ragged) else value[list(numbers)]


def not_finite(part: Part) -> dict[str, int]:
    """Return array name -> number of rows with NaN or infinite values; arrays without such rows are left out."""
    counts = {}
    for name, array in part.arrays.items():
        if isinstance(array, Ragged):
            bad = (
                np.flatnonzero(~_finite_rows(array.values))
                if array.values.size and array.values.dtype.kind == "f"
                else ()
            )
            counts[name] = len({int(np.searchsorted(array.offsets, place, side="right")) for place in bad})
        elif array.dtype.kind == "f" and array.ndim and array.size:
            finite = _finite_rows(np.asarray(array))
            counts[name] = int(len(finite) - finite.sum())
    return {name: count for name, count in counts.items() if count}


def _finite_rows(array: Array) -> Array:
    return np.asarray(np.isfinite(array).reshape(len(array), -1).all(axis=1))


def _on_host(value: Value) -> Value:
    return value if isinstance(value, Ragged) else np.asarray(value)


def pack_arrays(arrays: Mapping[str, Value]) -> tuple[dict[str, ArraySpec], list[Buffer]]:
    """Return specs and buffers of arrays for a message; contiguous arrays are not copied.

    Raises ModelError for arrays that cannot be sent: text, objects, complex numbers, more than 32 dimensions.
    """
    specs: dict[str, ArraySpec] = {}
    buffers: list[Buffer] = []
    for name, value in arrays.items():
        array, offsets = (value.values, value.offsets) if isinstance(value, Ragged) else (value, None)
        spec = {"dtype": array.dtype.str, "shape": array.shape, "buffer": len(buffers)}
        if offsets is not None:
            spec["offsets"] = len(buffers) + 1
        try:
            specs[name] = ArraySpec.model_validate(spec)
        except ValidationError as error:
            what = f"array `{name}`, {array.dtype}, shape {list(array.shape)}, cannot travel between stages"
            raise ModelError(what, "give numbers of at most 8 bytes, in at most 32 dimensions") from error
        buffers.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        if offsets is not None:
            buffers.append(np.ascontiguousarray(offsets, "<i8").view(np.uint8).data)
    return specs, buffers


def unpack_arrays(specs: Mapping[str, ArraySpec], buffers: list[memoryview]) -> dict[str, Array]:
    """Return read-only arrays that are views into the buffers of a message, decoded by `schemas.messages.decode`.

    Raises MediaError for a ragged array, which only parts have.
    """
    values = unpack_values(specs, buffers)
    arrays = {name: value for name, value in values.items() if not isinstance(value, Ragged)}
    if len(arrays) < len(values):
        raise MediaError(
            f"array `{min(values.keys() - arrays)}` has rows of different lengths", "send them as two arrays"
        )
    return arrays


def unpack_values(specs: Mapping[str, ArraySpec], buffers: list[memoryview]) -> dict[str, Value]:
    """Unpack as `unpack_arrays`, ragged arrays too. Raises MediaError if the rows of one do not follow each other."""
    return {name: _unpacked(name, spec, buffers) for name, spec in specs.items()}


def _unpacked(name: str, spec: ArraySpec, buffers: list[memoryview]) -> Value:
    values = np.frombuffer(buffers[spec.buffer], dtype=np.dtype(spec.dtype)).reshape(spec.shape)
    if spec.offsets is None:
        return values
    offsets = np.frombuffer(buffers[spec.offsets], "<i8")
    if offsets[0] != 0 or offsets[-1] != len(values) or (np.diff(offsets) < 0).any():
        raise MediaError(f"the rows of array `{name}` do not follow each other")
    return Ragged(values, offsets)


def encode_part(part: Part) -> bytes:
    """The body of a part's message."""
    specs, buffers = pack_arrays(part.arrays)
    return PartMessage(meta=part.meta, arrays=specs).encode(buffers)


def decode_part(message: PartMessage, buffers: list[memoryview]) -> Part:
    """A part from its message. Raises MediaError when its windows are none of its frames."""
    part = Part(message.meta, unpack_values(message.arrays, buffers))
    _check_index(part)
    return part


def _check_index(part: Part) -> None:
    """NumPy would count a negative row from the end, and a kernel on a GPU reads beyond the array."""
    index = part.arrays.get("index")
    if index is None:
        return
    if isinstance(index, Ragged) or index.ndim != 2 or index.dtype != np.int32 or len(index) != len(part.meta.pts):
        windows = f"{len(part.meta.pts)} windows"
        raise MediaError(f"`index` of a part of {windows} is no int32 array [{len(part.meta.pts)}, T]")
    for name, array in part.arrays.items():
        rows = len(array) if isinstance(array, Ragged) or array.ndim else 0
        if (holds_frames(name) or name == "frame_info") and index.size and not 0 <= index.min() <= index.max() < rows:
            raise MediaError(f"`index` of a part points outside the {rows} frames of `{name}`")
