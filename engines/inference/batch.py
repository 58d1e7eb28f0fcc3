"""Batches across parts: gather the rows of many parts, run them together, give every part its own answer back.

A *row* is what a model answers for: a window, a frame, or a plane of a frame. Rows are batched whichever segment or
job they come from, but only with rows of equal shape; a part's failure is its own.
"""

import functools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import prod
from typing import TypeAlias

import numpy as np

from engines.inference.session import Overlapping, RowBatch, RowSelection
from engines.part import Array, Part, Tick, holds_frames, no_tick
from engines.ports import Session
from schemas.errors import ModelError, RigflowError
from schemas.pipeline import InferStage

_Answer: TypeAlias = Callable[[], dict[str, Array]]


class View(Enum):
    """How a model sees an array of a part."""

    WINDOWS = "windows"  # `array[index]`, `[W, T, ...]`
    SINGLES = "singles"  # the one frame of each window, `[W, ...]`
    ROWS = "rows"  # as it is


def view_of(name: str, ndim: int, rank: int, frames: int) -> View:
    """How a model input of `rank` dimensions sees the array `name` of `ndim`, in windows of `frames` (0: no index)."""
    if frames and holds_frames(name):
        if rank == ndim + 1:
            return View.WINDOWS
        if rank == ndim and frames == 1:
            return View.SINGLES
    return View.ROWS


@dataclass(frozen=True, slots=True)
class _Source:
    """The rows of one input of one part; gathered batch by batch, so that windows never exist all at once."""

    array: Array
    index: Array | None = None  # which rows of `array` make row i; None: row i itself

    def chosen(self, start: int, stop: int) -> RowSelection:
        if self.index is None:
            return RowSelection(self.array, None, start, stop)
        rows = self.index[start:stop]
        return RowSelection(self.array, rows, int(rows.min(initial=0)), int(rows.max(initial=-1)) + 1)

    @property
    def row(self) -> tuple[int, ...]:
        """Shape of one row."""
        return (*(() if self.index is None else self.index.shape[1:]), *self.array.shape[1:])

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return prod(self.row) * self.array.itemsize

    def __len__(self) -> int:
        return len(self.array if self.index is None else self.index)


@dataclass(slots=True)
class _Work:
    """One pass of the model over one part: all of it, or one array of `each`, which its output `replaces`."""

    part: int
    inputs: Mapping[str, _Source]
    rows: int
    replaces: str = ""
    made: dict[str, Array] = field(default_factory=dict)

    @property
    def signature(self) -> tuple[object, ...]:
        """Only work of equal signature shares a batch."""
        return tuple((name, source.array.dtype, source.row) for name, source in sorted(self.inputs.items()))

    def put(self, start: int, outputs: Mapping[str, Array]) -> None:
        """Take the answers of the rows from `start` on."""
        for output, array in outputs.items():
            name = self.replaces or output
            known = self.made.get(name)
            if known is None and (len(array) == self.rows or not isinstance(array, np.ndarray)):
                self.made[name] = array
                continue
            if known is None:
                self.made[name] = known = np.empty((self.rows, *array.shape[1:]), array.dtype)
            if known.shape[1:] != array.shape[1:]:
                shapes = f"{list(known.shape[1:])} and {list(array.shape[1:])}"
                raise ModelError(f"output `{output}` changes its shape between batches: {shapes}", "give it one shape")
            if len(known) == self.rows:
                known[start : start + len(array)] = array
            else:  # on a GPU, where rows are joined without a copy
                self.made[name] = np.concatenate([known, array])


@dataclass(frozen=True, slots=True)
class _Span:
    """Rows `[start, stop)` of a work, as a batch takes them."""

    work: _Work
    start: int
    stop: int


def infer_parts(
    stage: InferStage, session: Session, parts: Sequence[Part], tick: Tick = no_tick
) -> list[Part | RigflowError]:
    """Each part after `stage`, or the ModelError of that part alone; same length and order as `parts`.

    An input `x` reads the array `stage.reads.get(x, x)`. Of arrays with a row a frame (`pixels`, `plane0` ...) it gets
    `array[index]`, a row a window `[W, T, ...]`, when the model has one dimension more; the windows' single frames
    `[W, ...]` when they have one (T = 1); and the frames as they are otherwise. Batches hold at most
    `stage.max_batch` rows and `session.batch_bytes` of input. A part keeps `stage.keeps`, the outputs, and nothing
    else. `tick` is called after each batch. Raises DeviceLost.
    """
    failed: dict[int, RigflowError] = {}
    works: list[_Work] = []
    for number, part in enumerate(parts):
        try:
            works += _bind(stage, session, number, part)
        except ModelError as error:
            failed[number] = error
    _run_all(session, _batches(works, stage, session), failed, tick)
    arrays: list[dict[str, Array]] = [
        {name: part.arrays[name] for name in stage.keeps if name in part.arrays} for part in parts
    ]
    for work in works:
        if work.part not in failed:
            arrays[work.part] |= work.made
    return [failed.get(number) or part.with_arrays(arrays[number]) for number, part in enumerate(parts)]


def _bind(stage: InferStage, session: Session, number: int, part: Part) -> list[_Work]:
    """What the model has to do for one part."""
    spec = session.spec
    missing = [name for name in stage.keeps if name not in part.arrays]
    if missing:
        raise ModelError(f"stage `{stage.name}` keeps `{missing[0]}`, which a part lacks", _has(part))
    if not stage.each:
        inputs = {tensor.name: _source(stage, part, tensor.name, len(tensor.shape)) for tensor in spec.inputs}
        return [_work(session, number, inputs)]
    name, rank = spec.inputs[0].name, len(spec.inputs[0].shape)
    if len(spec.inputs) != 1 or len(spec.outputs) != 1:
        raise ModelError(f"model `{spec.name}` cannot run over `each` array", "it needs one input and one output")
    present = [array for array in stage.each if array in part.arrays]
    if not present:
        raise ModelError(f"stage `{stage.name}` runs over {', '.join(stage.each)}, and a part has none", _has(part))
    sources = {array: _Source(part.arrays[array]) for array in present if part.arrays[array].ndim == rank}
    if len(sources) != len(present):
        raise ModelError(f"model `{spec.name}` wants {rank} dimensions in each of {', '.join(present)}", _has(part))
    return [_work(session, number, {name: source}, replaces=array) for array, source in sources.items()]


def _source(stage: InferStage, part: Part, name: str, rank: int) -> _Source:
    wanted = stage.reads.get(name, name)
    array = part.arrays.get(wanted)
    if array is None:
        raise ModelError(f"stage `{stage.name}` wants array `{wanted}` for input `{name}`", _has(part))
    index = part.arrays.get("index")
    if index is not None:
        view = view_of(wanted, array.ndim, rank, index.shape[1])
        if view is View.WINDOWS:
            return _Source(array, index)
        if view is View.SINGLES and not _is_identity(index, len(array)):
            return _Source(array, index[:, 0])
    return _Source(array)


def _is_identity(index: Array, rows: int) -> bool:
    return len(index) == rows and bool((index[:, 0] == np.arange(rows)).all())


def _work(session: Session, number: int, inputs: Mapping[str, _Source], replaces: str = "") -> _Work:
    rows = {name: len(source) for name, source in inputs.items()}
    if len(set(rows.values())) != 1:
        counts = ", ".join(f"`{name}` {count}" for name, count in rows.items())
        raise ModelError(f"model `{session.spec.name}` got inputs of different lengths: {counts}")
    work = _Work(number, inputs, next(iter(rows.values())), replaces)
    if not work.rows:
        work.put(0, _nothing(session, work))
    return work


def _batches(works: Sequence[_Work], stage: InferStage, session: Session) -> Iterator[list[_Span]]:
    """Spans of equal signature, in order, together as many rows as stage, session and model take at once."""
    groups: dict[tuple[object, ...], list[_Work]] = {}
    for work in works:
        groups.setdefault(work.signature, []).append(work)
    for group in groups.values():
        batch: list[_Span] = []
        room = limit = _most_rows(group[0], stage, session)
        for work in group:
            start = 0
            while start < work.rows:
                stop = min(work.rows, start + room)
                batch.append(_Span(work, start, stop))
                room -= stop - start
                start = stop
                if room == 0:
                    yield batch
                    batch, room = [], limit
        if batch:
            yield batch


def _most_rows(work: _Work, stage: InferStage, session: Session) -> int:
    if any(tensor.shape[:1] == (1,) for tensor in session.spec.inputs):  # exported for one row at a time
        return 1
    row_bytes = sum(source.row_bytes for source in work.inputs.values())
    return max(1, min(stage.max_batch, session.batch_bytes // max(1, row_bytes)))


def _run_all(session: Session, batches: Iterator[list[_Span]], failed: dict[int, RigflowError], tick: Tick) -> None:
    """Answer all batches, as many at a time as the session can have in flight."""
    most = session.in_flight if isinstance(session, Overlapping) else 1
    under_way: deque[tuple[list[_Span], _Answer]] = deque()
    for batch in batches:
        batch = [span for span in batch if span.work.part not in failed]
        if batch:
            under_way.append((batch, _begin(session, batch)))
        while len(under_way) >= most:
            _finish(session, *under_way.popleft(), failed)
            tick()
    while under_way:
        _finish(session, *under_way.popleft(), failed)
        tick()


def _finish(session: Session, batch: Sequence[_Span], answer: _Answer, failed: dict[int, RigflowError]) -> None:
    """Take the answer of one batch; when it fails, ask for each span alone, so that only the guilty part does."""
    try:
        outputs = answer()
    except ModelError as error:
        if len(batch) == 1:
            failed[batch[0].work.part] = error
            return
        for span in batch:
            if span.work.part not in failed:
                _finish(session, [span], _begin(session, [span]), failed)
        return
    row = 0
    for span in batch:
        rows = span.stop - span.start
        try:
            span.work.put(span.start, {name: array[row : row + rows] for name, array in outputs.items()})
        except ModelError as error:
            failed[span.work.part] = error
        row += rows


def _begin(session: Session, batch: Sequence[_Span]) -> _Answer:
    """Queue a batch, or run it where the session knows no queue; what is returned gives its answer or its error."""
    inputs = {
        name: RowBatch([span.work.inputs[name].chosen(span.start, span.stop) for span in batch])
        for name in batch[0].work.inputs
    }
    try:
        if isinstance(session, Overlapping):
            started = session.start(inputs)
        else:
            outputs = session.run({name: np.asarray(rows) for name, rows in inputs.items()})

            def started() -> dict[str, Array]:
                return outputs

    except ModelError as error:
        return functools.partial(_raise, error)
    return lambda: _checked(session, batch, started())


def _raise(error: ModelError) -> dict[str, Array]:
    raise error


def _checked(session: Session, batch: Sequence[_Span], outputs: dict[str, Array]) -> dict[str, Array]:
    """The outputs, if there is a row for each row in. Raises ModelError."""
    rows = sum(span.stop - span.start for span in batch)
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != rows:
            found = f"shape {list(array.shape)} for a batch of {rows}"
            raise ModelError(
                f"model `{session.spec.name}`, output `{name}`: {found}", "give it one row for each row in"
            )
    return outputs


def _nothing(session: Session, work: _Work) -> dict[str, Array]:
    """No rows, of the right shape and dtype: what the model makes of one row of zeros, without the row."""
    zeros = {name: np.zeros((1, *source.row), source.array.dtype) for name, source in work.inputs.items()}
    return {name: array[:0] for name, array in session.run(zeros).items()}


def _has(part: Part) -> str:
    return f"it has {', '.join(sorted(part.arrays)) or 'no arrays'}"
