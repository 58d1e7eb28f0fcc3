"""Measures whether two sessions of a model agree: the test that an engine must pass before its use."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from engines.part import Array
from engines.ports import Session
from engines.probe_rows import probe_rows
from schemas.engine import Agreement, Precision, Profile, Range
from schemas.errors import SelfTestFailed

# Worst |a - b| / |b| of an output against ONNX Runtime on the CPU in fp32. TF32 has 10 bits of mantissa and fp16 as
# many; errors grow with the root of the depth, which leaves 1e-2 for some hundred layers. int8 has 8 bits a layer.
TOLERANCE: Mapping[Precision, float] = {"fp32": 2e-3, "fp16": 1e-2, "int8": 1e-1}


def ranges_in(rows: Mapping[str, Array]) -> dict[str, Range]:
    """Return the ranges of values in rows of real media."""
    return {name: (float(array.min()), float(array.max())) for name, array in rows.items()}


def agree(
    session: Session,
    reference: Session,
    profiles: Sequence[Profile],
    rows: int,
    precision: Precision,
    where: str,
    ranges: Sequence[Mapping[str, Range]],
) -> Agreement:
    """`compare` on pictures in the one of `ranges` with the best agreement, because only the model's owner knows the
    range.
    """
    found = [
        compare(session, reference, probe_rows(session.spec, profiles, rows, each), precision, where) for each in ranges
    ]
    return min(found, key=lambda agreement: agreement.error)


def compare(
    session: Session,
    reference: Session,
    inputs: Mapping[str, Array],
    precision: Precision,
    where: str,
    on: Literal["media", "pictures"] = "pictures",
) -> Agreement:
    """Measure the distance of the outputs of `session` from those of `reference`. Raises ModelError if either fails."""
    answers, expected = session.run(inputs), reference.run(inputs)
    worst = max(distance(answers[name], array) for name, array in expected.items())
    rows = min(len(array) for array in inputs.values())
    return Agreement(
        where=where, on=on, ranges=ranges_in(inputs), error=worst, tolerance=TOLERANCE[precision], rows=rows
    )


def demand(agreement: Agreement, name: str) -> Agreement:
    """Return the agreement if it is within tolerance. Raises SelfTestFailed: an engine that errs is never used."""
    if agreement.error <= agreement.tolerance:
        return agreement
    far = "it has values that are not numbers" if np.isinf(agreement.error) else f"its error is {agreement.error:.2g}"
    hint = "build it in a higher precision"
    if agreement.on == "pictures":
        hint += ", or have it tested on media of yours: --calibrate FILE"
    raise SelfTestFailed(
        f"model `{name}` does not answer as ONNX Runtime does on the CPU: {far} on {described(agreement)}, "
        f"{agreement.tolerance:g} is allowed",
        hint,
    )


def described(agreement: Agreement) -> str:
    """Return a text that names the rows of an agreement."""
    if agreement.on == "media":
        return "the media of --calibrate"
    low = min(each[0] for each in agreement.ranges.values())
    high = max(each[1] for each in agreement.ranges.values())
    return f"drawn pictures with values from {low:.3g} to {high:.3g}"


def distance(array: Array, expected: Array) -> float:
    """Return `|a - b| / |b|` over all elements; infinite if only one of two elements is not a number."""
    if array.shape != expected.shape:
        return float("inf")
    a, b = array.astype(np.float64), expected.astype(np.float64)
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return float("inf")
    a, b = np.nan_to_num(a), np.nan_to_num(b)
    length = float(np.linalg.norm(b))
    return float(np.linalg.norm(a - b)) / length if length else float(np.linalg.norm(a))
