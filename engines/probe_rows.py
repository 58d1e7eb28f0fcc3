"""Rows that sessions of a model are tested with: seeded, with the statistics of pictures."""

from collections.abc import Mapping, Sequence

import numpy as np

from engines.part import Array
from schemas.engine import Profile, Range
from schemas.model import ModelSpec

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
