"""infer: runs a model on arrays, and the heads of its card on its outputs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from engines.inference.batch import infer_parts
from engines.inference.filling import rows_of
from engines.inference.heads import Heads
from engines.inference.items import width_name
from engines.inference.session import check_batch
from engines.inference.sources import Sight, sight_of, source_name
from engines.inference.states import States, fed_inputs, without_state
from engines.inference.tiles import JOINED
from engines.operators.base import required_model
from engines.options import Options, parse_options
from engines.part import Part, Tick, holds_frames
from engines.planned import INDEX, Arrays, Tensor, model_picture_name, model_sound_name
from engines.ports import BatchCounts, RowKind, Session
from engines.ragged import Ragged
from schemas.errors import ModelError, OptionError, PipelineError, RigflowError, StageFieldError
from schemas.model import ModelSpec, TensorSpec, describe, fits
from schemas.picture import PictureSpec
from schemas.pipeline import OperatorStage

_WINDOW = "leave out `window`, or the heads of the model's card"
_PLACELESS = "classify, embed, raw and tag"
_TILED = "leave it out, or `tile` in the model's card"
_IN_CARD = "give it a value or a state in the model's card; see docs/models.md"


class Infer:
    """Runs the model of the stage on rows of many parts together; see `engines.inference.batch.infer_parts`.

    Heads of a model with a picture input also give `source_size [W, 2]` int32, the (height, width) that coordinates
    refer to. The outputs of a model that takes one row at a time may have rows of any length: they become ragged
    arrays. With `items` the rows are the items of a ragged array; see `engines.inference.items`.
    """

    options_class = Options
    needs_model = True
    entire_media: tuple[str, ...] = ()
    of_texts = False
    head_s = 0.0

    def __init__(self, stage: OperatorStage, model: ModelSpec | None) -> None:
        parse_options(Options, stage, "infer")
        model = required_model(stage, model)
        self._stage = stage
        self._model = without_state(model)
        self._pictures_of_card = [tensor.name for tensor in model.inputs if tensor.picture]
        self._heads = _heads(stage, self._model)
        self._states = States(model) if fed_inputs(model) else None
        self.counts = BatchCounts()

    @property
    def by_source(self) -> bool:
        """Whether the size of what it makes depends on the size of the frame."""
        return self._heads.by_source

    @property
    def in_order(self) -> bool:
        """Whether the parts of a segment must come in order, because the model has a state."""
        return self._states is not None

    def pictures(self, inputs: Arrays) -> Mapping[str, PictureSpec]:
        """Return the picture of each input whose card describes one, unless the stage reads an array for it.

        A model with heads takes the picture of its card even if there is an array of the input's name, because heads
        need to know the geometry of the picture.
        """
        if self._stage.items:
            return {}
        read = self._stage.reads.keys() | (set() if self._model.heads else inputs.keys())
        return {name: tensor.picture for name, tensor in self._pictured() if tensor.picture and tensor.name not in read}

    def sounds(self, inputs: Arrays) -> Mapping[str, TensorSpec]:
        """Return each input whose card says that it is sound, unless the stage reads an array for it."""
        if self._stage.items:
            return {}
        return {
            model_sound_name(self._stage.name, tensor.name): tensor
            for tensor in self._model.inputs
            if tensor.sound and tensor.name not in self._stage.reads
        }

    def _pictured(self) -> Iterator[tuple[str, TensorSpec]]:
        """Return the inputs that are pictures, with the names of the arrays that decode makes for them."""
        return ((model_picture_name(self._stage.name, each.name), each) for each in self._model.inputs if each.picture)

    def plan(self, inputs: Arrays) -> Arrays:
        """Return the arrays of the model's heads, or those that replace each array of `each`."""
        stage, model = self._stage, self._model
        self._check_tiles()
        unknown = set(stage.reads) - {tensor.name for tensor in model.inputs}
        if unknown:
            names = ", ".join(f"`{tensor.name}`" for tensor in model.inputs)
            raise PipelineError(
                f"stage `{stage.name}`: model `{model.name}` has no input `{min(unknown)}`, only {names}"
            )
        if stage.items:
            return self._of_items(inputs)
        return self._each(inputs) if stage.each else self._inferred(inputs)

    def rows(self, part: Part) -> int:
        """Return the number of items of a part, or else of windows."""
        items = part.arrays.get(self._stage.items)
        return len(items.values) if isinstance(items, Ragged) else len(part.meta.pts)

    def waiting_rows(self, part: Part, session: Session) -> Mapping[RowKind, int]:
        """Return the rows of a part that wait for a batch: none of a model with a state, whose parts go in turn."""
        return rows_of(self._stage, session, part) if self._states is None else {}

    def run(self, parts: Sequence[Part], session: Session | None, tick: Tick) -> list[Part | RigflowError]:
        """Return each part with the arrays of the model, or the error of that part."""
        assert session is not None, "a stage with a model has a session"
        if self._states is None:
            return infer_parts(self._stage, session, parts, tick, self._heads, self.counts)
        return [outcome for part in parts for outcome in self._in_turn(part, session, tick)]

    def run_full(self, parts: Sequence[Part], session: Session, tick: Tick) -> list[Part | RigflowError]:
        """Return as `run` does, or the part Begun if it has rows that fill no batch."""
        assert self._states is None, "such parts wait for no batch"
        return infer_parts(self._stage, session, parts, tick, self._heads, self.counts, only_full=True)

    def _in_turn(self, part: Part, session: Session, tick: Tick) -> list[Part | RigflowError]:
        assert self._states is not None
        try:
            bound = self._states.bound(session, part)
        except ModelError as error:
            return [error]
        outcomes = infer_parts(self._stage, bound, [part], tick, self._heads, self.counts)
        if isinstance(outcomes[0], RigflowError):
            self._states.forget(part)
        return outcomes

    def _inferred(self, arrays: Arrays) -> Arrays:
        rows: int | str = "W"
        for tensor in self._model.inputs:
            check_batch(self._model, tensor)
            name = source_name(self._stage, tensor.name, arrays)
            array = self._find(name, arrays, f'map it by reads = {{ {tensor.name} = "..." }}, or {_IN_CARD}')
            seen = self._seen(name, array, tensor, arrays)
            self._check(tensor, name, seen)
            rows = seen.shape[0]
        self._check_picture(arrays)
        outputs = self._heads.plan()
        for name in outputs:
            if holds_frames(name) or name == INDEX:
                raise ModelError(
                    f"model `{self._model.name}`: its output `{name}` has the name of an array of decode",
                    "give that output another name",
                )
        return {name: replace(each, shape=(rows, *each.shape[1:])) for name, each in outputs.items()}

    def _of_items(self, arrays: Arrays) -> Arrays:
        stage, model = self._stage, self._model
        if stage.reads or stage.each or len(model.inputs) != 1 or self._states is not None:
            what = f"stage `{stage.name}`: `items` needs a model of one input without state, and neither reads nor each"
            raise PipelineError(what, "leave the others out, or give further inputs a value in the model's card")
        tensor, name = model.inputs[0], stage.items
        check_batch(model, tensor)
        array = self._find(name, arrays, "correct `items`")
        if not array.ragged:
            raise PipelineError(
                f"stage `{stage.name}`: `{name}` has no items, it is dense", f'reads = {{ {tensor.name} = "{name}" }}'
            )
        of_one = array.shape[2:]
        if width_name(name) in arrays:
            of_one = (of_one[0], "width", *of_one[2:])
        self._check(tensor, name, Tensor(array.dtype, ("N", *of_one)))
        outputs = self._heads.plan()
        if ragged := [output for output, each in outputs.items() if each.ragged]:
            what = (
                f"stage `{stage.name}`: `{ragged[0]}` has rows of different lengths, and so have the items of a window"
            )
            raise PipelineError(what, "take a model that gives as many values for each item")
        return {
            output: replace(each, shape=(array.shape[0], "count", *each.shape[1:]), ragged=True)
            for output, each in outputs.items()
        }

    def _each(self, arrays: Arrays) -> Arrays:
        model = self._model
        if len(model.inputs) != 1 or len(model.outputs) != 1 or model.heads:
            what = f"stage `{self._stage.name}`: `each` needs a model of one input and one output, without heads"
            raise ModelError(what, f"not `{model.name}`")
        check_batch(model, model.inputs[0])
        for name in self._stage.each:
            self._check(model.inputs[0], name, self._find(name, arrays, "correct `each`"))
        output = model.outputs[0]
        return {name: Tensor(output.dtype, output.shape) for name in self._stage.each}

    def _seen(self, name: str, array: Tensor, tensor: TensorSpec, arrays: Arrays) -> Tensor:
        """Return an array in the shape in which a model's input takes it."""
        frames = arrays[INDEX].shape[1] if INDEX in arrays else 0
        assert isinstance(frames, int)
        sight = sight_of(name, len(array.shape), len(tensor.shape), frames)
        if sight is Sight.WINDOWS:
            return Tensor(array.dtype, ("W", frames, *array.shape[1:]))
        if sight is Sight.SINGLES:
            return Tensor(array.dtype, ("W", *array.shape[1:]))
        return array

    def _check_tiles(self) -> None:
        """The answers of tiles are put together where they are pictures, and nothing else is answered."""
        model = self._model
        if not any(tensor.picture and tensor.picture.tile for tensor in model.inputs):
            return
        alone = (
            len(model.inputs) == len(model.heads) == 1 and [*self._heads.named] == [JOINED] and not self._heads.unread
        )
        if not alone or model.heads[0].options.get("size", "content") == "source":
            what = f"model `{model.name}`: its card has tiles, which need one input and one output, with a head image"
            raise ModelError(what, 'leave out tile, or other outputs and size = "source"')
        if fields := [field for field in ("reads", "each", "items") if getattr(self._stage, field)]:
            field = fields[0]
            raise PipelineError(f"stage `{self._stage.name}`: {field}, and its model takes tiles of the frame", _TILED)

    def _check(self, tensor: TensorSpec, name: str, array: Tensor) -> None:
        model = self._model
        if array.ragged or not fits(tensor, array.dtype, array.shape):
            found = "has rows of different lengths" if array.ragged else f"is {describe(array.dtype, array.shape)}"
            raise ModelError(
                f"stage `{self._stage.name}`: model `{model.name}` wants `{tensor.name}` as "
                f"{describe(tensor.dtype, tensor.shape)}, and `{name}` {found}",
                "change size, layout or window of the pipeline, or the model; see docs/models.md",
            )

    def _check_picture(self, arrays: Arrays) -> None:
        """Check that heads know the geometry of their picture, and that heads of pictures take single frames."""
        stage = self._stage
        if self._heads.placing and not (self.pictures({}).keys() & arrays.keys()):
            what = f"stage `{stage.name}`: head {self._heads.placing[0]} places its answers in the frame, and no input"
            mapped = any(name in stage.reads for name in self._pictures_of_card)
            hint = "leave out `reads`" if mapped else f"heads that need no picture are {_PLACELESS}; see docs/heads.md"
            raise PipelineError(f"{what} is the picture that its card describes", hint)
        frames = arrays[INDEX].shape[1] if INDEX in arrays else 1
        ranks = {len(tensor.shape) - len(arrays[name].shape) for name, tensor in self._pictured() if name in arrays}
        if self._model.heads and ranks - {1} and frames != 1:
            what = f"stage `{stage.name}`: the heads of its model"
            raise PipelineError(f"{what} answer for single frames, not for windows of {frames} frames", _WINDOW)

    def _find(self, name: str, arrays: Arrays, hint: str) -> Tensor:
        if name not in arrays:
            there = ", ".join(f"`{array}`" for array in sorted(arrays))
            raise PipelineError(f"stage `{self._stage.name}` wants array `{name}`, and there is only {there}", hint)
        return arrays[name]


def _heads(stage: OperatorStage, model: ModelSpec) -> Heads:
    """Return the heads of a model. Raises StageFieldError for options that the stage gives, else ModelError."""
    try:
        return Heads(_unmapped(stage, model), bool(stage.items))
    except OptionError as error:
        if error.option[:1] and error.option[0] in stage.head:
            raise StageFieldError.of(stage.name, ("head", *error.option), error.reason, error.hint) from error
        raise
    except ModelError as error:
        if stage.head:
            raise StageFieldError.of(stage.name, ("head",), error.what, error.hint) from error
        raise


def _unmapped(stage: OperatorStage, model: ModelSpec) -> ModelSpec:
    """Return a model without the pictures of inputs that `reads` maps: the geometry of such arrays is unknown."""
    inputs = (
        tensor.model_copy(update={"picture": None}) if tensor.name in stage.reads else tensor for tensor in model.inputs
    )
    return model.model_copy(update={"inputs": tuple(inputs)})
