"""Finds the inputs of a model that are pictures, and the arithmetic that converts a frame's bytes to their values."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import ValidationError

from engines.part import Array
from schemas.errors import ModelError, format_field_error
from schemas.model import InputCard, Layout, TensorSpec, describe
from schemas.picture import PictureFields, PictureSpec

FRAME_FIELDS = frozenset({"size", *PictureFields.model_fields})
VALUE_FIELDS = frozenset({"colours", "layout", "scale", "mean", "std"})
_FLOATS = ("float16", "float32", "float64", "bfloat16")
_NO_PICTURE = 'a picture has dimensions [N, 3, H, W] or [N, H, W, 3]; for a graph without N, say batch = "none"'
_OF_WINDOWS = 'write layout = "ntchw", "ncthw" or "nthwc"'


@dataclass(frozen=True, slots=True)
class Picture:
    """An input that is a picture, or a window of T pictures; `layout` names each of its dimensions.

    `steps`: the arithmetic of its values, each an operation and one number, `[]`, or one for each colour, `[3]`.
    """

    tensor: TensorSpec
    layout: Layout
    colours: Literal["rgb", "bgr", "gray", "ycbcr"]
    steps: tuple[tuple[Literal["Mul", "Sub", "Div"], Array], ...]
    spec: PictureSpec

    @property
    def fed(self) -> str:
        """The layout of what rigflow feeds: rows before columns, colours last, of gray no such dimension."""
        return f"{'nt' if 't' in self.layout else 'n'}hw{'' if self.colours == 'gray' else 'c'}"

    @property
    def shape(self) -> tuple[int | str, ...]:
        """The shape of the input: `[N, H, W, 3]`, `[N, H, W]` for gray, `[N, T, H, W, 3]` of windows, of bytes."""
        sizes: dict[str, int | str] = dict(zip(self.layout, self.tensor.shape, strict=True)) | {"c": 3}
        fixed = self.spec.tile if self.spec.size == "source" else self.spec.size
        if fixed:
            sizes |= dict(zip("hw", fixed, strict=True))
        return tuple(sizes[each] for each in self.fed)


class _Refused(ModelError):
    """A field of a card contradicts another one, or the graph."""


def picture_of(model: str, card: InputCard | None, tensor: TensorSpec, alone: bool) -> Picture | None:
    """Return how an input is made from a frame; None if it is another array.

    `tensor` is the input as it was exported. An input without a card is a picture if it has three channels of floats or
    bytes in dimension 1 or 3 of 4, or one channel if it is `alone`: no other input has three.

    Raises ModelError for a card that contradicts itself or the graph; `model` is its name, for errors.
    """
    card = card or InputCard(name=tensor.name)
    written = card.model_fields_set & (FRAME_FIELDS | VALUE_FIELDS)
    if not written and (card.reads or not is_clear(tensor, alone)):
        return None
    try:
        return _picture(card, tensor)
    except _Refused as error:
        raise ModelError(f"model `{model}`, input `{tensor.name}`, {error.what}", error.hint) from error


def is_clear(tensor: TensorSpec, alone: bool) -> bool:
    """Return whether an input is a picture by its shape and dtype; `alone`: it may also have one channel."""
    shape = tensor.shape
    if len(shape) != 4 or tensor.dtype not in (*_FLOATS, "uint8"):
        return False
    axes = [axis for axis in (1, 3) if shape[axis] in (1, 3)]
    if len(axes) != 1 or (shape[axes[0]] == 1 and not alone):
        return False
    sides = shape[2:4] if axes[0] == 1 else shape[1:3]
    return len({type(side) for side in sides}) == 1 and all(isinstance(each, str) or each <= 8192 for each in sides)


def _picture(card: InputCard, tensor: TensorSpec) -> Picture:
    if card.reads and (written := card.model_fields_set & FRAME_FIELDS):
        raise _Refused(f"{min(written)}: it reads the array `{card.reads}`", "leave one of them out")
    layout, channels = _channels(card, tensor)
    colours = card.colours or ("gray" if channels == 1 else "rgb")
    if (colours == "gray") != (channels == 1):
        hint = 'write "gray"' if channels == 1 else 'write "rgb", "bgr" or "ycbcr"'
        raise _Refused(f"colours: {colours} for {channels} channel{'s' * (channels > 1)}", hint)
    if colours == "ycbcr" and "t" in layout:
        raise _Refused("colours: ycbcr of windows", "put that into the graph")
    if card.tile and "t" in layout:
        raise _Refused("tile: of windows", "leave it out: tiles are of single pictures")
    height, width = (tensor.shape[layout.index(side)] for side in "hw")
    options = card.model_dump(include=set(FRAME_FIELDS - {"size"}))
    try:
        spec = PictureSpec(
            size=_size(card, height, width),
            layout="gray" if colours == "gray" else "rgb",
            **options,
        )
    except ValidationError as error:
        raise _Refused(format_field_error(error.errors()[0]), "correct it") from error
    return Picture(tensor, layout, colours, _steps(card, tensor, channels), spec)


def _channels(card: InputCard, tensor: TensorSpec) -> tuple[Layout, int]:
    """Return the meaning of each dimension, and the number of colours."""
    shape, what = tensor.shape, describe(tensor.dtype, tensor.shape)
    layout = card.layout or ("nhw" if len(shape) == 3 and card.colours == "gray" else None)
    if np.dtype(tensor.dtype).kind in "bcOSU" or len(shape) != len(layout or "nchw"):
        windows = layout is None and len(shape) == 5
        raise _Refused(f"{_first(card)}: {what} is no picture", _OF_WINDOWS if windows else _NO_PICTURE)
    if layout is not None:
        if "c" not in layout:
            return layout, 1
        axis = layout.index("c")
        channels = shape[axis]
        if isinstance(channels, str):
            return layout, 1 if card.colours == "gray" else 3
        if channels not in (1, 3):
            other = len(layout) == 4 and shape[1 if axis == 3 else 3] in (1, 3)
            hint = "write the other" if other else _OF_WINDOWS if len(shape) == 5 else _NO_PICTURE
            raise _Refused(f"layout: {layout}, and dimension {axis} of {what} is not 1 or 3", hint)
        return layout, channels
    found = [axis for axis in (1, 3) if shape[axis] in (1, 3)]
    if not found and not any(isinstance(shape[axis], str) for axis in (1, 3)):
        raise _Refused(f"{_first(card)}: {what} is no picture", _NO_PICTURE)
    if len(found) != 1:
        raise _Refused(f"layout: {what} does not tell where its colours are", 'write layout = "nchw" or "nhwc"')
    return "nchw" if found[0] == 1 else "nhwc", int(shape[found[0]])


def _first(card: InputCard) -> str:
    """Return a field which states that the input is a picture."""
    return min(card.model_fields_set & (FRAME_FIELDS | VALUE_FIELDS))


def _size(card: InputCard, height: int | str, width: int | str) -> tuple[int, int] | Literal["source"]:
    graph = f"its graph takes {height} × {width} (height × width)"
    if card.tile is not None and card.size in (None, "source"):
        if any(isinstance(side, int) and side != of for of, side in zip(card.tile, (height, width), strict=True)):
            raise _Refused(f"tile: {card.tile[0]} × {card.tile[1]}, and {graph}", "write that, or leave it out")
        return "source"
    if card.size == "source" or card.size is None:
        if isinstance(height, int) and isinstance(width, int):
            if card.size is not None:
                raise _Refused(f'size: "source", and {graph}', "leave it out")
            if card.multiple != 1:
                raise _Refused(f"multiple: {graph}", "leave it out")
            return height, width
        if isinstance(width, int) or (isinstance(height, int) and card.size is None):
            raise _Refused(f"size: {graph}", "write size = [height, width]")
        return "source"
    if any(isinstance(side, int) and side != asked for asked, side in zip(card.size, (height, width), strict=True)):
        raise _Refused(f"size: {card.size[0]} × {card.size[1]}, and {graph}", "write that, or leave it out")
    return card.size


def _steps(
    card: InputCard, tensor: TensorSpec, channels: int
) -> tuple[tuple[Literal["Mul", "Sub", "Div"], Array], ...]:
    """Return `x * scale`, `- mean`, `/ std`, without steps that change nothing."""
    scale, mean, std = (_numbers(card, field, channels) for field in ("scale", "mean", "std"))
    if std is not None and not std.all():
        raise _Refused("std: 0, and values are divided by it", "write 1 for no division")
    units = [each for each in (mean, std) if each is not None]
    if scale is None and units and all(np.abs(each).max() <= 1 for each in units):
        what = f"{'std' if mean is None else 'mean'}: at most 1, and of bytes, 0 to 255, where no scale is"
        raise _Refused(what, f"write scale = {1 / 255} if it is of values from 0 to 1, else scale = 1")
    of_bytes = units or tensor.dtype not in _FLOATS
    scale = np.array(1.0 if of_bytes else 1 / 255, np.float32) if scale is None else scale
    mean = np.zeros((), np.float32) if mean is None else mean
    std = np.ones((), np.float32) if std is None else std
    ends = (np.array([[0], [255]], np.float32) * scale - mean) / std
    _check_values(card, tensor, float(ends.min()), float(ends.max()))
    given: list[tuple[Literal["Mul", "Sub", "Div"], Array, float]] = [
        ("Mul", scale, 1.0), ("Sub", mean, 0.0), ("Div", std, 1.0),
    ]  # fmt: skip
    return tuple((kind, numbers) for kind, numbers, idle in given if (numbers != idle).any())


def _numbers(card: InputCard, field: str, channels: int) -> Array | None:
    """Return one number or one a channel, float32; None if the card has none."""
    written = getattr(card, field)
    if written is None:
        return None
    numbers = np.array(written, np.float32).reshape(-1)
    if len(numbers) not in (1, channels):
        count = f"{len(numbers)} number{'s' * (len(numbers) != 1)}"
        raise _Refused(f"{field}: {count} for {channels} channel{'s' * (channels > 1)}", "write one, or one a channel")
    return numbers[0:1].reshape(()) if (numbers == numbers[0]).all() else numbers


def _check_values(card: InputCard, tensor: TensorSpec, low: float, high: float) -> None:
    """Refuse values outside the input's type, or outside the range of its card."""
    fits = "write scale, mean and std so that they fit"
    if np.dtype(tensor.dtype).kind in "iu":
        info = np.iinfo(tensor.dtype)
        if low < info.min or high > info.max:
            raise _Refused(f"dtype: {tensor.dtype} does not hold values from {low:g} to {high:g}", fits)
    if card.range is not None:
        slack = 1e-3 * (card.range[1] - card.range[0])
        inside = card.range[0] - slack <= low and high <= card.range[1] + slack
        equal = abs(low - card.range[0]) <= slack and abs(high - card.range[1]) <= slack
        if not (inside if card.model_fields_set & {"scale", "mean", "std"} else equal):
            what = f"range: {card.range[0]:g} to {card.range[1]:g}, and its values go from {low:g} to {high:g}"
            raise _Refused(what, f"{fits}, or leave range out")
