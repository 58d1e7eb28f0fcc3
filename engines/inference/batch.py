"""Batches across parts: gather the rows of many parts, run them together, give every part its own answer back.

A *row* is what a model answers for: a window, a frame, a tile or a plane of a frame, an item of a ragged array. Rows
are batched whichever segment or job they come from, but only with rows of equal shape; a part's failure is its own.
"""

import functools
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from engines.heads.view import View
from engines.inference.filling import most_rows
from engines.inference.heads import Heads
from engines.inference.items import Items, items_of, put_together
from engines.inference.session import RowBatch, overlapping
from engines.inference.sources import Source, holds, source_of
from engines.inference.tiles import Tiles
from engines.inference.work import Begun, Span, Work
from engines.part import Array, Part, Tick, Value, no_tick
from engines.ports import BatchCounts, Session
from engines.ragged import Ragged
from schemas.errors import ModelError, RigflowError
from schemas.pipeline import OperatorStage

_Answer: TypeAlias = Callable[[], dict[str, Value]]


def infer_parts(
    stage: OperatorStage,
    session: Session,
    parts: Sequence[Part],
    tick: Tick = no_tick,
    heads: Heads | None = None,
    counts: BatchCounts | None = None,
    only_full: bool = False,
) -> list[Part | RigflowError]:
    """What a model makes of each part, or the ModelError of that part alone; same length and order as `parts`.

    An input `x` reads the array `stage.reads[x]`, or the picture that decode made for it, or the array of its own name.
    Of arrays with a row a frame (`pixels`, `plane0` ...) it gets `array[index]`, a row a window `[W, T, ...]`, when the
    model has one dimension more; the windows' single frames `[W, ...]` when they have one (T = 1); and the frames as
    they are otherwise. Batches hold at most `stage.max_batch` rows and `session.batch_bytes` of input. A part holds the
    outputs, as `heads` make of them, and nothing else. With `stage.items` the rows are the items of that ragged array,
    and the outputs are ragged, too. `tick` is called after each batch, and `counts` counts it. Raises DeviceLost.

    With `only_full`, rows that fill no batch are left if others fill one. Their part is Begun, to be given once more.
    """
    heads = heads or Heads(session.spec)
    failed: dict[int, RigflowError] = {}
    works: list[Work] = []
    for number, part in enumerate(parts):
        try:
            works += _continued(part, number) if isinstance(part, Begun) else _bind(stage, session, number, part, heads)
        except ModelError as error:
            failed[number] = error
    counts = counts or BatchCounts()
    _Run(session, heads, failed, tick, stage, counts).all(_batches(works, stage, session, counts, only_full))
    return _outcomes(stage, [part.entire if isinstance(part, Begun) else part for part in parts], works, failed)


def _outcomes(
    stage: OperatorStage, parts: Sequence[Part], works: Sequence[Work], failed: dict[int, RigflowError]
) -> list[Part | RigflowError]:
    """What the answers make of each part."""
    left = {work.part for work in works if work.taken < work.rows} - failed.keys()
    arrays: list[dict[str, Value]] = [{} for _ in parts]
    held = [0] * len(parts)
    of_items: dict[int, list[tuple[Items, Mapping[str, Value]]]] = {}
    for work in works:
        if work.part not in failed and work.part not in left:
            held[work.part] += work.held
            if stage.items:
                [items] = work.inputs.values()
                assert isinstance(items, Items)
                of_items.setdefault(work.part, []).append((items, work.made))
            else:
                arrays[work.part] |= work.made
    for number, made in of_items.items():
        try:
            arrays[number] = put_together(made)
        except ModelError as error:
            failed[number] = error
    return [
        failed.get(number) or part.with_arrays(arrays[number], **_held(part, held[number]))
        if number not in left
        else Begun(part.meta, part.arrays, part, tuple(work for work in works if work.part == number))
        for number, part in enumerate(parts)
    ]


def _held(part: Part, rows: int) -> dict[str, int]:
    """The field of a part's meta data that changes where rows were not computed; a copy of them takes its time."""
    return {"held": part.meta.held + rows} if rows else {}


def _continued(part: Begun, number: int) -> Sequence[Work]:
    """The works of a part that was begun before, which is number `number` now."""
    for work in part.works:
        work.part = number
    return part.works


def _bind(stage: OperatorStage, session: Session, number: int, part: Part, heads: Heads) -> list[Work]:
    """What the model has to do for one part."""
    spec = session.spec
    if stage.items:
        name = spec.inputs[0].name
        found = items_of(part, stage.items, stage.name)
        return [_work(session, number, {name: items}, heads, views=items.views if heads.any else ()) for items in found]
    if not stage.each:
        inputs = {tensor.name: source_of(stage, part, tensor.name, len(tensor.shape)) for tensor in spec.inputs}
        tiled = {
            tensor.name: Tiles(inputs[tensor.name], tensor.picture)
            for tensor in spec.inputs
            if tensor.picture is not None and tensor.picture.tile
        }
        if tiled:  # a model of one input: `Infer` has checked that
            [tiles] = tiled.values()
            return [_work(session, number, tiled, heads, views=tiles.views)]
        return [_work(session, number, inputs, heads, views=heads.views(part))]
    name, rank = spec.inputs[0].name, len(spec.inputs[0].shape)
    if len(spec.inputs) != 1 or len(spec.outputs) != 1:
        raise ModelError(f"model `{spec.name}` cannot run over `each` array", "it needs one input and one output")
    present = {array: part.arrays[array] for array in stage.each if array in part.arrays}
    if not present:
        raise ModelError(f"stage `{stage.name}` runs over {', '.join(stage.each)}, and a part has none", holds(part))
    sources = {
        name: Source(array) for name, array in present.items() if not isinstance(array, Ragged) and array.ndim == rank
    }
    if len(sources) != len(present):
        raise ModelError(f"model `{spec.name}` wants {rank} dimensions in each of {', '.join(present)}", holds(part))
    return [_work(session, number, {name: source}, heads, replaces=array) for array, source in sources.items()]


def _work(
    session: Session,
    number: int,
    inputs: Mapping[str, Source | Tiles | Items],
    heads: Heads,
    replaces: str = "",
    views: Sequence[View] = (),
) -> Work:
    rows = {name: len(source) for name, source in inputs.items()}
    if len(set(rows.values())) != 1:
        counts = ", ".join(f"`{name}` {count}" for name, count in rows.items())
        raise ModelError(f"model `{session.spec.name}` got inputs of different lengths: {counts}")
    alike = views[0] if views and heads.by_source else None
    work = Work(number, inputs, next(iter(rows.values())), replaces, views, alike)
    if not work.rows:
        work.put(0, heads.nothing())
    return work


def _batches(
    works: Sequence[Work], stage: OperatorStage, session: Session, counts: BatchCounts, only_full: bool
) -> Iterator[list[Span]]:
    """Spans of equal signature, in order, together as many rows as stage, session and model take at once.

    With `only_full`, those alone that are as many; tiles too, which are too large to wait, and all if none are.
    """
    groups: dict[tuple[object, ...], list[Work]] = {}
    for work in works:
        groups.setdefault(work.signature, []).append(work)
    limits = {signature: most_rows(group[0].row_bytes, stage, session) for signature, group in groups.items()}
    left = {signature: sum(work.rows - work.taken for work in group) for signature, group in groups.items()}
    only_full = only_full and any(left[signature] >= limits[signature] for signature in groups)
    for signature, group in groups.items():
        batch: list[Span] = []
        room = limit = limits[signature]
        rows = left[signature] // limit * limit if only_full and not group[0].tiled else left[signature]
        for work in group:
            while rows and work.taken < work.rows:
                start, work.taken = work.taken, min(work.rows, work.taken + min(room, rows))
                batch.append(Span(work, start, work.taken))
                room -= work.taken - start
                rows -= work.taken - start
                if room == 0:
                    counts.add(limit, limit)
                    yield batch
                    batch, room = [], limit
        if batch:
            counts.add(limit - room, limit)
            yield batch


class _Run:
    """Answers batches, as many at a time as the session can have in flight."""

    def __init__(
        self,
        session: Session,
        heads: Heads,
        failed: dict[int, RigflowError],
        tick: Tick,
        stage: OperatorStage,
        counts: BatchCounts,
    ) -> None:
        self._stage = stage
        self._counts = counts
        self._session, self._overlapping = session, overlapping(session)
        self._heads = heads
        self._failed = failed
        self._tick = tick

    def all(self, batches: Iterator[list[Span]]) -> None:
        """Answer all; a part that fails is noted in `failed`."""
        most = self._overlapping.in_flight if self._overlapping else 1
        under_way: deque[tuple[float, list[Span], _Answer]] = deque()
        ended_s = 0.0

        def finish() -> None:
            nonlocal ended_s
            began_s, batch, answer = under_way.popleft()
            if self._finish(batch, answer):
                began_s, ended_s = max(began_s, ended_s), time.perf_counter()
                rows = sum(span.stop - span.start for span in batch)
                self._counts.times.append((rows, self._room(batch), ended_s - began_s))
            self._tick()

        for batch in batches:
            batch = [span for span in batch if span.work.part not in self._failed]
            if batch:
                under_way.append((time.perf_counter(), batch, self._begin(batch)))
            while len(under_way) >= most:
                finish()
        while under_way:
            finish()

    def _finish(self, batch: Sequence[Span], answer: _Answer) -> bool:
        """Take the answer of one batch; when it fails, ask for each span alone, so that only the guilty part does.

        Returns whether the batch had an answer.
        """
        try:
            outputs = answer()
        except ModelError as error:
            if len(batch) == 1:
                self._failed[batch[0].work.part] = error
                return False
            for span in batch:
                if span.work.part not in self._failed:
                    self._finish([span], self._begin([span]))
            return False
        row = 0
        for span in batch:
            end = row + span.stop - span.start
            try:
                span.work.put(span.start, {name: _rows(value, row, end) for name, value in outputs.items()})
            except ModelError as error:
                self._failed[span.work.part] = error
            row = end
        return True

    def _begin(self, batch: Sequence[Span]) -> _Answer:
        """Queue a batch, or run it where the session knows no queue; what is returned gives its answer or its error."""
        inputs = {
            name: RowBatch([span.work.inputs[name].chosen(span.start, span.stop) for span in batch])
            for name in batch[0].work.inputs
        }
        try:
            if self._overlapping:
                started = self._overlapping.start(inputs, self._room(batch))
            else:
                outputs = self._session.run({name: np.asarray(rows) for name, rows in inputs.items()})

                def started() -> dict[str, Array]:
                    return outputs

        except ModelError as error:
            return functools.partial(_raise, error)
        return lambda: self._meant(batch, started())

    def _room(self, batch: Sequence[Span]) -> int:
        """How many rows a full batch of these has."""
        return most_rows(batch[0].work.row_bytes, self._stage, self._session)

    def _meant(self, batch: Sequence[Span], outputs: dict[str, Array]) -> dict[str, Value]:
        """What the outputs mean, if there is a row for each row in. Raises ModelError."""
        rows = sum(span.stop - span.start for span in batch)
        views = [view for span in batch for view in span.work.views[span.start : span.stop]]
        return self._heads(outputs, views, rows)


def _rows(value: Value, start: int, stop: int) -> Value:
    return value.rows(start, stop) if isinstance(value, Ragged) else value[start:stop]


def _raise(error: ModelError) -> dict[str, Value]:
    raise error
