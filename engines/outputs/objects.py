"""The objects that a detecting head found in each picture, for the formats that draw or list them.

The arrays of a part, with a row a window; coordinates are pixels of the upright source, from its upper left corner:

    boxes      [M, 4] float32      x1, y1, x2, y2
    scores     [M] float32
    classes    [M] int32
    keypoints  [M, K, 3] float32   x, y, score
    corners    [M, 4, 2] float32   of a box that is turned
    masks      [M, h, w] uint8     not 0 inside; h and w span the box, at whatever resolution the model has
    text       [M, T] int32        numbers of characters, -1 behind the last one

All but `boxes` may be missing. `source_size [W, 2]` int32 is (height, width) of the source of each window.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from engines.outputs.base import check_rows, row_of
from engines.part import Array, Part, Value
from engines.planned import Tensor
from schemas.errors import PipelineError
from schemas.model import describe

MOST = 20_000  # objects of a picture: each takes a place in a list, or a drawing
ROWS: Mapping[str, tuple[int | None, ...]] = {
    "boxes": (4,),
    "scores": (),
    "classes": (),
    "keypoints": (None, 3),
    "corners": (4, 2),
    "masks": (None, None),
    "text": (None,),
}


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects of one picture: all arrays have M rows. `tracks` int64 are numbers of tracks, 0 for none."""

    boxes: Array
    scores: Array | None = None
    classes: Array | None = None
    keypoints: Array | None = None
    corners: Array | None = None
    masks: Array | None = None
    text: Array | None = None
    tracks: Array | None = None


def check_objects(arrays: Mapping[str, Tensor], format_name: str) -> None:
    """Raise PipelineError unless such arrays include boxes, and the arrays that belong to them fit."""
    if "boxes" not in arrays:
        raise _no_boxes(arrays, format_name)
    for name in ROWS.keys() & arrays.keys():
        found = arrays[name]
        if not _fits(found.shape[2:], ROWS[name]):
            wanted = ", ".join(["W", "M", *("any" if size is None else str(size) for size in ROWS[name])])
            raise PipelineError(
                f"`{name}` is {describe(found.dtype, found.shape)}", f"format {format_name} takes [{wanted}]"
            )


def objects_of(part: Part, format_name: str) -> Iterator[Objects]:
    """Yield the objects of each window. Raises PipelineError if the arrays are not as this module states."""
    windows = len(part.meta.pts)
    held: Mapping[str, Value] = part.arrays
    found = {name: held[name] for name in ROWS if name in held}
    if windows and "boxes" not in found:
        raise _no_boxes(held, format_name)
    for name, array in found.items():
        check_rows(name, array, windows)
    for number in range(windows):
        rows = {name: row_of(array, number) for name, array in found.items()}
        if len(rows["boxes"]) > MOST:
            what = f"a picture has {len(rows['boxes'])} boxes, and format {format_name} takes {MOST}"
            raise PipelineError(what, "give the model a head that detects: it keeps the best ones")
        for name, row in rows.items():
            if len(row.shape) != 1 + len(ROWS[name]) or not _fits(row.shape[1:], ROWS[name]):
                raise PipelineError(f"a row of `{name}` has shape {list(row.shape)}", f"see {format_name} in the docs")
            if len(row) != len(rows["boxes"]):
                what = f"`{name}` has {len(row)} rows for {len(rows['boxes'])} boxes"
                raise PipelineError(what, "a head must give one for each box")
        yield Objects(**rows)


def source_sizes(part: Part) -> list[tuple[int, int]]:
    """Return height and width of the source of each window, or else those of the media; (0, 0) if unknown.

    Raises PipelineError if `source_size` is not as this module states.
    """
    media, windows = part.meta.media, len(part.meta.pts)
    if "source_size" not in part.arrays:
        return [(media.height, media.width)] * windows
    sizes = part.array("source_size")
    if sizes.shape != (windows, 2):
        raise PipelineError(
            f"`source_size` has shape {list(sizes.shape)} for {windows} windows", "give it two numbers each"
        )
    return [(height, width) for height, width in sizes.tolist()]


def label_of(labels: tuple[str, ...], number: int) -> str:
    """Return the name of a class; its number if there is no label."""
    return labels[number] if 0 <= number < len(labels) else str(number)


def text_of(labels: tuple[str, ...], numbers: Array) -> str:
    """Return a line of text; characters without label are left out."""
    return "".join(labels[number] for number in numbers.tolist() if 0 <= number < len(labels))


def _no_boxes(arrays: Mapping[str, object], format_name: str) -> PipelineError:
    held = ", ".join(f"`{name}`" for name in arrays) or "nothing"
    what = f"format {format_name} needs `boxes`, the part holds {held}"
    return PipelineError(what, "take a model whose card has a head that detects, or add `keeps`")


def _fits(shape: tuple[int | str, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        size is None or isinstance(found, str) or found == size for found, size in zip(shape, wanted, strict=True)
    )
