"""Applies the heads of a model to its outputs; outputs without a head stay as they are."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from engines.heads.base import Head
from engines.heads.reductions import Reduction, reductions_of, staying
from engines.heads.view import View, view_of
from engines.part import Array, Part, Value
from engines.planned import FRAME_SIZE, INDEX, SOURCE_SIZE, Arrays, Tensor
from engines.ragged import Ragged
from engines.registry import load
from schemas.errors import ModelError
from schemas.model import ModelSpec
from schemas.picture import PictureSpec

_ROW_FOR_ROW = (
    'give it one row for each row in; of a graph without a batch, say batch = "none" in its card; '
    'for a table of boxes its card needs a head, kind = "detect" and decoder = "end2end", see docs/heads.md'
)


class Heads:
    """All heads of a model, for the outputs of whole batches. Outputs that no head reads stay as they are.

    Outputs without a head, of a model that takes one row at a time, may have any number of values a row: they become
    ragged arrays. Heads of a model with a picture input also give `source_size [N, 2]` int32, the (height, width) that
    coordinates refer to.
    """

    def __init__(self, model: ModelSpec, of_items: bool = False) -> None:
        """Make the heads; `of_items`: the model's pictures are items of windows, and each is its own source.

        Raises ModelError for heads that do not fit the model.
        """
        self._name = model.name
        self._picture = next((tensor.picture for tensor in model.inputs if tensor.picture), None)
        self._outputs = {tensor.name: Tensor(tensor.dtype, tensor.shape) for tensor in model.outputs}
        self._heads: list[Head] = [
            load("heads", head.kind)(head.options, self._outputs, self._picture) for head in model.heads
        ]
        self._kinds = [head.kind for head in model.heads]
        self._sized = bool(self._heads) and self._picture is not None and not of_items
        if self.placing and self._picture is not None and self._picture.fit == "pad":
            what = f'model `{model.name}`: head {self.placing[0]} places its answers in a picture with fit = "pad"'
            raise ModelError(what, 'write fit = "letterbox"')
        read = {name for head in self._heads for name in head.reads}
        self._staying = staying(self.reductions)
        singly = any(tensor.shape[:1] == (1,) for tensor in model.inputs)
        self._rest = {
            name: singly and _any_length(tensor) for name, tensor in self._outputs.items() if name not in read
        }

    @property
    def any(self) -> bool:
        """Return whether there are heads."""
        return bool(self._heads)

    @property
    def by_source(self) -> bool:
        """Return whether the rows of one batch must have equal views."""
        return any(head.by_source for head in self._heads)

    @property
    def placing(self) -> tuple[str, ...]:
        """Return the kinds of heads that need the picture which the model's input is made of."""
        return tuple(kind for kind, head in zip(self._kinds, self._heads, strict=True) if head.needs_view)

    def plan(self) -> Arrays:
        """Return the declarations of the arrays that the outputs become."""
        made: Arrays = {}
        for name, ragged in self._rest.items():
            tensor = self._outputs[name]
            made[name] = Tensor(tensor.dtype, ("W", "count", *tensor.shape[2:]), ragged=True) if ragged else tensor
        made |= self.named
        if self._sized:
            made[SOURCE_SIZE] = Tensor("int32", ("W", 2))
        return made

    def nothing(self) -> dict[str, Value]:
        """Return the arrays of no rows; a free dimension is 0."""
        return {name: _no_rows(tensor) for name, tensor in self.plan().items()}

    def views(self, part: Part) -> Sequence[View]:
        """Return the position of each window's picture in its source; empty if no head needs it."""
        if not self._heads or self._picture is None:
            return ()
        first = part.array(INDEX)[:, 0]
        sizes = [(height, width) for height, width in np.asarray(part.array(FRAME_SIZE))[first].tolist()]
        known = {size: _view(*size, self._picture) for size in set(sizes)}
        return [known[size] for size in sizes]

    def __call__(self, outputs: Mapping[str, Array], views: Sequence[View], rows: int) -> dict[str, Value]:
        """Return the arrays of `rows` rows that a batch's outputs become.

        Raises ModelError if an output without a head does not have one row for each input row, or an output does not
        fit its head.
        """
        made: dict[str, Value] = {}
        for name, ragged in self._rest.items():
            output = outputs[name]
            made[name] = Ragged.of(list(np.asarray(output))) if ragged and output.ndim > 1 else output
        if self._heads:
            made |= self.decode(outputs, views)
        if self._sized:
            made[SOURCE_SIZE] = np.array([view.source for view in views], np.int32).reshape(-1, 2)
        for name, value in made.items():
            if not isinstance(value, Ragged) and value.ndim == 0:
                raise ModelError(f"model `{self._name}`, output `{name}` is one number", _ROW_FOR_ROW)
            if len(value) != rows:
                found = len(value) if isinstance(value, Ragged) else f"shape {list(value.shape)}"
                raise ModelError(f"model `{self._name}`, output `{name}`: {found} for a batch of {rows}", _ROW_FOR_ROW)
        return made

    def decode(self, outputs: Mapping[str, Value], views: Sequence[View]) -> dict[str, Value]:
        """Return the arrays that the heads make of a batch's outputs. Raises ModelError."""
        hosted = {name: self._on_host(name, outputs[name]) for head in self._heads for name in head.reads}
        made: dict[str, Value] = {}
        for head in self._heads:
            made |= head.decode(hosted, views)
        return made

    @property
    def reductions(self) -> tuple[Reduction, ...]:
        """What may be done to outputs on a GPU: the reductions of outputs that one head alone reads."""
        readers = Counter(name for head in self._heads for name in set(head.reads))
        each = (reduction for head in self._heads for reduction in reductions_of(head))
        return tuple(reduction for reduction in each if all(readers[name] == 1 for name in reduction.outputs))

    def _on_host(self, name: str, output: Value) -> Value:
        return output if isinstance(output, Ragged) or name in self._staying else np.asarray(output)

    @property
    def unread(self) -> tuple[str, ...]:
        """The outputs that no head reads."""
        return tuple(self._rest)

    @property
    def named(self) -> Arrays:
        """The declarations of the arrays that the heads make."""
        made: Arrays = {}
        for head in self._heads:
            made |= head.plan()
        return made

    def try_on(self, outputs: Mapping[str, Array], rows: int) -> None:
        """Apply the heads to the outputs of a trial run on pictures of a fixed size. Raises as a call does."""
        picture = self._picture
        size = picture.size if picture and picture.size != "source" else (picture and picture.tile) or (1, 1)
        self(outputs, [view_of(size, picture) if picture else View(size, size, size)] * rows, rows)


@lru_cache(maxsize=64)
def _view(height: int, width: int, picture: PictureSpec) -> View:
    return view_of((height, width), picture)


def _any_length(tensor: Tensor) -> bool:
    """Return whether a row of an output has any number of values: its second dimension alone is free."""
    shape = tensor.shape
    return len(shape) > 1 and isinstance(shape[1], str) and not any(isinstance(size, str) for size in shape[2:])


def _no_rows(tensor: Tensor) -> Value:
    inner = [size if isinstance(size, int) else 0 for size in tensor.shape[2 if tensor.ragged else 1 :]]
    array = np.empty((0, *inner), tensor.dtype)
    return Ragged(array, np.zeros(1, np.int64)) if tensor.ragged else array
