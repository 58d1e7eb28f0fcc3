"""infer: arrays -> arrays by a model, and what its heads make of its outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from engines.heads.base import Head
from engines.heads.view import View, view_of
from engines.inference.batch import infer_parts
from engines.inference.session import fits
from engines.inference.sources import Sight, picture_name, sight_of, source_name
from engines.inference.states import States, fed_inputs, without_state
from engines.options import parse_options
from engines.part import Array, Part, Tick, Value, holds_frames
from engines.planned import FRAME_SIZE, INDEX, Arrays, Tensor
from engines.ports import Options, Session
from engines.ragged import Ragged
from engines.registry import load
from schemas.errors import ModelError, PipelineError, RigflowError
from schemas.model import ModelSpec, PictureSpec, TensorSpec, describe
from schemas.pipeline import OperatorStage

SOURCE_SIZE = "source_size"
_IN_CARD = "give it a value or a state in the model's card; see docs/models.md"


class Infer:
    """Runs the stage's model over rows of many parts together; see `engines.inference.batch.infer_parts`.

    Beside what the model's heads give, `source_size [W, 2]` int32 is the (height, width) that coordinates refer to. The
    outputs of a model that takes one row at a time may have any number of values each: they become ragged arrays.
    """

    options_class = Options
    needs_model = True

    def __init__(self, stage: OperatorStage, model: ModelSpec | None) -> None:
        parse_options(Options, stage, "infer")
        if model is None:
            raise PipelineError(f"stage `{stage.name}` runs no model", 'say which: model = "NAME"')
        self._stage = stage
        self._model = without_state(model)
        self._meaning = _Heads(stage, self._model)
        self._states = States(model) if fed_inputs(model) else None

    @property
    def by_source(self) -> bool:
        """Whether the size of what it makes depends on the size of the frame."""
        return self._meaning.by_source

    @property
    def in_order(self) -> bool:
        """Whether the parts of a segment must come one after the other, for the model has a state."""
        return self._states is not None

    def pictures(self, inputs: Arrays) -> Mapping[str, PictureSpec]:
        """One for each input whose card says how to make it, unless the stage reads an array for it."""
        return {
            picture_name(self._stage, tensor.name): tensor.picture
            for tensor in self._model.inputs
            if tensor.picture and tensor.name not in self._stage.reads.keys() | inputs.keys()
        }

    def plan(self, inputs: Arrays) -> Arrays:
        """The model's outputs as its heads give them, or what replaces each array of `each`."""
        stage, model = self._stage, self._model
        unknown = set(stage.reads) - {tensor.name for tensor in model.inputs}
        if unknown:
            names = ", ".join(f"`{tensor.name}`" for tensor in model.inputs)
            raise PipelineError(
                f"stage `{stage.name}`: model `{model.name}` has no input `{min(unknown)}`, only {names}"
            )
        return self._each(inputs) if stage.each else self._inferred(inputs)

    def run(self, parts: Sequence[Part], session: Session | None, tick: Tick) -> list[Part | RigflowError]:
        """What the model makes of each part, or the error of that part alone."""
        assert session is not None, "a stage with a model has a session"
        if self._states is None:
            return infer_parts(self._stage, session, parts, tick, self._meaning)
        return [outcome for part in parts for outcome in self._in_turn(part, session, tick)]

    def _in_turn(self, part: Part, session: Session, tick: Tick) -> list[Part | RigflowError]:
        assert self._states is not None
        try:
            bound = self._states.bound(session, part)
        except ModelError as error:
            return [error]
        return infer_parts(self._stage, bound, [part], tick, self._meaning)

    def _inferred(self, arrays: Arrays) -> Arrays:
        rows: int | str = "W"
        for tensor in self._model.inputs:
            self._check_batch(tensor)
            name = source_name(self._stage, tensor.name, arrays)
            array = self._find(name, arrays, f'map it by reads = {{ {tensor.name} = "..." }}, or {_IN_CARD}')
            seen = self._seen(name, array, tensor, arrays)
            self._check(tensor, name, seen)
            rows = seen.shape[0]
        self._meaning.check_picture(self._stage, arrays)
        outputs = self._meaning.plan()
        for name in outputs:
            if holds_frames(name) or name == INDEX:
                raise ModelError(
                    f"model `{self._model.name}`: its output `{name}` bears the name of an array that decode made",
                    "give that output another name",
                )
        return {name: replace(each, shape=(rows, *each.shape[1:])) for name, each in outputs.items()}

    def _each(self, arrays: Arrays) -> Arrays:
        model = self._model
        if len(model.inputs) != 1 or len(model.outputs) != 1 or model.heads:
            what = f"stage `{self._stage.name}`: `each` needs a model of one input and one output, without heads"
            raise ModelError(what, f"not `{model.name}`")
        self._check_batch(model.inputs[0])
        for name in self._stage.each:
            self._check(model.inputs[0], name, self._find(name, arrays, "correct `each`"))
        output = model.outputs[0]
        return {name: Tensor(output.dtype, output.shape) for name in self._stage.each}

    def _seen(self, name: str, array: Tensor, tensor: TensorSpec, arrays: Arrays) -> Tensor:
        """An array as a model's input sees it."""
        frames = arrays[INDEX].shape[1] if INDEX in arrays else 0
        assert isinstance(frames, int)
        sight = sight_of(name, len(array.shape), len(tensor.shape), frames)
        if sight is Sight.WINDOWS:
            return Tensor(array.dtype, ("W", frames, *array.shape[1:]))
        if sight is Sight.SINGLES:
            return Tensor(array.dtype, ("W", *array.shape[1:]))
        return array

    def _check_batch(self, tensor: TensorSpec) -> None:
        model = self._model
        if tensor.shape and isinstance(tensor.shape[0], int) and tensor.shape[0] != 1:
            found = describe(tensor.dtype, tensor.shape)
            raise ModelError(
                f"model `{model.name}`, input `{tensor.name}`: {found} has no free batch",
                'export it with a first dimension that is free, or 1; or say batch = "none" in its card',
            )

    def _check(self, tensor: TensorSpec, name: str, array: Tensor) -> None:
        model = self._model
        if array.ragged or not fits(tensor, array.dtype, array.shape):
            found = "has rows of different lengths" if array.ragged else f"is {describe(array.dtype, array.shape)}"
            raise ModelError(
                f"stage `{self._stage.name}`: model `{model.name}` wants `{tensor.name}` as "
                f"{describe(tensor.dtype, tensor.shape)}, and `{name}` {found}",
                "change size, layout or window of the pipeline, or the model; see docs/models.md",
            )

    def _find(self, name: str, arrays: Arrays, hint: str) -> Tensor:
        if name not in arrays:
            there = ", ".join(f"`{array}`" for array in sorted(arrays))
            raise PipelineError(f"stage `{self._stage.name}` wants array `{name}`, and there is only {there}", hint)
        return arrays[name]


class _Heads:
    """What the outputs of a model mean: its heads, and the outputs that no head reads as they are."""

    def __init__(self, stage: OperatorStage, model: ModelSpec) -> None:
        picture = next((tensor for tensor in model.inputs if tensor.picture), None)
        self._picture = picture.picture if picture and picture.name not in stage.reads else None
        self._input = picture_name(stage, picture.name) if picture else ""
        self._outputs = {tensor.name: Tensor(tensor.dtype, tensor.shape) for tensor in model.outputs}
        self._heads: list[Head] = [
            load("heads", head.kind)(head.options, self._outputs, self._picture) for head in model.heads
        ]
        read = {name for head in self._heads for name in head.reads}
        singly = any(tensor.shape[:1] == (1,) for tensor in model.inputs)
        self._rest = {
            name: singly and _any_length(tensor) for name, tensor in self._outputs.items() if name not in read
        }

    def check_picture(self, stage: OperatorStage, arrays: Arrays) -> None:
        """Raise PipelineError if there are heads, and the model reads another array than the picture of its card."""
        if self._heads and (self._picture is None or self._input not in arrays):
            what = f"stage `{stage.name}`: the heads of its model need the picture that its card describes"
            raise PipelineError(what, "leave out `reads` and the resize stage")

    def plan(self) -> Arrays:
        """The arrays that become of the outputs."""
        made: Arrays = {}
        for name, ragged in self._rest.items():
            tensor = self._outputs[name]
            made[name] = Tensor(tensor.dtype, ("W", "count", *tensor.shape[2:]), ragged=True) if ragged else tensor
        for head in self._heads:
            made |= head.plan()
        if self._heads:
            made[SOURCE_SIZE] = Tensor("int32", ("W", 2))
        return made

    @property
    def by_source(self) -> bool:
        """Whether the rows of one batch must have equal views."""
        return any(head.by_source for head in self._heads)

    def views(self, part: Part) -> Sequence[View]:
        """Where the model's picture of each window lies in its source; empty where no head needs it."""
        if not self._heads or self._picture is None:
            return ()
        first = part.array(INDEX)[:, 0]
        sizes = np.asarray(part.array(FRAME_SIZE))[first]
        return [_view(int(height), int(width), self._picture) for height, width in sizes]

    def __call__(self, outputs: Mapping[str, Array], views: Sequence[View], rows: int) -> dict[str, Value]:
        """The arrays, of so many rows, that become of the outputs of a batch. Raises ModelError."""
        made: dict[str, Value] = {}
        for name, ragged in self._rest.items():
            value = outputs[name]
            made[name] = Ragged.of(list(np.asarray(value))) if ragged and value.ndim > 1 else value
        if self._heads:
            hosted = {name: self._hosted(outputs[name], rows) for head in self._heads for name in head.reads}
            for head in self._heads:
                made |= head.decode(hosted, views)
            made[SOURCE_SIZE] = np.array([(view.height, view.width) for view in views], np.int32).reshape(-1, 2)
        return made

    @staticmethod
    def _hosted(output: Array, rows: int) -> Value:
        return np.asarray(output)


@lru_cache(maxsize=64)
def _view(height: int, width: int, picture: PictureSpec) -> View:
    return view_of((height, width), picture)


def _any_length(tensor: Tensor) -> bool:
    """Whether a row of an output has any number of values: its second dimension alone is free."""
    shape = tensor.shape
    return len(shape) > 1 and isinstance(shape[1], str) and not any(isinstance(size, str) for size in shape[2:])
