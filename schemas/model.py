"""The model card: names and shapes, how inputs are made, and the meaning of outputs.

A model card is written for a model as it was exported. An import puts the arithmetic of its inputs in front of the
graph, so that a model that travels takes pictures as bytes; see `engines.models.front`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from pydantic import Field, FiniteFloat, JsonValue, model_validator

from schemas.declared import ModelName, Name, Spec, digest
from schemas.errors import ModelError
from schemas.fields import Label
from schemas.grid import MOST_WARM_UP
from schemas.model_files import Files, TextSpec
from schemas.picture import PictureFields, PictureSize, PictureSpec
from schemas.recogniser import RecogniserSpec
from schemas.speech import SpeechSpec

Layout: TypeAlias = Literal["nchw", "nhwc", "nhw", "ncwh", "nwhc", "nwh", "ntchw", "ncthw", "nthwc", "nthw"]
TEXT_TOWER = "text-tower"  # the backend of towers of texts
PerChannel: TypeAlias = FiniteFloat | tuple[FiniteFloat, ...]


class SoundSpec(Spec):
    """How sound becomes a window of samples, one channel of -1 ... 1 (of int16, -32767 ... 32767).

    `rate` in Hz. A window has `samples` new ones, behind the last `context` of the window before.
    """

    rate: int = Field(ge=1, le=768_000)
    samples: int = Field(ge=1, le=1 << 26)
    context: int = Field(default=0, ge=0, le=1 << 26)

    @property
    def width(self) -> int:
        """How many samples the model takes: those of the context, too."""
        return self.context + self.samples


class BandsSpec(Spec):
    """How sound of 16 kHz becomes the energies of bands, `[N, T, bands]`, a row each 10 ms.

    `kind`: "mel", librosa's mel spectrogram, or "fbank", Kaldi's, with the `window` "povey" or "hamming", of samples
    `gain` times as large. `level_db`: sound below this level is made louder before. `centre`: the mean of each band is
    taken off.
    """

    kind: Literal["mel", "fbank"]
    window: Literal["povey", "hamming"] = "povey"
    gain: float = Field(default=1.0, gt=0, le=65536)
    level_db: float | None = Field(default=None, ge=-100, le=0)
    centre: bool = False


class StateSpec(Spec):
    """An input that is an output of the run before, in the order of a segment's rows; `start` is its first value.

    `warm_up`: how many windows the state remembers, over which a segment runs the model before its own.
    """

    output: str
    start: FiniteFloat = 0.0
    warm_up: int = Field(default=0, ge=0, le=MOST_WARM_UP)


class TensorSpec(Spec):
    """One input or output of a model: a dimension is a number, or a name where it is free.

    `range`: the least and the largest value that an input of floats takes; engines are tested in it. `picture`: how a
    frame becomes this input. `sound`: how sound does; `bands`: how its bands do. `state`: which output of the run
    before is this input.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    range: tuple[FiniteFloat, FiniteFloat] | None = None
    picture: PictureSpec | None = None
    sound: SoundSpec | None = None
    bands: BandsSpec | None = None
    state: StateSpec | None = None


def describe(dtype: str, shape: Sequence[int | str]) -> str:
    """A tensor in words, as in `uint8 [N, 32, 32]`."""
    return f"{dtype} [{', '.join(str(size) for size in shape)}]"


def fits(tensor: TensorSpec, dtype: str, shape: Sequence[int | str]) -> bool:
    """Return whether an array of `dtype` and `shape` fits `tensor`; a dimension that is a name fits any number."""
    return (
        tensor.dtype == dtype
        and len(tensor.shape) == len(shape)
        and all(
            isinstance(want, str) or isinstance(found, str) or want == found
            for want, found in zip(tensor.shape, shape, strict=True)
        )
    )


class _NamedInput(Spec):
    """The fields of an input that a card lists first."""

    name: str
    dtype: str | None = None
    shape: tuple[int | str, ...] | None = None
    range: tuple[FiniteFloat, FiniteFloat] | None = None
    reads: str = ""  # the array that it reads; "": a picture of the frame, or the array of its own name
    size: PictureSize | None = None


class InputCard(PictureFields, _NamedInput):
    """One input of an exported model, as its model card declares it. What is left out follows from the graph.

    A picture input has a fixed or free `[N, 3, H, W]`, `[N, H, W, 3]` or the like, one of windows `[N, 3, T, H, W]` or
    what its `layout` says, a letter for each dimension: `ncwh` has the columns of the picture before its rows. Its
    values are `(x * scale - mean) / std` for bytes x in 0 ... 255, each one number or one a channel, in the order of
    `colours`.
    `rate`, `samples` and `context` are those of `SoundSpec`, for an input `[N, samples]` that is sound; `bands` is for
    one `[N, T, bands]` of bands of sound.
    `value` is a constant for a further input. `state` names the output that feeds it.
    """

    colours: Literal["rgb", "bgr", "gray", "ycbcr"] | None = None  # ycbcr: BT.601, full range, as JPEG's
    layout: Layout | None = None
    scale: PerChannel | None = None
    mean: PerChannel | None = None
    std: PerChannel | None = None
    rate: int | None = None
    samples: int | None = None
    context: int = 0
    bands: BandsSpec | None = None
    value: FiniteFloat | tuple[FiniteFloat, ...] | None = None
    state: StateSpec | None = None


class HeadSpec(Spec):
    """The meaning of some outputs of a model; `kind` names a class in `engines.heads`, `options` are its own.

    In a model card's TOML the options stand beside `kind`.
    """

    kind: str
    options: dict[str, JsonValue] = Field(default={})

    @model_validator(mode="before")
    @classmethod
    def _gather_options(cls, given: Any) -> Any:
        if isinstance(given, dict) and "options" not in given:
            return {"kind": given.get("kind"), "options": {k: v for k, v in given.items() if k != "kind"}}
        return given


class ModelSpec(Spec):
    """A model card: what a model is called, what it takes and gives, and the hashes of its files.

    It is the model's manifest: `identity`, its hash, is what pipelines, workers and caches know the model by. `files`
    are those beside the ONNX file.

    `backend` names the only backend that runs it; None: the one that a worker's settings name. `precision`: how that
    backend computes, where it can compute in several ways; an answer does not depend on the worker. `speech`: it
    speaks. `recogniser`: it writes what is said.
    """

    name: ModelName
    version: ModelName = "1"
    description: str = ""
    backend: Name | None = None
    precision: Label = ""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    heads: tuple[HeadSpec, ...] = ()
    sha256: str  # of the ONNX file, or of the main file of a folder
    files: Files = ()
    text: TextSpec | None = None
    speech: SpeechSpec | None = None
    recogniser: RecogniserSpec | None = None

    @property
    def state_outputs(self) -> frozenset[str]:
        """Names of the outputs that are inputs of the next run."""
        return frozenset(tensor.state.output for tensor in self.inputs if tensor.state)

    def with_head(self, options: Mapping[str, JsonValue]) -> "ModelSpec":
        """The model with other options of its only head; of tables only the given entries. Raises ModelError."""
        if not options:
            return self
        if len(self.heads) != 1:
            what = f"model `{self.name}` has {len(self.heads)} heads, and a stage gives options of one"
            raise ModelError(what, "change its model card instead; see docs/heads.md")
        [head] = self.heads
        changed = head.model_copy(update={"options": _merged(head.options, options)})
        return self.model_copy(update={"heads": (changed,)})

    def of_graph(self) -> "ModelSpec":
        """The model as its graph is: without the pictures, the sound, the states and the heads of its card."""
        inputs = tuple(TensorSpec(name=each.name, dtype=each.dtype, shape=each.shape) for each in self.inputs)
        return self.model_copy(update={"inputs": inputs, "heads": ()})

    def of_texts(self) -> "ModelSpec":
        """The model as its text tower: without the inputs, the outputs and the heads of its graph of pictures."""
        return self.model_copy(update={"backend": TEXT_TOWER, "inputs": (), "outputs": (), "heads": ()})

    @property
    def warm_up(self) -> int:
        """How many windows its states remember, 0 for a model without a state."""
        return max((tensor.state.warm_up for tensor in self.inputs if tensor.state), default=0)

    @property
    def identity(self) -> str:
        """Hash of the model card without its description, and through it of all files: 64 hex digits.

        Fields that have their default are left out, so that a field that is new in rigflow changes no model: results
        that people keep name the models that made them.
        """
        return digest(self.model_dump(mode="json", exclude={"description"}, exclude_defaults=True))


def _merged(known: Mapping[str, JsonValue], given: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return `known` with the entries of `given`, tables entry by entry."""
    made = dict(known)
    for name, value in given.items():
        old = made.get(name)
        made[name] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return made


class ModelCard(Spec):
    """A model card as its owner writes it; what is left out follows from the model's file name and its graph.

    `backend`, `precision`, `files` and `text`: as in `ModelSpec`; `rigflow model add` writes `files`. `batch` "none":
    the graph has no batch dimension. `outputs` lists those that are wanted, if not all. `speech`: it
    speaks. `recogniser`: it writes what is said.
    """

    name: ModelName = ""
    version: ModelName = "1"
    description: str = ""
    sha256: str = ""
    files: Files = ()
    backend: Name | None = None
    precision: Label = ""
    batch: Literal["rows", "none"] = "rows"
    inputs: tuple[InputCard, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    heads: tuple[HeadSpec, ...] = ()
    text: TextSpec | None = None
    speech: SpeechSpec | None = None
    recogniser: RecogniserSpec | None = None
