"""Shared by all formats: their options, files, and the arrays with one row a window."""

from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import ClassVar, Generic, Literal, TypeAlias, TypeVar

from engines.encoding import PictureEncoder
from engines.files import PartFile
from engines.options import Options
from engines.options import parse_options as parse_stage_options
from engines.part import Array, Part, Value, holds_frames
from engines.planned import Tensor
from engines.ragged import Ragged
from schemas.errors import PipelineError
from schemas.media import MediaInfo
from schemas.pipeline import EncodeStage
from schemas.segments import Fragment

OptionsT = TypeVar("OptionsT", bound=Options)
Labels: TypeAlias = Mapping[str, tuple[str, ...]]
"""Array -> what its values, or its columns, stand for; `NAME.categories` -> the category of each label of NAME;
`NAME.utf8` is there if the rows of NAME are texts."""


class BaseFormat(Generic[OptionsT]):
    """Base of the formats; a format adds `check`, `encode` and `assemble` of `engines.encoding.Format`.

    `labels` come with the plan of the pipeline; `encoder` encodes pictures as H.264, by default x264.
    """

    options_class: type[OptionsT]

    def __init__(self, stage: EncodeStage, labels: Labels | None = None, encoder: PictureEncoder | None = None) -> None:
        self._options = parse_options(self.options_class, stage)
        self._labels = labels or {}
        self._encoder = encoder

    anywhere = False
    stored: ClassVar[Mapping[str, float]] = {}

    @property
    def each(self) -> tuple[str, ...]:
        """Return the suffixes of the files that it writes of each image."""
        return ()

    @property
    def sound(self) -> Literal["copy", "aac"] | None:
        """Return how a media's sound is written; None if the format cannot hold tracks beside the picture."""
        return None


class FileAssembler:
    """Base of assemblers of one file, `<target>.<suffix>`, without tracks; an assembler adds `add`."""

    def __init__(self, target: Path, suffix: str, media: MediaInfo) -> None:
        self.notes: list[str] = []
        self.media = media
        self.file = PartFile.create(target.with_name(f"{target.name}.{suffix}"))

    def add_tracks(self, fragment: Fragment, arrays: Mapping[str, Array]) -> None:
        """Leave tracks out: the file cannot hold them."""

    def close(self) -> list[Path]:
        """Finish the file. Raises OutputError."""
        return [self.file.commit()]

    def abort(self) -> None:
        """Remove the unfinished file."""
        self.file.discard()


def parse_options(kind: type[OptionsT], stage: EncodeStage) -> OptionsT:
    """The stage's options as `kind`. Raises PipelineError that names the option."""
    return parse_stage_options(kind, stage, f"format {stage.format}")


_ONE_ROW = "a model must give one row a window"
_FRAMES = frozenset(("index", "frame_size", "frame_info", *(f"frame{n}" for n in range(4))))


def is_output(name: str) -> bool:
    """Return whether the array of that name is an output of a model, and not made of the frames."""
    return name not in _FRAMES and not holds_frames(name)


def check_window_arrays(arrays: Mapping[str, Tensor], reserved: Set[str]) -> None:
    """Raise PipelineError if `window_arrays` refuses every part that holds such arrays."""
    outputs = {name: array for name, array in arrays.items() if is_output(name)}
    if not outputs:
        raise PipelineError("the part holds frames and no output of a model", "add an infer stage before encode")
    check_reserved(outputs, reserved)
    for name, array in outputs.items():
        if array.shape[0] == "F":
            raise PipelineError(
                f"output `{name}` has a row a frame, and a window is several frames",
                "take a model that takes windows, or windows of one frame",
            )


def check_reserved(outputs: Iterable[str], reserved: Set[str]) -> None:
    """Raise PipelineError if a format writes its own data under the name of an output."""
    if taken := reserved & set(outputs):
        raise PipelineError(f"output `{min(taken)}`: the format uses that name itself", "rename the output")


def window_arrays(part: Part, reserved: Set[str]) -> dict[str, Value]:
    """Return the arrays with one row a window (a model's outputs), without those of the frames.

    Raises PipelineError if windows have no outputs, an output has another number of rows, or its name is one of
    `reserved`, which the format writes itself.
    """
    windows = len(part.meta.pts)
    held: Mapping[str, Value] = part.arrays
    arrays = {name: array for name, array in held.items() if is_output(name)}
    if windows and not arrays:
        raise PipelineError("the part holds frames and no output of a model", "add an infer stage before encode")
    check_reserved(arrays, reserved)
    for name, array in arrays.items():
        check_rows(name, array, windows)
    return arrays


def check_rows(name: str, array: Value, windows: int) -> None:
    """Raise PipelineError unless an output has one row for each of `windows` windows."""
    if isinstance(array, Ragged):
        if len(array) != windows:
            raise PipelineError(f"output `{name}` has {len(array)} rows for {windows} windows", _ONE_ROW)
    elif array.ndim == 0 or len(array) != windows:
        raise PipelineError(f"output `{name}` has shape {list(array.shape)} for {windows} windows", _ONE_ROW)


def row_of(array: Value, number: int) -> Array:
    """Return one row of an array, or of a ragged one."""
    row: Array = array.row(number) if isinstance(array, Ragged) else array[number]
    return row
