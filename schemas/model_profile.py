"""What one model costs on one device, and the options that a session computes it with."""

import operator
from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from schemas.declared import ModelRef, Name, Sha256, Spec, digest
from schemas.fields import GivenName, Moment
from schemas.text import rate

MOST_TRIALS, MOST_BATCHES, MOST_INPUTS, MOST_RANK = 64, 16, 32, 8
MOST_ROWS = 4096

Rows = Annotated[int, Field(ge=1, le=MOST_ROWS)]
BatchSeconds = Annotated[FiniteFloat, Field(gt=0, le=1e6)]
Shape = Annotated[tuple[Annotated[int, Field(ge=1, lt=1 << 31)], ...], Field(max_length=MOST_RANK)]


class ComputeOptions(Spec):
    """How a session computes a model. The defaults are what a session does that was not tuned.

    `precision`: "" as the model's file has it, else what its products are rounded to. `layout`: of convolutions, ""
    by the graph. `search`: how cuDNN's algorithms are chosen, "" by the kind of shapes. `batch`: most rows of a batch,
    0 for the session's own limit. `level`: how far ONNX Runtime rewrites the graph, "" as far as it can. `kernels`:
    rigflow's own, of networks that they can compute. `graph`: a batch is recorded as a CUDA graph, and launched by one
    call.
    """

    precision: Literal["", "tf32", "fp16"] = ""
    layout: Literal["", "nchw", "nhwc"] = ""
    search: Literal["", "heuristic", "exhaustive"] = ""
    batch: Annotated[int, Field(ge=0, le=MOST_ROWS)] = 0
    level: Literal["", "basic", "extended"] = ""
    kernels: bool = False
    graph: bool = Field(default=False, exclude_if=operator.not_)

    def __str__(self) -> str:
        words = [self.precision, self.layout.upper(), self.search and f"{self.search} search"]
        words += [f"batch {self.batch}" if self.batch else "", f"level {self.level}" if self.level else ""]
        words += ["own kernels" if self.kernels else "", "CUDA graph" if self.graph else ""]
        return ", ".join(filter(None, words)) or "defaults"


NOT_TUNED = ComputeOptions()


class Trial(Spec):
    """Options that were tried: the seconds of a batch, and why they are not used, empty if they could be."""

    options: ComputeOptions
    rows: Rows = 1
    seconds: Annotated[FiniteFloat, Field(ge=0, le=1e6)] = 0.0  # 0: it did not run
    refused: GivenName = ""
    error: Annotated[FiniteFloat, Field(ge=0)] | None = (
        None  # distance of its outputs from the reference's; None: unknown
    )

    @property
    def statement(self) -> str:
        """`4,332 rows/s in batches of 16; not allowed: ...`."""
        speed = f"{rate(1 / self.row_s)} rows/s in batches of {self.rows}" if self.seconds else "not measured"
        return f"{speed}; {self.refused}" if self.refused else speed

    @property
    def row_s(self) -> float:
        """Seconds of a row."""
        return self.seconds / self.rows


class ModelOnDevice(Spec):
    """Which model, by what and with which shapes of inputs, without the batch: what its cost depends on."""

    model: Sha256  # the identity of its card
    backend: Name
    shapes: Annotated[dict[Annotated[str, Field(max_length=256)], Shape], Field(max_length=MOST_INPUTS)]

    @property
    def key(self) -> str:
        """32 hexadecimal digits."""
        return digest(self.model_dump(mode="json"))[:32]


class ModelProfile(Spec):
    """What one model costs on one device: the seconds of a batch by its rows, from the call to the outputs on the host.

    `chosen` are the options of those figures, `tried` what else was tried. `source`: whether a trial measured it, or
    a worker at its work.
    """

    version: Literal[1] = 1  # another version is measured anew
    device: Name  # as in DeviceProfile
    device_name: GivenName
    what: ModelOnDevice
    name: ModelRef  # of the model, for people
    driver: GivenName = ""
    library: GivenName = ""  # the backend's version
    batch_s: Annotated[dict[Rows, BatchSeconds], Field(min_length=1, max_length=MOST_BATCHES)]
    chosen: ComputeOptions = NOT_TUNED
    tried: Annotated[tuple[Trial, ...], Field(max_length=MOST_TRIALS)] = ()
    source: Literal["trial", "work"] = "trial"
    measured_s: Moment
    seconds: Annotated[FiniteFloat, Field(ge=0)] = 0.0  # that the measurement took

    @property
    def key(self) -> str:
        """Its key in the bucket of profiles."""
        return f"model.{self.device}.{self.what.key}"

    @property
    def best_rows(self) -> int:
        """The rows of the batch with the most rows a second."""
        return min(self.batch_s, key=lambda rows: (self.batch_s[rows] / rows, rows))

    @property
    def rows_per_s(self) -> float:
        """Rows a second in its best batches."""
        return self.best_rows / self.batch_s[self.best_rows]

    def rows(self) -> list[tuple[str, str]]:
        """What the figures mean, in words: a subject and a statement each."""
        batches = ", ".join(f"{1000 * seconds:.3g} ms for {rows}" for rows, seconds in sorted(self.batch_s.items()))
        made = [("computes with", f"{self.chosen}, by {self.what.backend} {self.library}".rstrip())]
        made.append(("batches", f"{batches}; {rate(self.rows_per_s)} rows/s"))
        return made + [(f"tried {trial.options}", trial.statement) for trial in self.tried]

    def seconds_of(self, rows: int) -> float:
        """Seconds of a batch of so many rows: between measured ones on a line, beyond them as the largest's rows."""
        known = sorted(self.batch_s.items())
        below = [each for each in known if each[0] <= rows]
        above = [each for each in known if each[0] >= rows]
        if not below:
            return above[0][1]  # a smaller batch takes no longer
        (low, low_s) = below[-1]
        if not above:
            return low_s * rows / low
        (high, high_s) = above[0]
        return low_s if high == low else low_s + (high_s - low_s) * (rows - low) / (high - low)


class ModelChoice(Spec):
    """The options that all devices of one kind compute a model with, so that equal devices give equal answers.

    The first device that tries them decides. `kind`: the name of a GPU, or `cpu`. `library`: the backend's version.
    """

    version: Literal[1] = 1
    kind: GivenName
    what: ModelOnDevice
    library: GivenName = ""
    allowed: GivenName = ""  # what the settings and the card allowed when it was made
    options: ComputeOptions
    measured_s: Moment

    @property
    def key(self) -> str:
        """Its key in the bucket of profiles."""
        basis = {**self.model_dump(mode="json", include={"kind", "library", "allowed"}), "what": self.what.key}
        return f"choice.{digest(basis)[:32]}"

    @model_validator(mode="after")
    def _has_a_kind(self) -> Self:
        if not self.kind:
            raise ValueError("needs the kind of device")
        return self
