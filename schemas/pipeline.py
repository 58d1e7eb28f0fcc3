"""What a pipeline file may say.

A pipeline is a name, kinds of media and a list of stages. Its `revision` is the hash of everything that decides its
answers: the stages, the identities of the models, and the versions of plugins. Jobs are pinned to a revision.
"""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Any, Literal, Self, TypeAlias, TypeVar

from pydantic import (
    Discriminator,
    Field,
    JsonValue,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from schemas.declared import ModelRef, Name, Spec, digest
from schemas.errors import PipelineError, reason_of
from schemas.grid import MOST_WARM_UP, Grid
from schemas.known_fields import hint_of
from schemas.toml import TomlError, line_of, parse_toml

T = TypeVar("T")
MOST_STAGES = 64  # the broker has a stream for each
MOST_REPORTED = 20  # errors of one file
_MOST_DENOMINATOR = 1_000_000  # of fps: 29.97002997 is 30000/1001, and containers have 31 bits for either number


class Window(Spec):
    """A temporal model's view: `frames` ticks, a new window each `stride` ticks."""

    frames: int = Field(ge=1, le=1 << 24)
    stride: int = Field(default=1, ge=1, le=1 << 24)


class OptionsBeside(Spec):
    """Base of stages whose options stand beside their fields in TOML: all that is no field is one of `options`."""

    options: dict[str, JsonValue] = Field(default={})

    @model_validator(mode="before")
    @classmethod
    def _gather_options(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        fields = {key: value for key, value in given.items() if key in cls.model_fields}
        options = {key: value for key, value in given.items() if key not in cls.model_fields}
        named = {"name": given.get("kind"), **fields}
        return {**named, "options": {**fields.get("options", {}), **options}} if options else named


class DecodeStage(OptionsBeside):
    """Segment -> what its medium decodes on the time grid; `fps` left out means every frame.

    `window`: what a temporal model looks at; windows of one frame are frames. `warm_up`: over how many windows before
    its own a segment runs models with a state, whose answers to these are dropped; left out, it is what the cards of
    the models say, one after the other. `options` are those of the
    pipeline's media (see `engines.media.medium`).
    """

    kind: Literal["decode"]
    name: Name = "decode"
    stream: int | None = Field(default=None, ge=0, le=10_000, description="index, if not FFmpeg's best stream")
    fps: float | None = Field(default=None, ge=1e-6, le=1_000_000)
    window: Window = Window(frames=1)
    warm_up: int | None = Field(
        default=None,
        ge=0,
        le=MOST_WARM_UP,
        description="windows that models with a state see before a segment, if not what their cards say",
    )


class OperatorStage(OptionsBeside):
    """Arrays -> arrays, by the operator called `kind` (see `engines.operators`); `options` are the operator's own.

    In a pipeline's TOML the options stand beside `kind`. `model` is for operators that run one, with batches of at most
    `max_batch` rows, which wait `max_delay_ms` for others. `reads` maps what the operator reads to the names of arrays;
    `each`: it runs over each of these arrays, one after the other, and replaces it; `items`: a ragged array, whose
    items are the rows of the model; `keeps`: arrays that later stages still want beside what the operator gives;
    `gives` maps names of what it gives to others; `head`: options in place of the head's; `raw`: see `of_graph`.
    """

    kind: Name
    name: Name
    model: ModelRef | None = None
    head: dict[str, JsonValue] = Field(default={})
    raw: bool = False
    max_batch: int = Field(default=32, ge=1, le=4096)
    max_delay_ms: float = Field(default=5.0, ge=0, le=10_000)
    reads: dict[str, str] = Field(default={})
    each: tuple[str, ...] = ()
    items: str = ""
    keeps: tuple[str, ...] = ()
    gives: dict[str, str] = Field(default={})

    def named(self, made: Mapping[str, T]) -> dict[str, T]:
        """Return what its operator made by the names that it gives."""
        return {self.gives.get(name, name): value for name, value in made.items()}

    @property
    def batches(self) -> bool:
        """Whether parts of several segments and jobs run together, which is so where the stage runs a model."""
        return self.model is not None


class EncodeStage(Spec):
    """Arrays -> the job's results, by the format of that name (see `engines.outputs`); `options` are its own."""

    kind: Literal["encode"]
    name: Name = "encode"
    format: Name
    options: dict[str, JsonValue] = Field(default={})


def _tag(stage: Any) -> str:
    kind = stage.get("kind") if isinstance(stage, dict) else getattr(stage, "kind", None)
    return kind if kind in ("decode", "encode") else "operator"


Stage: TypeAlias = Annotated[
    Annotated[DecodeStage, Tag("decode")]
    | Annotated[OperatorStage, Tag("operator")]
    | Annotated[EncodeStage, Tag("encode")],
    Discriminator(_tag),
]
_TAGS = ("decode", "operator", "encode")


def problems_of_order(kinds: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    """What is wrong with the kinds and the names of the stages of a pipeline together."""
    if list(kinds[:1]) != ["decode"] or list(kinds[-1:]) != ["encode"] or {"decode", "encode"} & {*kinds[1:-1]}:
        yield f"stages must be decode, any operators, encode; found {', '.join(kinds) or 'none'}"
    if len(set(names)) != len(names):
        yield f"two stages share a name; give each its own `name`: {', '.join(names)}"


class PipelineSpec(Spec):
    """A whole pipeline: `decode`, any operators, `encode`, over one kind of media or several."""

    name: Name
    description: str = ""
    media: tuple[Name, ...]
    segment_s: float = Field(default=4.0, gt=0, le=3600, description="least length of a segment, in seconds")
    stage: tuple[Stage, ...]
    models: dict[str, str] = Field(default={}, description="model -> its identity; filled in when it is published")
    plugins: dict[str, str] = Field(
        default={}, description="group/name of a class of an installed package -> package and version; as `models`"
    )
    signatures: tuple[str, ...] = Field(
        default=(),
        max_length=64,
        exclude_if=lambda signatures: not signatures,
        description="PUBLIC_KEY:SIGNATURE of who published it by an nkey; as `models`",
    )

    @field_validator("media", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("media")
    @classmethod
    def _some_each_once(cls, media: tuple[str, ...]) -> tuple[str, ...]:
        if not media or len(set(media)) != len(media):
            raise ValueError("name each kind of media once that the pipeline takes")
        return media

    @field_validator("stage", mode="before")
    @classmethod
    def _not_too_many(cls, stages: Any) -> Any:
        if isinstance(stages, list | tuple) and len(stages) > MOST_STAGES:
            raise ValueError(f"there are {len(stages)} stages, and a pipeline has at most {MOST_STAGES}")
        return stages

    @model_validator(mode="after")
    def _stages_in_order(self) -> Self:
        for problem in problems_of_order([stage.kind for stage in self.stage], [stage.name for stage in self.stage]):
            raise ValueError(problem)
        if self.decode.fps is None and self.decode.window.stride != 1:
            raise ValueError("a window stride over 1 needs `fps`, because frames have no number of their own")
        return self

    @property
    def decode(self) -> DecodeStage:
        """The decode stage."""
        stage = self.stage[0]
        assert isinstance(stage, DecodeStage)
        return stage

    @property
    def encode(self) -> EncodeStage:
        """The encode stage."""
        stage = self.stage[-1]
        assert isinstance(stage, EncodeStage)
        return stage

    @property
    def operators(self) -> tuple[OperatorStage, ...]:
        """The stages between decode and encode, in order."""
        return tuple(stage for stage in self.stage if isinstance(stage, OperatorStage))

    @property
    def model_names(self) -> dict[str, str]:
        """Stage -> the model that it runs, in order, without stages that run none."""
        return {stage.name: stage.model for stage in self.operators if stage.model is not None}

    @property
    def grid(self) -> Grid:
        """The time grid that the decode stage declares."""
        fps, window = self.decode.fps, self.decode.window
        return Grid(
            None if fps is None else Fraction(str(fps)).limit_denominator(_MOST_DENOMINATOR),
            window.frames,
            window.stride,
            self.decode.warm_up or 0,
        )

    def with_stream(self, stream: int | None) -> Self:
        """The pipeline that takes the stream of that index; None: as it is."""
        if stream is None:
            return self
        decode = self.decode.model_copy(update={"stream": stream})
        return self.model_copy(update={"stage": (decode, *self.stage[1:])})

    def with_model(self, model: str | None) -> Self:
        """The pipeline with this model in its one stage with a model, or that of its own name. Raises PipelineError."""
        if model is None:
            return self
        stages = [self.name] if self.name in self.model_names else list(self.model_names)
        if len(stages) != 1:
            what = f"pipeline {self.name} runs a model in {len(stages)} stages{': ' * bool(stages)}{', '.join(stages)}"
            raise PipelineError(what, "say which, as in --set STAGE.model=NAME" if stages else "leave out --model")
        return self.with_fields({f"{stages[0]}.model": model})

    def with_fields(self, fields: Mapping[str, JsonValue]) -> Self:
        """The pipeline with other values of fields and options of stages, `stage.field`. Raises PipelineError."""
        made = self
        for path, value in fields.items():
            name, _, field = path.partition(".")
            stages = {stage.name: stage for stage in made.stage}
            if name not in stages or not field or field in ("kind", "name"):
                hint = f"write STAGE.FIELD=VALUE; its stages are {', '.join(stages)}"
                raise PipelineError(f"pipeline {self.name} has no field {path}", hint)
            given = stages[name].model_dump()
            first, *inner = field.split(".")
            at = given if first in type(stages[name]).model_fields else given["options"]
            for part in [first, *inner][:-1]:
                at[part] = at = dict(at[part]) if isinstance(at.get(part), dict) else {}
            at[[first, *inner][-1]] = value
            changed = [given if stage.name == name else stage for stage in made.stage]
            try:
                made = type(self).model_validate({**dict(made), "stage": changed})
            except ValidationError as error:
                detail = error.errors()[0]
                what = f"pipeline {self.name}, {path}: {reason_of(detail)}"
                raise PipelineError(what, hint_of(detail, type(self))) from error
        return made

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides the answers, 64 hex digits; `models` and `plugins` must be filled in."""
        return digest(self.model_dump(mode="json", exclude={"description", "signatures"}))

    @property
    def revision(self) -> str:
        """The first 16 digits of `digest`."""
        return self.digest[:16]

    def next_stage(self, name: str) -> Stage | None:
        """The stage after the one called `name`; None after the last."""
        names = [stage.name for stage in self.stage]
        after = names.index(name) + 1
        return self.stage[after] if after < len(self.stage) else None


def parse_pipeline(text: str, source: str) -> PipelineSpec:
    """A pipeline from the text of its file; `source` names it in errors. Raises PipelineError with line and field."""
    try:
        return PipelineSpec.model_validate(parse_toml(text))
    except TomlError as error:
        raise PipelineError(f"{source}: not TOML, {error}", "see docs/pipelines.md for an example") from error
    except ValidationError as error:
        raise pipeline_errors(error, text, source)[0] from error


def pipeline_errors(error: ValidationError, text: str, source: str) -> list[PipelineError]:
    """The first errors of the text of a pipeline file, each with line and field."""
    found = []
    for detail in error.errors()[:MOST_REPORTED]:
        path = [part for part in detail["loc"] if part not in _TAGS]
        field = ".".join(str(part) for part in path) or "the file"
        is_option = detail["type"] == "extra_forbidden" and "encode" in detail["loc"]
        hint = hint_of(detail, PipelineSpec, "options of a format stand in `options`, { NAME = VALUE }" * is_option)
        found.append(PipelineError(f"{source}, line {line_of(text, path)}, {field}: {reason_of(detail)}", hint))
    return found
