"""How full batches are: the rows that a part adds to them, by what can share one, and the most that a batch has."""

from math import prod
from typing import TypeAlias

from engines.inference.items import items_of
from engines.inference.session import overlapping
from engines.inference.sources import source_of
from engines.inference.tiles import tiles_in
from engines.inference.work import Begun
from engines.part import Part
from engines.ports import RowKind, Session
from schemas.errors import ModelError
from schemas.pipeline import OperatorStage

Rows: TypeAlias = dict[RowKind, int]


def most_rows(row_bytes: int, stage: OperatorStage, session: Session) -> int:
    """Return how many rows of so many bytes a batch has at most."""
    if any(tensor.shape[:1] == (1,) for tensor in session.spec.inputs):  # exported for one row at a time
        return 1
    if (queued := overlapping(session)) is not None:
        return max(1, min(stage.max_batch, queued.most_rows(row_bytes)))
    return max(1, min(stage.max_batch, session.batch_bytes // max(1, row_bytes)))


def rows_of(stage: OperatorStage, session: Session, part: Part) -> Rows:
    """Return how many rows a part adds to batches; none for a part that waits for no others. Touches no device."""
    try:
        if isinstance(part, Begun):
            return {_kind(work.row_bytes, stage, session): work.rows - work.taken for work in part.works}
        if stage.items:
            found = items_of(part, stage.items, stage.name)
            return {_kind(items.row_bytes, stage, session): len(items) for items in found if len(items)}
        windows = len(part.meta.pts)
        if stage.each or not windows:
            return {RowKind(0, stage.max_batch): windows} if windows else {}
        row_bytes = 0
        for tensor in session.spec.inputs:
            source = source_of(stage, part, tensor.name, len(tensor.shape), shape_only=True)
            row_bytes += source.row_bytes
            if tensor.picture is not None and tensor.picture.tile:
                height, width, *_ = source.row
                windows = len(source) * tiles_in((height, width), tensor.picture)
                row_bytes = row_bytes // (height * width) * prod(tensor.picture.tile)
        return {_kind(row_bytes, stage, session): windows}
    except ModelError:
        return {}  # `infer_parts` gives the part this error


def _kind(row_bytes: int, stage: OperatorStage, session: Session) -> RowKind:
    return RowKind(row_bytes, most_rows(row_bytes, stage, session))
