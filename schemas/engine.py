"""The sidecar of a compiled engine, stored beside its plan on this machine and at the broker."""

import hashlib
import json
from typing import Literal

from pydantic import Field

from schemas.declared import ModelRef, Name, Spec
from schemas.model import TensorSpec

Precision = Literal["fp32", "fp16", "int8"]


class Profile(Spec):
    """The shapes of one input that an engine accepts, batch first."""

    input: str
    smallest: tuple[int, ...]
    best: tuple[int, ...]
    largest: tuple[int, ...]


class EngineBasis(Spec):
    """Everything that an engine depends on; its key is the hash of this."""

    model_sha256: str  # of the ONNX file that its owner wrote
    graph_sha256: str  # of the ONNX graph that was compiled; it includes precision and calibration
    backend: Name  # checked when the engine is opened
    version: str  # of the backend
    targets: tuple[str, ...]  # compute capabilities, `sm86`
    device: str = ""  # the name of the GPU on which the plan was timed; TensorRT-RTX needs none
    precision: Precision
    profiles: tuple[Profile, ...]
    recipe: int  # version of rigflow's own builder: changes if the same basis gives another plan

    @property
    def key(self) -> str:
        """32 hexadecimal digits."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]


Range = tuple[float, float]  # the smallest and the largest value of an input


class Agreement(Spec):
    """The distance of outputs from those of ONNX Runtime on the CPU: per output, `|a - b| / |b|` over all its elements.

    `on` names the rows: those of the user's `media`, or drawn `pictures`; `ranges` has each input's values.
    """

    where: str  # `graph`: the compiled graph, on the CPU; else the GPU that ran it
    on: Literal["media", "pictures"]
    ranges: dict[str, Range]
    error: float = Field(allow_inf_nan=True)  # of the worst output; not finite if an answer is not
    tolerance: float
    rows: int


class EngineSpec(Spec):
    """The sidecar of one engine."""

    model: ModelRef  # name@version: it may come from the fleet, and is used for lookup and display
    basis: EngineBasis
    inputs: tuple[TensorSpec, ...]  # as the compiled network declares them
    outputs: tuple[TensorSpec, ...]
    sha256: str  # of the plan
    size_bytes: int
    build_s: float
    agreement: Agreement

    @property
    def key(self) -> str:
        """The key of its basis."""
        return self.basis.key

    @property
    def rows(self) -> int:
        """The most rows of one batch."""
        return min(profile.largest[0] for profile in self.basis.profiles)
