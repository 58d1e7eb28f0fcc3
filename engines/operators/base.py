"""Base of operators: what those that need nothing of it say of pictures, sound, order and rows."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from pydantic import BaseModel

from engines.models.publishers import where_to_get
from engines.options import parse_options
from engines.part import Part, Tick, Value
from engines.planned import Arrays
from engines.ports import BatchCounts, Session
from schemas.errors import DeviceLost, PipelineError, RigflowError
from schemas.model import ModelSpec, TensorSpec
from schemas.picture import PictureSpec
from schemas.pipeline import OperatorStage

OptionsT = TypeVar("OptionsT", bound=BaseModel)


def model_hint(example: str, refused: ModelSpec | None = None) -> str:
    """What to do where a stage runs no model, or one that does not fit and may be called as the right one."""
    if refused is not None and refused.name == example:
        get = where_to_get(example)
        return f"`rigflow model show {example}` says what it is; the right one: {get}" if get else "add the right one"
    return f'name one: model = "{example}"'


def required_model(stage: OperatorStage, model: ModelSpec | None, hint: str = 'name one: model = "NAME"') -> ModelSpec:
    """Return the model of a stage. Raises PipelineError where it names none."""
    if model is None:
        raise PipelineError(f"stage `{stage.name}` runs no model", hint)
    return model


def each_part(parts: Sequence[Part], make: Callable[[Part], Part]) -> list[Part | RigflowError]:
    """Return what is made of each part, or its error. Raises DeviceLost, which ends the work on all of them."""
    outcomes: list[Part | RigflowError] = []
    for part in parts:
        try:
            outcomes.append(make(part))
        except DeviceLost:
            raise
        except RigflowError as error:
            outcomes.append(error)
    return outcomes


def each_row(part: Part, make: Callable[[int], None]) -> dict[int, RigflowError]:
    """Call `make` with the number of each row; return the errors. Of timed media, the first one is raised."""
    errors: dict[int, RigflowError] = {}
    for number in range(len(part.meta.pts)):
        try:
            make(number)
        except DeviceLost:
            raise
        except RigflowError as error:
            if part.meta.media.timed:
                raise
            errors[number] = error
    return errors


def with_rows(
    part: Part,
    made: Mapping[str, Value],
    errors: Mapping[int, RigflowError],
    keeps: Sequence[str],
    notes: Iterable[str],
) -> Part:
    """Return a part with arrays that have a row for each row without an error, and with further notes."""
    told = tuple(dict.fromkeys([*part.meta.notes, *notes]))
    if not errors:
        return part.with_arrays(made, notes=told)
    rest = part.without_failed(errors, keeps)
    return rest.with_arrays({**rest.arrays, **made}, notes=told)


class BaseOperator(Generic[OptionsT]):
    """An operator adds `options_class`, `plan` of `engines.ports.Operator`, and `apply`."""

    options_class: type[OptionsT]
    needs_model = False
    in_order = False
    entire_media: tuple[str, ...] = ()
    of_texts = False
    anywhere = False
    """Whether `apply` takes arrays where they are, on a GPU too; otherwise it gets them on the host."""

    def __init__(self, stage: OperatorStage, model: ModelSpec | None) -> None:
        self._stage = stage
        self._options = parse_options(self.options_class, stage, stage.kind)
        self.counts = BatchCounts()

    @property
    def by_source(self) -> bool:
        """Whether shapes of its arrays depend on the size of the frame."""
        return False

    def pictures(self, inputs: Arrays) -> Mapping[str, PictureSpec]:
        """Return no pictures: decode makes none for this operator."""
        return {}

    def sounds(self, inputs: Arrays) -> Mapping[str, TensorSpec]:
        """Return no sound: decode makes none for this operator."""
        return {}

    @property
    def head_s(self) -> float:
        """Of how many seconds at the beginning of a media of sound each part is to have the array `head`."""
        return 0.0

    def rows(self, part: Part) -> int:
        """Return the number of windows."""
        return len(part.meta.pts)

    def apply(self, part: Part) -> Mapping[str, Value]:
        """Return the arrays that it makes of a part. Raises RigflowError for this part only."""
        raise NotImplementedError

    def run(self, parts: Sequence[Part], session: Session | None, tick: Tick) -> list[Part | RigflowError]:
        """Return each part with the arrays of `apply`, or its error."""
        outcomes: list[Part | RigflowError] = []
        for part in parts:
            try:
                outcomes.append(part.with_arrays(self.apply(part if self.anywhere else part.on_host())))
            except RigflowError as error:
                outcomes.append(error)
            tick()
        return outcomes
