"""Seconds of a session's batches, and the rows and shapes to measure them with."""

import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from engines.inference.session import Overlapping
from engines.part import Array
from engines.ports import Session
from engines.probe_rows import probe_rows
from schemas.engine import Profile
from schemas.errors import UsageError
from schemas.model import ModelSpec, TensorSpec

_LEAST_RUNS = 3
_MOST_ROWS = 32  # of a batch on the CPU, where more are no faster


def shapes_of(card: ModelSpec, dims: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The shapes of a model's inputs without the batch: free dimensions are those of its tiles, or of `dims`.

    Raises UsageError for a free dimension that is not known, and for a model with a state.
    """
    if card.state_outputs:
        raise UsageError(f"model `{card.name}` has a state, whose batches follow its media", "leave it as it is")
    if not card.inputs:
        raise UsageError(f"model `{card.name}` has no inputs of numbers", "leave it as it is")
    return {tensor.name: _shape(card, tensor, dims) for tensor in card.inputs}


def _shape(card: ModelSpec, tensor: TensorSpec, dims: Mapping[str, int]) -> tuple[int, ...]:
    tile = list(tensor.picture.tile or ()) if tensor.picture else []
    shape: list[int] = []
    for size in tensor.shape[1:]:
        known = size if isinstance(size, int) else dims.get(size) or (tile.pop(0) if tile else 0)
        if not known:
            raise UsageError(
                f"model `{card.name}`: dimension {size} of input `{tensor.name}` is free", f"add --dim {size}=SIZE"
            )
        shape.append(known)
    return tuple(shape)


def rows_of(card: ModelSpec, shapes: Mapping[str, tuple[int, ...]], rows: int) -> dict[str, Array]:
    """Drawn rows of these shapes, as the test of an engine has them."""
    profiles = [
        Profile(input=name, smallest=(rows, *shape), best=(rows, *shape), largest=(rows, *shape))
        for name, shape in shapes.items()
    ]
    return probe_rows(card, profiles, rows)


def repeated(inputs: Mapping[str, Array], rows: int) -> dict[str, Array]:
    """The given rows over and over, until there are so many."""
    return {name: np.resize(array, (rows, *array.shape[1:])) for name, array in inputs.items()}


def most_rows(session: Session, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Most rows of a batch of these shapes."""
    if any(tensor.shape[:1] == (1,) for tensor in session.spec.inputs):
        return 1
    dtypes = {tensor.name: np.dtype(tensor.dtype) for tensor in session.spec.inputs}
    row_bytes = sum(prod(shape) * dtypes[name].itemsize for name, shape in shapes.items())
    if isinstance(session, Overlapping):
        return max(1, session.most_rows(row_bytes))
    return max(1, min(_MOST_ROWS, session.batch_bytes // max(1, row_bytes)))


def batch_seconds(session: Session, inputs: Mapping[str, Array], until_s: float) -> float:
    """Seconds of a batch of these rows, the median of repeated runs after one that is not counted.

    A session that has several batches in flight is kept busy with them. It ends about `until_s` of the monotonic clock,
    after two runs at least; a run that takes that long alone is the answer.
    """
    begin, depth = _begin(session, inputs)
    began_s = time.perf_counter()
    begin()()
    if time.monotonic() >= until_s:
        return time.perf_counter() - began_s
    under_way: deque[Callable[[], Any]] = deque()
    times: list[float] = []
    last_s = time.perf_counter()
    while len(times) < _LEAST_RUNS or time.monotonic() < until_s:
        while len(under_way) < depth:
            under_way.append(begin())
        under_way.popleft()()
        now_s = time.perf_counter()
        times.append(now_s - last_s)
        last_s = now_s
        if len(times) >= 2 and time.monotonic() >= until_s:
            break
    while under_way:
        under_way.popleft()()
    return statistics.median(times)


def _begin(session: Session, inputs: Mapping[str, Array]) -> tuple[Callable[[], Callable[[], Any]], int]:
    """What begins a batch and returns what waits for it, and how many may be under way."""
    if isinstance(session, Overlapping):
        overlapping = session
        rows = len(next(iter(inputs.values())))
        return lambda: overlapping.start(inputs, rows), overlapping.in_flight

    def run() -> Callable[[], Any]:
        made = session.run(inputs)
        return lambda: made

    return run, 1


def sizes_up_to(most: int) -> Sequence[int]:
    """1, 2, 4 ... and `most`."""
    return [*(1 << power for power in range(12) if 1 << power < most), most]
