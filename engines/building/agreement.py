"""Measures whether two sessions of a model agree: the test that an engine must pass before its use."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from engines.part import Array
from engines.ports import Session
from schemas.engine import Agreement, Precision, Profile, Range
from schemas.errors import SelfTestFailed
from schemas.model import ModelSpec

# Worst |a - b| / |b| of an output against ONNX Runtime on the CPU in fp32. TF32 has 10 bits of mantissa and fp16 as
# many; errors grow with the root of the depth, which leaves 1e-2 for some hundred layers. int8 has 8 bits a layer.
TOLERANCE: Mapping[Precision, float] = {"fp32": 2e-3, "fp16": 1e-2, "int8": 1e-1}
SEED = 20


USUAL: Sequence[Range] = ((0.0, 255.0), (0.0, 1.0), (-1.0, 1.0))  # of pictures, if a model card has no range
_LONG = 8  # a shorter axis holds colours, not place or time


def known_ranges(spec: ModelSpec) -> list[dict[str, Range]]:
    """Return the ranges of the inputs: one for a card's `range` and for integers, otherwise each of `USUAL`."""
    known: dict[str, Range] = {}
    for tensor in spec.inputs:
        kind = np.dtype(tensor.dtype).kind
        if tensor.range is not None:
            known[tensor.name] = tensor.range
        elif kind != "f":
            known[tensor.name] = (0.0, 1.0 if kind == "b" else 255.0 if tensor.dtype == "uint8" else 126.0)
    unknown = [tensor.name for tensor in spec.inputs if tensor.name not in known]
    return [known | dict.fromkeys(unknown, usual) for usual in (USUAL if unknown else USUAL[:1])]


def ranges_in(rows: Mapping[str, Array]) -> dict[str, Range]:
    """Return the ranges of values in rows of real media."""
    return {name: (float(array.min()), float(array.max())) for name, array in rows.items()}


def probe_rows(
    spec: ModelSpec, profiles: Sequence[Profile], rows: int, ranges: Mapping[str, Range] | None = None
) -> dict[str, Array]:
    """Return seeded inputs of the profiles' best shapes: pictures that fill `ranges` (default: the first known)."""
    random = np.random.default_rng(SEED)
    shapes = {profile.input: profile.best[1:] for profile in profiles}
    ranges = known_ranges(spec)[0] if ranges is None else ranges
    inputs: dict[str, Array] = {}
    for tensor in spec.inputs:
        inner = shapes.get(tensor.name, tuple(size if isinstance(size, int) else rows for size in tensor.shape[1:]))
        low, high = ranges[tensor.name]
        dtype = np.dtype(tensor.dtype)
        drawn = [low + _picture(random, inner) * (high - low) for _ in range(min(rows, 2))]
        drawn = drawn if dtype.kind == "f" else [np.rint(each) for each in drawn]
        inputs[tensor.name] = np.stack([_moved(drawn[row % 2], row // 2).astype(dtype) for row in range(rows)])
    return inputs


def _picture(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return a row with the statistics of pictures: amplitudes of one over the frequency, equal colours; from 0 to 1.

    Field (1987), "Relations between the statistics of natural images and the response properties of cortical cells".
    """
    row = random.standard_normal(shape)
    long = tuple(axis for axis, size in enumerate(shape) if size >= _LONG)
    short = tuple(axis for axis in range(len(shape)) if axis not in long)
    if long:
        grids = np.meshgrid(*(np.fft.fftfreq(shape[axis]) * shape[axis] for axis in long), indexing="ij", sparse=True)
        frequency = np.maximum(1.0, np.sqrt(sum(grid**2 for grid in grids)))
        spread = np.expand_dims(frequency, short)
        row = np.fft.ifftn(np.fft.fftn(row, axes=long) / spread, axes=long).real
        row = row + 2 * row.mean(axis=short, keepdims=True) if short else row
    row = row - row.min()
    return np.asarray(row / max(float(row.max()), 1e-9))


def _moved(row: Array, steps: int) -> Array:
    return np.roll(row, steps, axis=-1) if steps and row.ndim else row


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
