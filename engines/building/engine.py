"""Builds engines of a model: converts it, tests the graph, compiles it for each kind of GPU and stores the result."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from engines.building.agreement import agree, compare, demand
from engines.building.builder import build_plan, version
from engines.building.convert import Batch, converted
from engines.building.store import EngineStore
from engines.inference import trial
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.own_process import in_own_process
from engines.probe_rows import known_ranges
from schemas.engine import Agreement, EngineBasis, EngineSpec, Precision, Profile
from schemas.engine import Range as ValueRange
from schemas.errors import UsageError
from schemas.model import ModelSpec, TensorSpec, fits

RECIPE = 1  # a version number: changes if the same basis gives another engine
BATCH = (1, 8, 32)
PROBE_ROWS = 2

Range = tuple[int, int, int]  # smallest, best, largest


def profiles_of(spec: ModelSpec, ranges: Mapping[str, Range]) -> tuple[Profile, ...]:
    """Return the shapes of every input with a free dimension; the batch has a default range. Raises UsageError."""
    batches = {tensor.shape[0] for tensor in spec.inputs if tensor.shape and isinstance(tensor.shape[0], str)}
    free = {size for tensor in spec.inputs for size in tensor.shape if isinstance(size, str)}
    known = {str(name): BATCH for name in batches} | dict(ranges)
    for name in sorted(set(known) - {str(size) for size in free}):
        there = ", ".join(sorted(map(str, free))) or "none"
        raise UsageError(f"model `{spec.name}` has no free dimension {name}", f"it has {there}")
    for name in sorted(free):
        if name not in known:
            raise UsageError(
                f"model `{spec.name}`: dimension {name} is free, and an engine needs its range",
                f"add --dim {name}=SMALLEST:BEST:LARGEST",
            )
    for name, (low, best, high) in known.items():
        if not 1 <= low <= best <= high:
            raise UsageError(f"--dim {name}={low}:{best}:{high} is no range", "write SMALLEST:BEST:LARGEST")
    return tuple(
        Profile(input=tensor.name, smallest=sizes[0], best=sizes[1], largest=sizes[2])
        for tensor in spec.inputs
        for sizes in [_sizes(tensor.shape, known)]
    )


def _sizes(shape: Sequence[int | str], known: Mapping[str, Range]) -> list[tuple[int, ...]]:
    return [tuple(known[size][which] if isinstance(size, str) else size for size in shape) for which in range(3)]


@dataclass(frozen=True)
class Recipe:
    """One model in one precision with the shapes it is built for: the common part of all its engines.

    `graph` is the ONNX graph that is compiled.
    """

    spec: ModelSpec
    model: bytes
    precision: Precision
    profiles: tuple[Profile, ...]
    graph: bytes
    probe: Batch | None = None  # rows of the user's media for the test; None: drawn pictures

    @classmethod
    def make(
        cls,
        spec: ModelSpec,
        model: bytes,
        precision: Precision,
        ranges: Mapping[str, Range],
        calibration: Sequence[Batch] = (),
    ) -> "Recipe":
        """Convert a model. Raises ModelError if that fails, UsageError if a range or calibration is missing."""
        profiles = profiles_of(spec, ranges)
        if precision == "int8" and not calibration:
            raise UsageError("int8 needs media to measure the model's ranges", "add --calibrate MEDIA")
        hint = "build it in another precision"
        graph = in_own_process(spec.name, "converts", hint, converted, spec.name, model, precision, calibration)
        return cls(spec, model, precision, profiles, graph, calibration[-1] if calibration else None)

    @cached_property
    def agreement(self) -> Agreement:
        """Compare the graph with the model, both on the CPU. Raises ModelError if they do not agree.

        ONNX Runtime computes most of fp16 in fp32 on the CPU: this finds broken conversions and ranges, not rounding.
        """
        name, ranges = f"{self.spec.name} in {self.precision}", known_ranges(self.spec)
        given = (self.spec, self.graph, self.model, self.profiles, self.precision, ranges, self.probe)
        return demand(in_own_process(name, "loads", trial.HINT, agreement_of_graph, *given), self.spec.name)

    def basis(self, backend: str, targets: Sequence[str], device: str = "") -> EngineBasis:
        """Return all that an engine for these GPUs depends on."""
        return EngineBasis(
            model_sha256=self.spec.sha256,
            graph_sha256=hashlib.sha256(self.graph).hexdigest(),
            backend=backend,
            version=version(backend),
            targets=tuple(targets),
            device=device,
            precision=self.precision,
            profiles=self.profiles,
            recipe=RECIPE,
        )

    def build(self, basis: EngineBasis) -> tuple[EngineSpec, bytes]:
        """Compile it to sidecar and plan. Raises ModelError if the graph disagrees or the builder refuses it."""
        agreement = self.agreement
        started_s = time.monotonic()
        name = self.spec.name
        given = (name, self.graph, basis.backend, basis.targets, self.precision, self.profiles)
        built = in_own_process(name, "compiles", "TensorRT fails on its graph: see docs/engines.md", build_plan, *given)
        spec = EngineSpec(
            model=f"{self.spec.name}@{self.spec.version}",
            basis=basis,
            inputs=_named(built.inputs, self.spec.inputs),
            outputs=_named(built.outputs, self.spec.outputs),
            sha256=hashlib.sha256(built.plan).hexdigest(),
            size_bytes=len(built.plan),
            build_s=round(time.monotonic() - started_s, 3),
            agreement=agreement,
        )
        return spec, built.plan


def agreement_of_graph(
    spec: ModelSpec,
    graph: bytes,
    model: bytes,
    profiles: Sequence[Profile],
    precision: Precision,
    ranges: Sequence[Mapping[str, ValueRange]],
    probe: Batch | None = None,
) -> Agreement:
    """Compare a converted graph with its model on the CPU. Call it by `in_own_process`: graphs may crash."""
    trial.limit_memory()
    converted_graph, reference = OnnxRuntimeSession(graph, spec, simulate=True), OnnxRuntimeSession(model, spec)
    if probe is not None:
        return compare(converted_graph, reference, probe, precision, "graph", "media")
    rows = min(PROBE_ROWS, *(profile.largest[0] for profile in profiles))
    return agree(converted_graph, reference, profiles, rows, precision, "graph", ranges)


def _named(network: Sequence[TensorSpec], card: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """Return the network's own tensors; their free dimensions have the names of the model card."""
    called = {tensor.name: tensor for tensor in card}
    return tuple(
        called[tensor.name]
        if tensor.name in called and fits(called[tensor.name], tensor.dtype, tensor.shape)
        else tensor
        for tensor in network
    )


def obtain(store: EngineStore, recipe: Recipe, basis: EngineBasis, again: bool = False) -> tuple[EngineSpec, bool]:
    """Return the sidecar of an intact engine in `store`, and whether it was built: absent, damaged or `again`."""
    with store.building(basis.key):
        if not again and store.is_intact(basis.key):
            return store.load(basis.key)[0], False
        spec, plan = recipe.build(basis)
        store.keep(spec, plan, recipe.graph)
        return spec, True
