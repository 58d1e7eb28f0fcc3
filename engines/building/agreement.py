"""Whether two sessions of a model agree: what an engine has to show before it serves."""

from collections.abc import Mapping, Sequence

import numpy as np

from engines.inference.session import Session
from engines.part import Array
from schemas.engine import Agreement, Precision, Profile
from schemas.errors import ModelError
from schemas.pipeline import ModelSpec

# Worst |a - b| / |b| of an output against ONNX Runtime on the CPU in fp32. TF32 has 10 bits of mantissa and fp16 as
# many; errors grow with the root of the depth, which leaves 1e-2 for some hundred layers. int8 has 8 bits a layer.
TOLERANCE: Mapping[Precision, float] = {"fp32": 2e-3, "fp16": 1e-2, "int8": 1e-1}
SEED = 20


def probe_rows(spec: ModelSpec, profiles: Sequence[Profile], rows: int) -> dict[str, Array]:
    """Seeded inputs of the profiles' best shapes: bytes of all values, floats from -1 to 1, small integers."""
    random = np.random.default_rng(SEED)
    shapes = {profile.input: (rows, *profile.best[1:]) for profile in profiles}
    inputs: dict[str, Array] = {}
    for tensor in spec.inputs:
        shape = shapes.get(tensor.name, tuple(size if isinstance(size, int) else rows for size in tensor.shape))
        dtype = np.dtype(tensor.dtype)
        if dtype.kind == "f":
            inputs[tensor.name] = random.uniform(-1, 1, shape).astype(dtype)
        else:
            inputs[tensor.name] = random.integers(
                0, 2 if dtype.kind == "b" else 127 << (dtype == np.uint8), shape
            ).astype(dtype)
    return inputs


def compare(
    session: Session, reference: Session, inputs: Mapping[str, Array], precision: Precision, where: str
) -> Agreement:
    """How far the answers of `session` are from those of `reference`. Raises ModelError when either fails."""
    answers, expected = session.run(inputs), reference.run(inputs)
    worst = max(_distance(answers[name], array) for name, array in expected.items())
    rows = min(len(array) for array in inputs.values())
    return Agreement(where=where, error=worst, tolerance=TOLERANCE[precision], rows=rows)


def demand(agreement: Agreement, name: str) -> Agreement:
    """The agreement, if it is one. Raises ModelError: an engine that answers otherwise is never served."""
    if agreement.error <= agreement.tolerance:
        return agreement
    far = "it has values that are not numbers" if np.isinf(agreement.error) else f"its error is {agreement.error:.2g}"
    raise ModelError(
        f"model `{name}` does not answer as ONNX Runtime does on the CPU: {far}, {agreement.tolerance:g} is allowed",
        "build it in a higher precision",
    )


def _distance(array: Array, expected: Array) -> float:
    """`|a - b| / |b|` over all elements; infinite where one is not a number and the other is."""
    if array.shape != expected.shape:
        return float("inf")
    a, b = array.astype(np.float64), expected.astype(np.float64)
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return float("inf")
    a, b = np.nan_to_num(a), np.nan_to_num(b)
    length = float(np.linalg.norm(b))
    return float(np.linalg.norm(a - b)) / length if length else float(np.linalg.norm(a))
