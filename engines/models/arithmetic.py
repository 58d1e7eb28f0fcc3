"""Adds the arithmetic from a picture of bytes to the values of a model's input, as operations of its graph."""

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from engines.models.pictures import Picture
from engines.models.surgery import Surgery
from engines.part import Array

# R, G, B -> Y, Cb, Cr of JPEG (JFIF 1.02), in libjpeg's fixed point: all sums stay below 2^24 times their unit, so
# float32 has them exactly, in whatever order a device adds, and what is below the point is cut off
_UNIT = 2.0**-16
_YCBCR = np.array([[19595, 38470, 7471], [-11059, -21709, 32768], [32768, -27439, -5329]], np.float32) * _UNIT
_YCBCR_OFFSET = np.array([32768, (128 << 16) + 32767, (128 << 16) + 32767], np.float32) * _UNIT


def put_in_front(model: Surgery, picture: Picture, dtype: int) -> bool:
    """Make the model take a picture as bytes; return whether its operations changed. `dtype`: of the input, in ONNX."""
    made = name = picture.tensor.name
    layout, order = str(picture.layout), picture.fed
    planes = layout  # in which colours are changed: a plane a colour is the fast way
    if picture.colours in ("bgr", "ycbcr") and layout.endswith("c"):
        planes = f"{order[:-3]}chw"
    if picture.colours == "gray" and "c" in layout:
        axis = layout.index("c")
        arrays, attributes = model.axes(axis)
        made, order = model.front("Unsqueeze", made, *arrays, **attributes), f"{order[:axis]}c{order[axis:]}"
    made = _ordered(model, made, order, planes)
    if picture.colours == "bgr":
        made = model.front("Gather", made, np.array([2, 1, 0], np.int64), axis=planes.index("c"))
    if picture.colours == "ycbcr":
        made = _as_ycbcr(model, made)
    made = _ordered(model, made, planes, layout)
    found = int(TensorProto.FLOAT if picture.colours == "ycbcr" else TensorProto.UINT8)
    if picture.steps and found != TensorProto.FLOAT:
        made, found = model.front("Cast", made, to=TensorProto.FLOAT), int(TensorProto.FLOAT)
    for (kind, _), numbers in zip(picture.steps, _placed(model, picture), strict=True):
        made = model.front(kind, made, numbers)
    if found != dtype:
        made = model.front("Cast", made, to=dtype)
    if made == name:
        return False
    model.read_instead(name, made)
    model.apply()
    return True


def _ordered(model: Surgery, name: str, order: str, wanted: str) -> str:
    """Transpose a tensor whose dimensions have these letters to the order `wanted`."""
    return name if order == wanted else model.front("Transpose", name, perm=[order.index(each) for each in wanted])


def _placed(model: Surgery, picture: Picture) -> list[str | Array]:
    """Return the numbers of the steps; those for each colour in a shape that fits the input.

    With colours last they become a whole line: ONNX Runtime takes thrice the time for three numbers at a time.
    """
    numbers = [each for _, each in picture.steps]
    inner = len(picture.layout) - 1 - picture.layout.find("c")
    if inner or all(each.size == 1 for each in numbers):
        return [each if each.size == 1 else each.reshape(-1, *(1,) * inner) for each in numbers]
    across = picture.fed.index(picture.layout[-2])  # in the graph's order, the dimension in front of the colours
    width = picture.shape[across]
    if isinstance(width, int):
        return [each if each.size == 1 else np.tile(each, (width, 1)) for each in numbers]
    found = model.front("Gather", model.front("Shape", picture.tensor.name), np.array([across], np.int64), axis=0)
    times = model.front("Concat", found, np.ones(1, np.int64), axis=0)
    return [each if each.size == 1 else model.front("Tile", each.reshape(1, -1), times) for each in numbers]


def _as_ycbcr(model: Surgery, planes: str) -> str:
    """Convert bytes `[N, 3, H, W]` of R, G, B to whole numbers Y, Cb, Cr, 0 to 255, float32.

    It multiplies single elements, because devices compute matrix products in lower precisions.
    """
    floats = model.front("Cast", planes, to=TensorProto.FLOAT)
    row, how = model.axes(1)
    products = model.front("Mul", model.front("Unsqueeze", floats, *row, **how), _YCBCR.reshape(3, 3, 1, 1))
    column, how = model.axes(2)
    sums = model.front("ReduceSum", products, *column, keepdims=0, **how)
    return model.front("Floor", model.front("Add", sums, _YCBCR_OFFSET.reshape(3, 1, 1)))


def set_input(value: Any, shape: tuple[int | str, ...], dtype: int) -> None:
    """Replace the declaration of an input of a graph."""
    value.CopyFrom(helper.make_tensor_value_info(value.name, dtype, shape))
