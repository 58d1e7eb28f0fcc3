"""What a compiled engine says of itself: the sidecar beside its plan, here and at the broker."""

import hashlib
import json
from typing import Literal

from schemas.pipeline import ModelRef, Name, Spec, TensorSpec

Precision = Literal["fp32", "fp16", "int8"]


class Profile(Spec):
    """The shapes of one input that an engine takes, batch first."""

    input: str
    smallest: tuple[int, ...]
    best: tuple[int, ...]
    largest: tuple[int, ...]


class EngineBasis(Spec):
    """Everything that an engine depends on; its key is the hash of this."""

    model_sha256: str  # of the ONNX file as its owner gave it
    graph_sha256: str  # of the ONNX graph that was compiled: precision and calibration are in it
    backend: Name  # checked when the engine is opened
    version: str  # of the backend
    targets: tuple[str, ...]  # compute capabilities, `sm86`
    device: str = ""  # the GPU's name where the plan was timed on one; TensorRT-RTX needs none
    precision: Precision
    profiles: tuple[Profile, ...]
    recipe: int  # of rigflow's own builder: changes when the same basis would give another plan

    @property
    def key(self) -> str:
        """32 hexadecimal digits."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]


Range = tuple[float, float]  # the least and the largest value of an input


class Agreement(Spec):
    """How far answers are from those of ONNX Runtime on the CPU: per output, `|a - b| / |b|` over all its elements.

    `on` says which rows were asked: those of the user's `media`, or drawn `pictures`; `ranges` has each input's values.
    """

    where: str  # `graph`: the compiled graph, on the CPU; else the GPU that answered
    on: Literal["media", "pictures"]
    ranges: dict[str, Range]
    error: float  # the worst output's
    tolerance: float
    rows: int


class EngineSpec(Spec):
    """The sidecar of one engine."""

    model: ModelRef  # name@version: it may come from the fleet, and is looked up and shown
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
        """Most rows of one batch."""
        return min(profile.largest[0] for profile in self.basis.profiles)
