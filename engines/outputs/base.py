"""What formats share: their options, and the arrays with a row a window."""

from collections.abc import Iterable, Mapping, Set
from typing import TypeVar

from engines import options
from engines.heads.base import Tensor
from engines.part import Array, Part
from engines.ports import Options
from schemas.errors import PipelineError
from schemas.pipeline import EncodeStage

OptionsT = TypeVar("OptionsT", bound=Options)


def parse_options(kind: type[OptionsT], stage: EncodeStage) -> OptionsT:
    """The stage's options as `kind`. Raises PipelineError that names the option."""
    return options.parse_options(kind, stage, f"format {stage.format}")


_FRAME_ARRAYS = frozenset(("index", "pixels", *(f"{kind}{n}" for kind in ("frame", "plane") for n in range(4))))


def check_window_arrays(arrays: Mapping[str, Tensor], reserved: Set[str]) -> None:
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
        if isinstance(array, Ragged) or array.ndim == 0 or len(array) != windows:
            raise PipelineError(
                f"output `{name}` has shape {list(array.shape)} for {windows} windows",
                "a model must give one row a window",
            )
    return arrays
