"""What a pipeline file may say.

A pipeline is a name, a kind of media and a list of stages. Its `revision` is the hash of everything that decides its
answers: the stages and the identities of the models. Jobs are pinned to a revision.
"""

import re
import tomllib
from fractions import Fraction
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import (
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from schemas.declared import TOKEN as TOKEN
from schemas.declared import ModelName as ModelName
from schemas.declared import ModelRef as ModelRef
from schemas.declared import Name as Name
from schemas.declared import Spec as Spec
from schemas.declared import digest
from schemas.declared import is_token as is_token
from schemas.errors import PipelineError, UsageError, reason_of
from schemas.grid import Grid
from schemas.model import ModelSpec as ModelSpec
from schemas.model import TensorSpec as TensorSpec
from schemas.model import describe as describe


class Window(Spec):
    """A temporal model's view: `frames` ticks, a new window each `stride` ticks."""

    frames: int = Field(ge=1, le=1024)
    stride: int = Field(default=1, ge=1, le=1024)


class DecodeStage(Spec):
    """Compressed segment -> frames on the time grid; `fps` left out means every frame.

    `deinterlace` makes whole pictures of frames that are coded as two fields, `tonemap` BT.709 of PQ and HLG.
    """

    kind: Literal["decode"]
    name: Name = "decode"
    stream: int | None = Field(default=None, ge=0, description="index of the video stream, if not FFmpeg's best one")
    fps: float | None = Field(default=None, gt=0, le=1000)
    deinterlace: bool = False
    tonemap: bool = False


class PreprocessStage(Spec):
    """Frames -> uint8 arrays.

    `layout` `rgb`: `pixels [F, H, W, 3]`; `gray`: `pixels [F, H, W]`; `planes`: each plane of the frame as it is,
    `plane0 [F, H, W]`, `plane1 [F, H', W']` ..., without resizing. Always with `index [W, T]` int32, the rows of
    each window, and upright (turned and mirrored as metadata say). `resize` `area` averages what a pixel covers;
    `bilinear` looks at its two nearest neighbours a side, as PyTorch does: for models that were trained so.
    """

    kind: Literal["preprocess"]
    name: Name = "preprocess"
    size: tuple[Annotated[int, Field(ge=1, le=8192)], Annotated[int, Field(ge=1, le=8192)]] | None = None
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    resize: Literal["area", "bilinear"] = "area"
    layout: Literal["rgb", "gray", "planes"] = "rgb"
    window: Window = Window(frames=1)

    @model_validator(mode="after")
    def _size_fits_layout(self) -> Self:
        if (self.size is None) != (self.layout == "planes"):
            raise ValueError("layout planes keeps the frame's own size; rgb and gray need a size")
        return self


class InferStage(Spec):
    """Arrays -> arrays by a model.

    The model's inputs are read from the arrays of the same names; `reads` maps other names, input -> array. With
    `each`, a model of one input and one output runs over every array in `each` by turns and replaces it. `keeps`
    names arrays that later stages still want beside the outputs.
    """

    kind: Literal["infer"]
    name: Name = "infer"
    model: ModelRef
    max_batch: int = Field(default=32, ge=1, le=4096)
    max_delay_ms: float = Field(default=5.0, ge=0, le=10_000)
    reads: dict[str, str] = Field(default={})
    each: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()


class EncodeStage(Spec):
    """Arrays -> the job's results. `format` names a module of engines/outputs; `options` are that format's own."""

    kind: Literal["encode"]
    name: Name = "encode"
    format: Literal["npz", "jsonl", "detections", "tags", "embeddings", "shots", "video", "image", "annotated"]
    options: dict[str, bool | int | float | str] = Field(default={})


Stage: TypeAlias = Annotated[DecodeStage | PreprocessStage | InferStage | EncodeStage, Field(discriminator="kind")]
_ORDER = ("decode", "preprocess", "infer", "encode")


class PipelineSpec(Spec):
    """A whole pipeline: `decode, preprocess, infer..., encode` over one kind of media."""

    name: Name
    description: str = ""
    media: tuple[Literal["video", "image"], ...] = ("video",)
    segment_s: float = Field(default=4.0, gt=0, le=3600, description="least length of a segment, in seconds")
    stage: tuple[Stage, ...]
    models: dict[str, str] = Field(default={}, description="model -> its identity; filled in when it is published")

    @field_validator("media", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _stages_in_order(self) -> Self:
        kinds = [stage.kind for stage in self.stage]
        expected = ["decode", "preprocess", *["infer"] * kinds.count("infer"), "encode"]
        if kinds != expected:
            raise ValueError(
                f"stages must be decode, preprocess, any number of infer, encode; found {', '.join(kinds)}"
            )
        names = [stage.name for stage in self.stage]
        if len(set(names)) != len(names):
            raise ValueError(f"two stages share a name; give each its own `name`: {', '.join(names)}")
        if self.decode.fps is None and self.preprocess.window.stride != 1:
            raise ValueError("a window stride over 1 needs `fps` in the decode stage, for frames have no global number")
        return self

    @property
    def decode(self) -> DecodeStage:
        """The decode stage."""
        stage = self.stage[0]
        assert isinstance(stage, DecodeStage)
        return stage

    @property
    def preprocess(self) -> PreprocessStage:
        """The preprocess stage."""
        stage = self.stage[1]
        assert isinstance(stage, PreprocessStage)
        return stage

    @property
    def encode(self) -> EncodeStage:
        """The encode stage."""
        stage = self.stage[-1]
        assert isinstance(stage, EncodeStage)
        return stage

    @property
    def infers(self) -> tuple[InferStage, ...]:
        """The infer stages, in order."""
        return tuple(stage for stage in self.stage if isinstance(stage, InferStage))

    def check_takes(self, kind: str) -> None:
        """Raises UsageError when media of this kind, `video` or `image`, are not for this pipeline."""
        if kind not in self.media:
            hint = "see `rigflow pipelines list`"
            raise UsageError(f"pipeline {self.name} takes {' and '.join(self.media)}, this is {kind}", hint)

    @property
    def grid(self) -> Grid:
        """The time grid that decode and preprocess declare together."""
        fps, window = self.decode.fps, self.preprocess.window
        return Grid(None if fps is None else Fraction(str(fps)), window.frames, window.stride)

    def with_stream(self, stream: int | None) -> Self:
        """The pipeline that takes the video stream of that index; None: as it is."""
        if stream is None:
            return self
        decode = self.decode.model_copy(update={"stream": stream})
        return self.model_copy(update={"stage": (decode, *self.stage[1:])})

    @property
    def revision(self) -> str:
        """Hash of all that decides the answers, 16 hex digits; `models` must be filled in."""
        return digest(self.model_dump(mode="json", exclude={"description"}))[:16]

    def next_stage(self, name: str) -> Stage | None:
        """The stage after the one called `name`; None after the last."""
        names = [stage.name for stage in self.stage]
        after = names.index(name) + 1
        return self.stage[after] if after < len(self.stage) else None


def parse_pipeline(text: str, source: str) -> PipelineSpec:
    """A pipeline from the text of its file; `source` names it in errors. Raises PipelineError with line and field."""
    try:
        return PipelineSpec.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise PipelineError(f"{source}: not TOML, {error}", "see docs/pipelines.md for an example") from error
    except ValidationError as error:
        raise _pipeline_errors(error, text, source)[0] from error


def check_pipeline(text: str, source: str) -> list[PipelineError]:
    """Everything that is wrong with the text of a pipeline file, each with line and field; nothing when it is fine."""
    try:
        PipelineSpec.model_validate(tomllib.loads(text))
    except ValidationError as error:
        return _pipeline_errors(error, text, source)
    except tomllib.TOMLDecodeError as error:
        return [PipelineError(f"{source}: not TOML, {error}", "see docs/pipelines.md for an example")]
    return []


def _pipeline_errors(error: ValidationError, text: str, source: str) -> list[PipelineError]:
    found = []
    for detail in error.errors():
        path = [part for part in detail["loc"] if part not in _ORDER]
        field = ".".join(str(part) for part in path) or "the file"
        found.append(PipelineError(f"{source}, line {_line_of(text, path)}, {field}", reason_of(detail)))
    return found


def _line_of(text: str, path: list[str | int]) -> int:
    """1-based line of the field at `path` in TOML `text`; the table's line when the field is missing."""
    lines = text.splitlines()
    start, end = 0, len(lines)
    if len(path) > 1 and path[0] == "stage" and isinstance(path[1], int):
        heads = [number for number, line in enumerate(lines) if re.match(r"\s*\[\[\s*stage\s*\]\]", line)]
        if path[1] < len(heads):
            start, end = heads[path[1]], (*heads, len(lines))[path[1] + 1]
    for part in path:
        pattern = re.compile(rf"^\s*\[*\s*\"?{re.escape(str(part))}\"?\s*[\]=.]")
        hit = next((n for n in range(start, end) if isinstance(part, str) and pattern.match(lines[n])), None)
        start = start if hit is None else hit
    return start + 1
