"""tensor: npz files of arrays, the inputs of a model by name. The first dimension of each counts the rows."""

import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath

import numpy as np
from pydantic import Field

from engines.archive import DTYPES, NPZ_BYTES, read_npz, write_npz
from engines.media.albums import ALBUM_BYTES, albums
from engines.media.container import open_regular
from engines.media.decode import Convert
from engines.media.last import marked_last
from engines.media.limits import Limits
from engines.media.medium import BaseMedium, DecodePlace, Input, Match, SplitRequest
from engines.media.segment_data import SegmentData
from engines.media.source import media_errors
from engines.options import Options
from engines.part import Array, Part, Tick, no_tick
from engines.planned import INDEX, Arrays, DecodePlan, Tensor
from schemas.errors import ItemTooLarge, MediaError, PipelineError, RigflowError
from schemas.grid import Grid
from schemas.media import Item, MediaInfo
from schemas.model import TensorSpec, describe, fits
from schemas.parts import PartMeta
from schemas.pipeline import DecodeStage
from schemas.segments import Segment
from schemas.wire import Buffer

_DECLARED = re.compile(r"(\w+) \[([^\[\]]+)\]")
_ITEMS = 64  # files in a segment
_FIRST = "first"  # fact of a segment: the number of its first row in its file


class TensorOptions(Options):
    """`inputs`: what arrays files have, `{x = "float32 [N, 4]"}`, where a dimension that is no number is free; left
    out, it is what the models of the pipeline take. Files of more than `rows` rows are cut.
    """

    inputs: dict[str, str] = Field(default={}, max_length=1024)
    rows: int = Field(default=64, ge=1, le=65536)


class TensorMedium(BaseMedium[TensorOptions]):
    """Decoded parts have the arrays of one file each, or of a piece of it; `pts` are the numbers of their rows.

    Each row is an item, called by its file.
    """

    kind = "tensor"
    timed = False
    options_class = TensorOptions

    def __init__(self, stage: DecodeStage) -> None:
        super().__init__(stage)
        self._inputs = {name: _declared(stage.name, name, text) for name, text in self._options.inputs.items()}

    def sniff(self, head: bytes, given: Input) -> Match:
        """By the name, and by a first member that is an array."""
        named = PurePosixPath(given.name).suffix.lower() == ".npz"
        length = int.from_bytes(head[26:28], "little")
        member = head.startswith(b"PK\x03\x04") and head[30 : 30 + length].endswith(b".npy")
        return Match.CERTAIN if named or member else Match.NO

    def split(self, inputs: Sequence[Input], request: SplitRequest) -> Iterator[SegmentData]:
        """A file that cannot be read, or is not what the model takes, is a failed item."""
        for (first, group, buffers), final in marked_last(self._groups(inputs, request.limits)):
            media = MediaInfo(kind=self.kind, timed=False, name=group[0].name)
            yield SegmentData(media, tuple(buffers), final, items=tuple(group), facts={_FIRST: first} if first else {})

    def segments_of(self, name: str, arrays: Mapping[str, Array]) -> Iterator[SegmentData]:
        """Yield the segments of one file of arrays that are `checked`, which is not there as bytes."""
        media, item = MediaInfo(kind=self.kind, timed=False, name=name), Item(name=name)
        for (first, piece, data), final in marked_last(_pieces(item, 0, None, arrays, self._options.rows)):
            yield SegmentData(media, (data,), final, items=(piece,), facts={_FIRST: first} if first else {})

    def plan(self, grid: Grid) -> Arrays:
        """Return the declared arrays. Raises PipelineError if there are none, or one is called `index`."""
        if not self._inputs:
            raise PipelineError(
                f"stage `{self._stage.name}`: no stage of the pipeline runs a model on tensors",
                'add a stage infer, or declare inputs = { NAME = "float32 [N, 4]" }',
            )
        if INDEX in self._inputs:
            raise PipelineError(
                f"an input cannot be called `{INDEX}`, as an array of decode is", "give it another name"
            )
        return {name: Tensor(each.dtype, ("W", *each.shape[1:])) for name, each in self._inputs.items()}

    def decode(
        self,
        segment: Segment,
        buffers: Sequence[Buffer],
        plan: DecodePlan,
        convert: Convert,
        place: DecodePlace,
        tick: Tick = no_tick,
    ) -> Iterator[Part]:
        """Yield a part of each item. Raises MediaError for a segment without buffers."""
        if len(buffers) != len(segment.items):
            raise MediaError("a segment of tensors names files, and has no arrays", "publish the file again")
        for number, (item, data) in enumerate(zip(segment.items, buffers, strict=True)):
            key = segment.key.model_copy(update={"part": number, "last": number == len(buffers) - 1})
            yield self._part(PartMeta(key=key, media=segment.media), item, data, segment.facts.get(_FIRST))
            tick()

    def _part(self, meta: PartMeta, item: Item, data: Buffer, first: object) -> Part:
        arrays: Mapping[str, Array] = {}
        try:
            if not item.error:
                arrays = self.checked(read_npz(data))
        except RigflowError as error:
            item = item.model_copy(update={"error": str(error)})
        rows = _rows(arrays)
        if not rows:
            arrays = {name: np.empty((0, *_inner(each)), each.dtype) for name, each in self._inputs.items()}
        begin = first if isinstance(first, int) and 0 <= first < 1 << 53 else 0
        update = {
            "items": (item,) * max(1, rows),
            "pts": tuple(range(begin, begin + rows)),
            "frames": rows,
            "lost": int(not rows),
        }
        return Part(meta.model_copy(update=update), dict(arrays))

    def _groups(self, inputs: Sequence[Input], limits: Limits) -> Iterator[tuple[int, list[Item], list[Buffer]]]:
        """Yield the items of each segment and their bytes: many whole files, or a piece of one from its `first` row."""
        for cut, found in groupby(self._items(inputs, limits), lambda each: each[1].piece_of is not None):
            if cut:
                yield from ((first, [item], [data]) for first, item, data in found)
            else:
                yield from ((0, *group) for group in albums(((item, data) for _, item, data in found), most=_ITEMS))

    def _items(self, inputs: Sequence[Input], limits: Limits) -> Iterator[tuple[int, Item, Buffer]]:
        rows = 0
        for number, given in enumerate(inputs):
            item = Item(name=given.name)
            try:
                with media_errors(given.name):
                    data = _content(given)
                    arrays = self.checked(read_npz(data)) if self._inputs else read_npz(data)
            except RigflowError as error:
                yield 0, item.model_copy(update={"error": str(error)}), b""
                continue
            rows += _rows(arrays)
            if rows > limits.windows:
                what = f"a job of tensors has more than {limits.windows} rows"
                raise ItemTooLarge(what, "cut it, or raise the setting max_windows")
            yield from _pieces(item, number, data, arrays, self._options.rows)

    def checked(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Return the declared arrays in their order. Raises MediaError unless names, dtypes, shapes and rows fit."""
        wanted = ", ".join(f"`{name}` {describe(each.dtype, each.shape)}" for name, each in self._inputs.items())
        hint = f"give {wanted}"
        for name in self._inputs:
            if name not in arrays:
                only = f", only {_listed(arrays)}" if arrays else ""
                raise MediaError(f"it has no input `{name}`{only}", hint)
        for name, array in arrays.items():
            if (declared := self._inputs.get(name)) is None:
                raise MediaError(f"there is no input `{name}`", hint)
            free = declared.model_copy(update={"shape": ("N", *declared.shape[1:])})
            if not fits(free, array.dtype.name, array.shape):
                raise MediaError(f"input `{name}` is {describe(array.dtype.name, array.shape)}", hint)
        if len({len(array) for array in arrays.values()}) > 1:
            counts = ", ".join(f"`{name}` {len(array)}" for name, array in arrays.items())
            raise MediaError(f"its inputs have different numbers of rows: {counts}", "give each as many")
        if not _rows(arrays):
            raise MediaError("its inputs have no rows", "give at least one")
        return {name: arrays[name] for name in self._inputs}


def _pieces(
    item: Item, number: int, data: Buffer | None, arrays: Mapping[str, Array], most: int
) -> Iterator[tuple[int, Item, Buffer]]:
    """Yield a file as it is, in the bytes `data` if there are any, or cut by rows.

    Pieces have up to `most`, and up to 4 MB where a row has less.
    """
    rows = _rows(arrays)
    row_bytes = sum(array.nbytes for array in arrays.values()) // rows
    step = max(1, min(most, ALBUM_BYTES // max(1, row_bytes)))
    if rows <= step:
        yield 0, item, _npz(arrays) if data is None else data
        return
    for first in range(0, rows, step):
        stop = min(first + step, rows)
        piece = item.model_copy(update={"piece_of": number, "more": stop < rows})
        yield first, piece, _npz({name: array[first:stop] for name, array in arrays.items()})


def _npz(arrays: Mapping[str, Array]) -> bytes:
    file = io.BytesIO()
    write_npz(file, arrays)
    return file.getvalue()


def _content(given: Input) -> Buffer:
    if not isinstance(given.source, Path):
        _check_size(given.name, len(given.source))
        return given.source
    file, size = open_regular(given.source)
    with os.fdopen(file, "rb") as opened:
        _check_size(given.name, size)
        return opened.read()


def _check_size(name: str, size: int) -> None:
    if size > NPZ_BYTES:
        raise ItemTooLarge(f"{name} has {size:,} bytes, and a file has at most {NPZ_BYTES:,}", "cut it into files")


def _declared(stage: str, name: str, text: str) -> TensorSpec:
    """Return the input that `float32 [N, 4]` declares. Raises PipelineError."""
    found = _DECLARED.fullmatch(text)
    sizes = [each.strip() for each in found[2].split(",")] if found else []
    if found is None or found[1] not in DTYPES or not all(sizes):
        what = f"stage {stage}, option inputs: `{name}` is declared as {text!r}"
        raise PipelineError(what, f'write "float32 [N, 4]", with one of {", ".join(DTYPES)}')
    shape = tuple(int(size) if size.isdecimal() else size for size in sizes)
    return TensorSpec(name=name, dtype=found[1], shape=shape)


def _inner(tensor: TensorSpec) -> list[int]:
    return [size if isinstance(size, int) else 0 for size in tensor.shape[1:]]


def _rows(arrays: Mapping[str, Array]) -> int:
    """Return how many rows each array has; of what is no row, 0."""
    return min((len(array) if array.ndim else 0 for array in arrays.values()), default=0)


def _listed(arrays: Mapping[str, Array]) -> str:
    return ", ".join(f"`{name}`" for name in arrays)
