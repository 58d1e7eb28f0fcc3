"""Compiles ONNX to a plan by the same code for tensorrt 8.6, 10, 11 and tensorrt_rtx; the latter needs no GPU.

The code uses only names that all of them have; tests check it against the bindings of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engines.building.refusals import refused
from engines.inference.bindings import DTYPES, collecting_logger, load
from schemas.engine import Precision, Profile
from schemas.errors import ModelError
from schemas.model import TensorSpec


@dataclass(frozen=True, slots=True)
class Built:
    """A plan, and the inputs and outputs that the network declares."""

    plan: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    version: str


def build_plan(
    name: str,
    graph: bytes,
    backend: str,
    targets: Sequence[str],
    precision: Precision,
    profiles: Sequence[Profile],
) -> Built:
    """Compile an ONNX file; `targets` are the GPUs of a TensorRT-RTX plan; other backends use the GPU of the machine.

    Raises ModelError in one line if the builder refuses the model, UsageError if the backend is not installed.
    """
    trt = load(backend)
    messages: list[str] = []
    logger = collecting_logger(trt, messages)
    builder = trt.Builder(logger)
    if builder is None:
        raise refused(name, messages)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not graph:  # the parser accepts an empty file as a model
        raise ModelError(f"model `{name}`: it is an empty file", "export it again")
    if not parser.parse(graph):
        raise refused(name, [str(parser.get_error(number)) for number in range(parser.num_errors)] + messages)
    config = builder.create_builder_config()
    if precision != "fp32":
        _allow(trt, config, precision)
    if profiles:
        optimization = builder.create_optimization_profile()
        for shapes in profiles:
            optimization.set_shape(shapes.input, shapes.smallest, shapes.best, shapes.largest)
        if config.add_optimization_profile(optimization) < 0:
            raise refused(name, messages)
    if hasattr(trt, "ComputeCapability"):
        _aim(trt, config, targets)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise refused(name, messages)
    inputs = tuple(_tensor(network.get_input(number)) for number in range(network.num_inputs))
    outputs = tuple(_tensor(network.get_output(number)) for number in range(network.num_outputs))
    return Built(bytes(plan), inputs, outputs, version(backend))


def version(backend: str) -> str:
    """Return the version of a backend's library. Raises UsageError if it is not installed."""
    return str(load(backend).__version__)


def _network_flags(trt: Any) -> int:
    """8.6 needs an explicit batch, 10 accepts it; 11 and RTX have only that, and no name for it."""
    flags = trt.NetworkDefinitionCreationFlag
    return 1 << int(flags.EXPLICIT_BATCH) if hasattr(flags, "EXPLICIT_BATCH") else 0


def _allow(trt: Any, config: Any, precision: Precision) -> None:
    """Allow 8.6 and 10 the types of the graph; later versions always use them."""
    for flag in ("FP16", "INT8") if precision == "int8" else ("FP16",):
        if hasattr(trt.BuilderFlag, flag):
            config.set_flag(getattr(trt.BuilderFlag, flag))


def _aim(trt: Any, config: Any, targets: Sequence[str]) -> None:
    """Set the GPUs of a plan; only TensorRT-RTX supports that."""
    config.num_compute_capabilities = len(targets)
    for number, target in enumerate(targets):
        config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), number)


def _tensor(tensor: Any) -> TensorSpec:
    shape = tuple(size if size >= 0 else f"free{axis}" for axis, size in enumerate(tuple(tensor.shape)))
    return TensorSpec(name=tensor.name, dtype=DTYPES.get(tensor.dtype.name, tensor.dtype.name.lower()), shape=shape)
