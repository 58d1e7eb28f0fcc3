"""What a format is: it encodes parts one by one in workers, and assembles a job in order in the collector."""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from engines.part import Array, Part, Tick, no_tick
from schemas.errors import PipelineError, reason_of
from schemas.messages import Fragment, MediaInfo, PartMeta
from schemas.pipeline import EncodeStage, TensorSpec


@dataclass(frozen=True, slots=True)
class Encoded:
    """What became of one part: the arrays and `facts` (plain JSON) of its Result."""

    arrays: dict[str, Array]
    facts: dict[str, Any] = field(default_factory=dict)


class Assembler(Protocol):
    """Makes a job's files from its parts. After an error, from here or elsewhere, call `abort`."""

    @property
    def notes(self) -> list[str]:
        """What was out of the ordinary, in words."""
        ...

    def add(self, meta: PartMeta, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
        """Takes the next part in order of (segment, part). Raises OutputError when it cannot be written."""
        ...

    def add_tracks(self, fragment: Fragment, arrays: Mapping[str, Array]) -> None:
        """Takes what a segment has beside the picture, before the segment's parts."""
        ...

    def close(self) -> list[Path]:
        """Gives the finished files their names, and returns them. Raises OutputError when they cannot be written."""
        ...

    def abort(self) -> None:
        """Leaves nothing behind. May be called twice; after `close` it does nothing."""
        ...


class Format(Protocol):
    """One kind of result. Has no state: any worker may encode any part, in any order."""

    def check(self, arrays: Mapping[str, TensorSpec], media: Sequence[str]) -> None:
        """Raise PipelineError if parts that hold such arrays can never be encoded for one of these kinds of media."""
        ...

    def encode(self, part: Part, tick: Tick = no_tick) -> Encoded:
        """What the part becomes; a function of the part and the stage's options alone.

        `tick` is called after each picture, where encoding one takes long.
        Raises PipelineError when the part lacks the arrays that the format is about.
        """
        ...

    def assemble(self, target: Path, media: MediaInfo) -> Assembler:
        """Starts the files of a job. `target` has no suffix; the format adds its own.

        Nothing is at the final path before `close`. Raises OutputError when the folder cannot be written.
        """
        ...


class Options(BaseModel):
    """Base of a format's options: immutable, unknown ones are errors, and so is a number in quotes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


OptionsT = TypeVar("OptionsT", bound=Options)


def parse_options(kind: type[OptionsT], stage: EncodeStage) -> OptionsT:
    """The stage's options as `kind`. Raises PipelineError that names the option."""
    try:
        return kind.model_validate(stage.options)
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(str(part) for part in first["loc"])
        known = ", ".join(kind.model_fields) or "none"
        if first["type"] == "extra_forbidden":
            what = f"stage {stage.name}: format {stage.format} has no option `{option}`"
        else:
            what = f"stage {stage.name}, option {option}: {reason_of(first)}, found {first['input']!r}"
        raise PipelineError(what, f"the options of {stage.format} are: {known}") from error


_FRAME_ARRAYS = frozenset(("index", "pixels", *(f"{kind}{n}" for kind in ("frame", "plane") for n in range(4))))


def check_window_arrays(arrays: Mapping[str, TensorSpec], reserved: Set[str]) -> None:
    """Raise PipelineError if `window_arrays` refuses every part that holds such arrays."""
    outputs = {name: array for name, array in arrays.items() if name not in _FRAME_ARRAYS}
    if not outputs:
        raise PipelineError("the part holds frames and no output of a model", "add an infer stage before encode")
    check_reserved(outputs, reserved)
    for name, array in outputs.items():
        if array.shape[0] == "F":
            raise PipelineError(
                f"output `{name}` has a row a frame, and a window is several frames",
                "take a model that sees windows, or windows of one frame",
            )


def check_reserved(outputs: Iterable[str], reserved: Set[str]) -> None:
    """Raise PipelineError if a format writes something of its own under the name of an output."""
    if taken := reserved & set(outputs):
        raise PipelineError(f"output `{min(taken)}`: the format needs that name for itself", "rename the output")


def window_arrays(part: Part, reserved: Set[str]) -> dict[str, Array]:
    """The arrays with one row a window (a model's outputs), without those of the frames.

    Raises PipelineError when windows have no outputs, an output has another number of rows, or its name is one of
    `reserved`, which the format writes itself.
    """
    windows = len(part.meta.pts)
    arrays = {name: array for name, array in part.arrays.items() if name not in _FRAME_ARRAYS}
    if windows and not arrays:
        raise PipelineError("the part holds frames and no output of a model", "add an infer stage before encode")
    check_reserved(arrays, reserved)
    for name, array in arrays.items():
        if array.ndim == 0 or len(array) != windows:
            raise PipelineError(
                f"output `{name}` has shape {list(array.shape)} for {windows} windows",
                "a model must give one row a window",
            )
    return arrays
