"""From a model as it was exported, and its card, to the form that travels: pictures come in as bytes, with a batch.

What a card says of inputs is put in front of the graph, so that no client computes it and every device does the same:

- a picture becomes `uint8 [N, H, W, 3]` RGB, or `[N, H, W]` gray. Behind it stand, in this order: the colours' order
  and the layout; a cast to float32; `(x * scale - mean) / std` in float32, of bytes x from 0 to 255, bit for bit what
  NumPy computes; a cast to the input's own dtype. Without scale, mean and std, an input of floats takes `x / 255`
  (scale is 1/255) and one of integers the bytes. With mean or std alone, scale is 1;
- an input with a `value` becomes a constant of the graph; with a free first dimension, that value for each row;
- a graph without a batch gets one (`engines.models.batchless`);
- an input that `reads` an array has its name.

A model that is in that form already stays as it is, byte for byte.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from engines.inference.session import check_declared
from engines.models.arithmetic import put_in_front, set_input
from engines.models.batchless import add_batch
from engines.models.pictures import FRAME_FIELDS, VALUE_FIELDS, Picture, is_clear, picture_of
from engines.models.sounds import SOUND_FIELDS, bands_checked, sound_of
from engines.models.surgery import Surgery
from engines.part import Array
from schemas.errors import ModelError
from schemas.model import InputCard, ModelCard, TensorSpec, describe


@dataclass(frozen=True, slots=True)
class Fronted:
    """A model that travels: its file; what its graph does not say of its inputs, by name; the outputs of its card."""

    body: bytes
    marks: Mapping[str, Mapping[str, Any]]
    outputs: tuple[TensorSpec, ...]

    def marked(self, inputs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        """The inputs that the graph declares, with what it does not say."""
        return tuple(tensor.model_copy(update=dict(self.marks.get(tensor.name, {}))) for tensor in inputs)


def with_front(body: bytes, card: ModelCard, name: str) -> Fronted:
    """The model with what its card says of its inputs in front; `name` is the file's, for errors.

    Raises ModelError for a card that contradicts itself or the graph, and for what is no ONNX file.
    """
    return _Front(Surgery(body, name), card).fronted(body)


class _Front:
    """The changes of one model, in the order of `fronted`."""

    def __init__(self, model: Surgery, card: ModelCard) -> None:
        self._model = model
        self._name = card.name or model.name
        self._card = card
        self._cards = {each.name: each for each in card.inputs}
        self._changed = False
        self._marks: dict[str, dict[str, Any]] = {}

    def fronted(self, body: bytes) -> Fronted:
        self._check_names()
        exported = {value.name: self._declared(value, number) for number, value in enumerate(self._model.graph.input)}
        self._make_constants(exported)
        extended: set[str] = set()
        if self._card.batch == "none":
            extended = add_batch(self._model)
            self._changed |= bool(extended)
        exported = {n: _extended(tensor) if n in extended else tensor for n, tensor in exported.items()}
        self._take_pictures(exported)
        self._take_arrays(exported)
        outputs = tuple(_extended(each) if each.name in extended else each for each in self._card.outputs)
        return Fronted(self._model.finish() if self._changed else body, self._marks, outputs)

    def _check_names(self) -> None:
        known = [value.name for value in self._model.graph.input]
        for number, each in enumerate(self._card.inputs):
            if each.name not in known:
                names = ", ".join(f"`{name}`" for name in known)
                hint = "correct its model card, or leave the tensors out of it"
                raise ModelError(f"model `{self._name}` has no input `{each.name}`, only {names}", hint)
            if each.name in [other.name for other in self._card.inputs[:number]]:
                raise ModelError(f"model `{self._name}`, input `{each.name}`: twice", "leave one of them out")
            self._check_kind(each)

    def _check_kind(self, card: InputCard) -> None:
        """An input is a constant, a state, sound, bands of it, or none of these."""
        written = card.model_fields_set
        single = [each for each in ("value", "state", "bands") if each in written]
        kinds: list[str] = [each for each in single if getattr(card, each) is not None]
        kinds += sorted(written & SOUND_FIELDS)[:1]
        others = sorted(written & (FRAME_FIELDS | VALUE_FIELDS)) + ["reads"] * bool(card.reads)
        if len(kinds + others) > 1 and kinds:
            what = f"model `{self._name}`, input `{card.name}`: {kinds[0]} and {(kinds[1:] + others)[0]}"
            raise ModelError(what, "leave one of them out")

    def _declared(self, value: Any, number: int) -> TensorSpec:
        """An input as its graph declares it, free dimensions as its card fixes or calls them."""
        graph = _tensor(value, number)
        card = self._cards.get(value.name)
        if card is None or (card.dtype is None and card.shape is None):
            return graph
        known = value.type.tensor_type.HasField("shape")
        shape = card.shape if card.shape is not None else graph.shape
        declared = TensorSpec(name=graph.name, dtype=card.dtype or graph.dtype, shape=shape)
        graph = graph if known else graph.model_copy(update={"shape": shape})
        check_declared(self._name, declared, graph)
        return declared

    # constants

    def _make_constants(self, exported: dict[str, TensorSpec]) -> None:
        for card in self._card.inputs:
            if card.value is None:
                continue
            tensor = exported.pop(card.name)
            array, each_row = self._constant(card, tensor)
            self._model.drop_input(card.name)
            if each_row:
                self._repeat(array, tensor, exported)
            else:
                self._model.add_constant(card.name, array)
            self._changed = True
        if self._card.inputs and not self._model.inputs:
            raise ModelError(f"model `{self._name}`: all its inputs have a value", "leave one to be fed")
        self._model.apply()

    def _constant(self, card: InputCard, tensor: TensorSpec) -> tuple[Array, bool]:
        """The value of an input, and whether each row of a batch has it: then it has one row."""
        where, what = f"model `{self._name}`, input `{card.name}`, value", describe(tensor.dtype, tensor.shape)
        free = [axis for axis, size in enumerate(tensor.shape) if isinstance(size, str)]
        count = len(card.value) if isinstance(card.value, tuple) else None
        each_row = free == [0] and self._card.batch == "rows" and (len(tensor.shape) > 1 or count is None)
        shape = tuple(
            (1 if each_row or count is None else count) if isinstance(size, str) else size for size in tensor.shape
        )
        if len(free) > 1 or (free and not each_row and len(tensor.shape) > 1):
            raise ModelError(f"{where}: {what} has free dimensions", "write its shape in the model card")
        if count not in (None, prod(shape)):
            raise ModelError(f"{where}: {count} numbers for {what}", f"write one, or {prod(shape)}")
        if np.dtype(tensor.dtype).kind not in "fiubV":
            raise ModelError(f"{where}: {what} takes no numbers", "make it a constant of the graph")
        numbers = np.array(card.value, np.float64).reshape(() if count is None else shape)
        with np.errstate(all="ignore"):
            array = np.broadcast_to(numbers, shape).astype(tensor.dtype)
        exact = array == numbers if array.dtype.kind in "iub" else np.isfinite(array)
        if not exact.all():
            numbers_that_fit = "whole numbers that fit" if array.dtype.kind in "iub" else "smaller numbers"
            raise ModelError(f"{where}: {tensor.dtype} does not hold {card.value}", f"write {numbers_that_fit}")
        return array, each_row

    def _repeat(self, row: Array, tensor: TensorSpec, exported: Mapping[str, TensorSpec]) -> None:
        """Have the value be there as often as the batch has rows, as another input shows."""
        fed = {value.name for value in self._model.inputs}
        rows = [n for n in exported if n in fed and exported[n].shape and not self._is_special(n)]
        if not rows:
            what = f"model `{self._name}`, input `{tensor.name}`, value: no other input has a batch"
            raise ModelError(what, "write its shape in the model card")
        batch = self._model.front("Gather", self._model.front("Shape", rows[0]), np.zeros(1, np.int64), axis=0)
        times = batch
        if row.ndim > 1:
            times = self._model.front("Concat", batch, np.ones(row.ndim - 1, np.int64), axis=0)
        self._model.front("Tile", row, times, result=tensor.name)

    def _is_special(self, name: str) -> bool:
        card = self._cards.get(name)
        if card is None:
            return False
        return card.value is not None or card.state is not None or bool(card.model_fields_set & SOUND_FIELDS)

    # pictures and other arrays

    def _take_pictures(self, exported: Mapping[str, TensorSpec]) -> None:
        values = {value.name: value for value in self._model.inputs}
        several = {name for name, tensor in exported.items() if name in values and is_clear(tensor, alone=False)}
        for name, value in values.items():
            if self._is_special(name):
                continue
            card = self._cards.get(name)
            picture = picture_of(self._name, card, exported[name], alone=not several - {name})
            if picture is None:
                continue
            self._put(picture, value)
            if card is None or not card.reads:
                self._marks[name] = {"picture": picture.spec}

    def _put(self, picture: Picture, value: Any) -> None:
        name, dtype = value.name, value.type.tensor_type.elem_type
        if put_in_front(self._model, picture, dtype):
            self._changed = True
            if name in {output.name for output in self._model.graph.output}:
                what = f"model `{self._name}`: nothing makes its output `{name}`"
                raise ModelError(what, "leave it out of the export")
        elif _tensor(value, 0).shape == picture.shape:
            return
        set_input(value, picture.shape, int(TensorProto.UINT8))
        self._changed = True

    def _take_arrays(self, exported: Mapping[str, TensorSpec]) -> None:
        for value in self._model.inputs:
            name, card = value.name, self._cards.get(value.name)
            if card is None:
                continue
            marks = self._marks.setdefault(name, {})
            if "picture" not in marks and not card.model_fields_set & VALUE_FIELDS:
                marks.update({"range": card.range} if card.range else {})
                marks.update({"shape": exported[name].shape} if card.shape else {})
            if sound := sound_of(self._name, card, exported[name]):
                marks.update({"sound": sound, "shape": (*exported[name].shape[:-1], sound.width)})
            if card.bands is not None:
                marks["bands"] = bands_checked(self._name, card, exported[name])
            if card.state is not None:
                self._check_state(card, exported[name])
                marks["state"] = card.state
            if card.reads and card.reads != name:
                self._call(value, card.reads)
                self._marks[card.reads] = self._marks.pop(name)

    def _call(self, value: Any, name: str) -> None:
        """Give an input the name of the array that it reads."""
        ends = {each.name for each in (*self._model.graph.input, *self._model.graph.output)}
        if name in ends:
            what = (
                f"model `{self._name}`, input `{value.name}`, reads: `{name}` is another input or output of the model"
            )
            raise ModelError(what, "read an array of another name")
        self._model.read_instead(name, self._model.fresh(name))
        self._model.read_instead(value.name, name)
        value.name = name
        self._changed = True

    def _check_state(self, card: InputCard, tensor: TensorSpec) -> None:
        assert card.state is not None
        where = f"model `{self._name}`, input `{card.name}`, state"
        outputs = {each.name: _tensor(each, 0) for each in self._model.graph.output}
        wanted = outputs.get(card.state.output)
        if wanted is None:
            names = ", ".join(f"`{name}`" for name in outputs)
            raise ModelError(f"{where}: the model has no output `{card.state.output}`", f"write one of {names}")
        if self._card.outputs and card.state.output not in [each.name for each in self._card.outputs]:
            raise ModelError(
                f"{where}: `{card.state.output}` is not among the outputs of the model card", "list it there"
            )
        if wanted.dtype != tensor.dtype:
            what = f"{where}: {describe(tensor.dtype, tensor.shape)}, and `{card.state.output}` is {wanted.dtype}"
            raise ModelError(what, "write the output that has the state of the next run")


def _extended(tensor: TensorSpec) -> TensorSpec:
    return tensor.model_copy(update={"shape": (1, *tensor.shape)})


def _tensor(value: Any, number: int) -> TensorSpec:
    """An input or output as its graph declares it; one of no known shape or dtype has none."""
    tensor = value.type.tensor_type
    shape = tuple(
        size.dim_value if size.dim_value > 0 else size.dim_param or f"free{number}_{axis}"
        for axis, size in enumerate(tensor.shape.dim)
    )
    try:
        dtype = str(helper.tensor_dtype_to_np_dtype(tensor.elem_type).name)
    except KeyError:  # no tensor
        dtype = "object"
    return TensorSpec(name=value.name, dtype=dtype, shape=shape)
