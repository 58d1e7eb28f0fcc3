"""Shared by all inference backends: rows that are not gathered yet, and checks of arrays against a model card."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Protocol, Self, cast, get_args, runtime_checkable

import numpy as np

from engines.part import Array
from engines.protocols import conforms
from schemas.arrays import DType
from schemas.errors import ModelError
from schemas.model import ModelSpec, TensorSpec, describe, fits

_NUMBERS = frozenset(np.dtype(name).name for name in get_args(DType))
_OMIT = "export the model without it, or list its other outputs in its model card"
_NO_BATCH = f'{_OMIT}; for a graph without a batch, say batch = "none" there'
_FEED = "give it a value in its model card: rigflow feeds a model one row a frame or window"
_CONSTANT = "make it a constant of the graph"
_CORRECT = "correct its model card, or leave the tensors out of it"


@dataclass(frozen=True, slots=True)
class RowSelection:
    """Rows of `array`: those that `rows` names, in its order and shape, or `[first, last)` if it is None."""

    array: Array
    rows: Array | None
    first: int
    last: int


@dataclass(frozen=True)
class RowBatch:
    """Rows of many arrays as one batch, not gathered yet: the GPU gathers them on the GPU, NumPy on the host."""

    spans: Sequence[RowSelection]

    @classmethod
    def all_of(cls, array: Array) -> Self:
        """Return a batch of every row of an array."""
        return cls([RowSelection(array, None, 0, len(array))])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of all the arrays."""
        return self.spans[0].array.dtype

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """`[rows, ...]`, the shape of the gathered array."""
        first = self.spans[0]
        inner = (*(() if first.rows is None else first.rows.shape[1:]), *first.array.shape[1:])
        count = sum(span.last - span.first if span.rows is None else len(span.rows) for span in self.spans)
        return (count, *inner)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows together."""
        return prod(self.shape) * self.dtype.itemsize

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        taken = [
            span.array[span.first : span.last] if span.rows is None else span.array[span.rows] for span in self.spans
        ]
        return np.asarray(taken[0] if len(taken) == 1 else np.concatenate(taken), dtype)


@runtime_checkable
class Overlapping(Protocol):
    """A session that can have `in_flight` batches queued before the outputs of the first one are read."""

    in_flight: int

    def most_rows(self, row_bytes: int) -> int:
        """Return how many rows of so many bytes a batch has at most."""
        ...

    def start(self, inputs: Mapping[str, "Array | RowBatch"], room: int = 0) -> Callable[[], dict[str, Array]]:
        """Queue a batch; return a function that waits for its outputs. Both raise as `run` does.

        `room`: how many rows a full batch of the stage has, 0: as many as the session takes.
        """
        ...


def overlapping(session: object) -> Overlapping | None:
    """Return a session as one that queues batches; None if it does not. All of one class are alike in that."""
    return cast(Overlapping, session) if conforms(session, Overlapping) else None


def check_inputs(spec: ModelSpec, inputs: Mapping[str, "Array | RowBatch"]) -> None:
    """Raise ModelError unless `inputs` fit the model card: their names, dtypes, ranks and fixed dimensions."""
    for tensor in spec.inputs:
        if tensor.name not in inputs:
            given = ", ".join(f"`{name}`" for name in inputs) or "nothing"
            raise ModelError(f"model `{spec.name}` got no input `{tensor.name}`, only {given}")
        array = inputs[tensor.name]
        if not fits(tensor, array.dtype.name, array.shape):
            raise ModelError(
                f"model `{spec.name}`, input `{tensor.name}`: expected {describe(tensor.dtype, tensor.shape)}, "
                f"found {describe(array.dtype.name, array.shape)}"
            )


def check_batch(spec: ModelSpec, tensor: TensorSpec) -> None:
    """Raise ModelError if an input takes batches of one size: that of a part is another one."""
    if tensor.shape and isinstance(tensor.shape[0], int) and tensor.shape[0] != 1:
        found = describe(tensor.dtype, tensor.shape)
        raise ModelError(
            f"model `{spec.name}`, input `{tensor.name}`: {found} has no free batch",
            'export it with a first dimension that is free, or 1; or say batch = "none" in its card',
        )


def zeros_of(spec: ModelSpec, rows: int) -> dict[str, Array] | None:
    """Return inputs of so many rows; None if the card has a free inner dimension, or a batch of another size.

    A state has its value before the first run: its free dimensions are 1, and so is the batch.
    """
    zeros = {}
    if rows != 1 and spec.state_outputs:
        return None
    for tensor in spec.inputs:
        if tensor.state:
            shape = [size if isinstance(size, int) else 1 for size in tensor.shape]
            zeros[tensor.name] = np.full(shape, tensor.state.start, tensor.dtype)
            continue
        batch, inner = tensor.shape[0], [size for size in tensor.shape[1:] if isinstance(size, int)]
        if len(inner) + 1 != len(tensor.shape) or (isinstance(batch, int) and batch != rows):
            return None
        zeros[tensor.name] = np.zeros((rows, *inner), tensor.dtype)
    return zeros


def check_model_card(spec: ModelSpec, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
    """Raise ModelError if a model card disagrees with its graph; a card may leave out outputs, but no inputs.

    All must be arrays of numbers with a batch dimension: others cannot be sent between workers.
    """
    states = {tensor.name for tensor in spec.inputs if tensor.state} | spec.state_outputs
    for side, tensors, graph, hint in (("input", spec.inputs, inputs, _FEED), ("output", spec.outputs, outputs, _OMIT)):
        _check_side(spec, side, tensors, graph)
        for tensor in tensors:
            named = f"model `{spec.name}`, {side} `{tensor.name}`"
            if tensor.dtype not in _NUMBERS:
                kind = "text" if tensor.dtype == "string" else tensor.dtype
                raise ModelError(f"{named} is {kind}: rigflow carries numbers", _CONSTANT if side == "input" else hint)
            if not tensor.shape and tensor.name not in states:
                raise ModelError(f"{named} has no batch dimension", _NO_BATCH if side == "output" else hint)
    missing = {tensor.name for tensor in inputs} - {tensor.name for tensor in spec.inputs}
    if missing:
        raise ModelError(f"model `{spec.name}` wants input `{min(missing)}`, and its model card lacks it", _CORRECT)
    if not spec.outputs:
        raise ModelError(f"model `{spec.name}` has no outputs", "list one in its model card, or export it with one")


def check_declared(model: str, card: TensorSpec, graph: TensorSpec, side: str = "input") -> None:
    """Raise ModelError if a card disagrees with its graph about a tensor.

    An input that is free in its card and fixed in its graph is refused too: rows of other sizes would arrive and fail.
    """
    if not fits(card, graph.dtype, graph.shape):
        declared, found = describe(card.dtype, card.shape), describe(graph.dtype, graph.shape)
        raise ModelError(
            f"model `{model}`, {side} `{card.name}`: its model card says {declared}, its graph {found}", _CORRECT
        )
    for axis, (size, fixed) in enumerate(zip(card.shape, graph.shape, strict=True)):
        if side == "input" and isinstance(size, str) and isinstance(fixed, int):
            where, unit = (f", dimension {axis}", "") if axis else ("", " rows")
            words = f"its model card says {size}{unit}, its graph takes {fixed}"
            raise ModelError(f"model `{model}`, input `{card.name}`{where}: {words}", _CORRECT)


def _check_side(spec: ModelSpec, side: str, card: tuple[TensorSpec, ...], graph: tuple[TensorSpec, ...]) -> None:
    found = {tensor.name: tensor for tensor in graph}
    for tensor in card:
        if tensor.name not in found:
            names = ", ".join(f"`{name}`" for name in found)
            raise ModelError(f"model `{spec.name}` has no {side} `{tensor.name}`, only {names}", _CORRECT)
        check_declared(spec.name, tensor, found[tensor.name], side)
