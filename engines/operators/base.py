"""Base of operators: what those that need nothing of it say of pictures, sound, order and rows."""

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from pydantic import BaseModel

from engines.options import parse_options
from engines.part import Part, Tick, Value
from engines.planned import Arrays
from engines.ports import BatchCounts, Session
from schemas.errors import PipelineError, RigflowError
from schemas.model import ModelSpec, TensorSpec
from schemas.picture import PictureSpec
from schemas.pipeline import OperatorStage

OptionsT = TypeVar("OptionsT", bound=BaseModel)


def required_model(stage: OperatorStage, model: ModelSpec | None, hint: str = 'name one: model = "NAME"') -> ModelSpec:
    """Return the model of a stage. Raises PipelineError where it names none."""
    if model is None:
        raise PipelineError(f"stage `{stage.name}` runs no model", hint)
    return model


class BaseOperator(Generic[OptionsT]):
    """An operator adds `options_class`, `plan` of `engines.ports.Operator`, and `apply`."""

    options_class: type[OptionsT]
    needs_model = False
    in_order = False
    entire_media: tuple[str, ...] = ()
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
