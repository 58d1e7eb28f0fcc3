"""Models as they were exported, with cards: what rigflow feeds and what comes out, beside plain NumPy and ONNX Runtime.

The reference shares no code with rigflow: the original graph, fed with values that NumPy computes from the frames.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.fronts import NANODET, Array, H, W, f32, frames, kept, node, plainly, planes, read, run, through
from tests.onnx_graphs import FLOAT, INT64, UINT8, model_of, value

HALF, DOUBLE, INT8 = TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT8
MEAN, STD = f32([103.53, 116.28, 123.675]), f32([57.375, 57.12, 58.395])
IMAGENET = f"scale = {1 / 255}\nmean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]"


# pictures: bit by bit


def ycbcr(x: Array) -> Array:
    """JFIF 1.02 in float64, rounded as libjpeg does."""
    red, green, blue = (x[..., channel].astype(np.float64) for channel in range(3))
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    cb = 128 - 0.168735892 * red - 0.331264108 * green + 0.5 * blue
    cr = 128 + 0.5 * red - 0.418687589 * green - 0.081312411 * blue
    return np.stack([y, cb, cr], -1)


@dataclass(frozen=True)
class Case:
    """A model's picture: its export, its card, and what NumPy makes of the frames."""

    dtype: int
    shape: list[int | str]
    card: str
    expected: Callable[[Array], Array]
    gray: bool = False
    top: str = ""
    fed: tuple[int | str, ...] = ("N", H, W, 3)

    @property
    def whole_card(self) -> str:
        """The card of the model."""
        return self.top + (f'[[inputs]]\nname = "x"\n{self.card}\n' if self.card else "")


CASES: Mapping[str, Case] = {
    "planes": Case(FLOAT, ["N", 3, H, W], "", lambda x: planes(x) * f32(1 / 255)),
    "planes of a batch of one": Case(FLOAT, [1, 3, H, W], "", lambda x: planes(x) * f32(1 / 255), fed=(1, H, W, 3)),
    "planes of bytes": Case(UINT8, ["N", 3, H, W], "", planes),
    "planes as PyTorch has them": Case(
        FLOAT,
        ["N", 3, H, W],
        IMAGENET,
        lambda x: planes((x * f32(1 / 255) - f32([0.485, 0.456, 0.406])) / f32([0.229, 0.224, 0.225])),
    ),
    "planes as NanoDet has them": Case(
        FLOAT, ["N", 3, H, W], NANODET, lambda x: planes((x[..., ::-1].astype(f32) - MEAN) / STD)
    ),
    "planes of bytes as floats": Case(FLOAT, ["N", 3, H, W], "scale = 1", lambda x: planes(x).astype(f32)),
    "planes by std alone": Case(FLOAT, ["N", 3, H, W], "std = 255", lambda x: planes(x) / f32(255)),
    "planes of halves": Case(HALF, ["N", 3, H, W], "", lambda x: (planes(x) * f32(1 / 255)).astype(np.float16)),
    "planes of halves as NanoDet has them": Case(
        HALF, ["N", 3, H, W], NANODET, lambda x: planes((x[..., ::-1].astype(f32) - MEAN) / STD).astype(np.float16)
    ),
    "planes of doubles": Case(DOUBLE, ["N", 3, H, W], "", lambda x: (planes(x) * f32(1 / 255)).astype(np.float64)),
    "planes of signed bytes": Case(
        INT8, ["N", 3, H, W], "mean = 128", lambda x: planes(x.astype(f32) - 128).astype("i1")
    ),
    "lines": Case(FLOAT, ["N", H, W, 3], "", lambda x: x * f32(1 / 255)),
    "lines as Keras has them": Case(
        FLOAT, ["N", H, W, 3], "mean = 127.5\nstd = 127.5", lambda x: (x - f32(127.5)) / f32(127.5)
    ),
    "lines as open_nsfw has them": Case(
        FLOAT, ["N", H, W, 3], 'colours = "bgr"\nmean = [104, 117, 123]', lambda x: x[..., ::-1] - f32([104, 117, 123])
    ),
    "lines of any size": Case(
        FLOAT,
        ["N", "h", "w", 3],
        'colours = "bgr"\nmean = [104, 117, 123]',
        lambda x: x[..., ::-1] - f32([104, 117, 123]),
        fed=("N", "h", "w", 3),
    ),
    "lines of bytes": Case(UINT8, ["N", H, W, 3], "", lambda x: x),
    "lines of bytes in another order": Case(UINT8, ["N", H, W, 3], 'colours = "bgr"', lambda x: x[..., ::-1]),
    "lines of halves": Case(HALF, ["N", H, W, 3], "scale = 1", lambda x: x.astype(np.float16)),
    "luma and chroma": Case(
        FLOAT, ["N", 3, H, W], 'colours = "ycbcr"\nscale = 1', lambda x: planes(np.floor(ycbcr(x) + 0.5))
    ),
    "luma and chroma in lines": Case(
        FLOAT, ["N", H, W, 3], 'colours = "ycbcr"\nscale = 1', lambda x: np.floor(ycbcr(x) + 0.5)
    ),
    "luma and chroma as bytes": Case(
        UINT8, ["N", 3, H, W], 'colours = "ycbcr"', lambda x: planes(np.floor(ycbcr(x) + 0.5))
    ),
    "gray": Case(FLOAT, ["N", 1, H, W], "", lambda x: x[:, None] * f32(1 / 255), gray=True, fed=("N", H, W)),
    "gray in lines": Case(FLOAT, ["N", H, W, 1], "", lambda x: x[..., None] * f32(1 / 255), gray=True, fed=("N", H, W)),
    "gray without channels": Case(
        FLOAT,
        ["N", H, W],
        'colours = "gray"\nmean = 127.5\nstd = 127.5',
        lambda x: (x - f32(127.5)) / f32(127.5),
        gray=True,
        fed=("N", H, W),
    ),
    "gray bytes": Case(UINT8, ["N", 1, H, W], "", lambda x: x[:, None], gray=True, fed=("N", H, W)),
    "gray bytes without channels": Case(
        UINT8, ["N", H, W], 'colours = "gray"', lambda x: x, gray=True, fed=("N", H, W)
    ),
    "no batch": Case(
        FLOAT, [3, H, W], "", lambda x: planes(x) * f32(1 / 255), top='batch = "none"\n', fed=(1, H, W, 3)
    ),
    "no batch, in lines": Case(UINT8, [H, W, 3], "", lambda x: x, top='batch = "none"\n', fed=(1, H, W, 3)),
    "gray without batch and channels": Case(
        FLOAT, [H, W], 'colours = "gray"', lambda x: x * f32(1 / 255), gray=True, top='batch = "none"\n', fed=(1, H, W)
    ),
    "gray without batch": Case(
        FLOAT,
        [1, H, W],
        'colours = "gray"',
        lambda x: x * f32(1 / 255),
        gray=True,
        top='batch = "none"\n',
        fed=(1, H, W),
    ),
    "a size that the graph leaves free": Case(
        FLOAT, ["N", 3, "h", "w"], f"size = [{H}, {W}]", lambda x: planes(x) * f32(1 / 255)
    ),
    "a shape that the graph leaves free": Case(
        FLOAT, ["b", "c", "h", "w"], f'shape = ["N", 3, {H}, {W}]', lambda x: planes(x) * f32(1 / 255)
    ),
    "channels that the graph leaves free": Case(
        FLOAT, ["N", "c", "h", "w"], 'layout = "nchw"', lambda x: planes(x) * f32(1 / 255), fed=("N", "h", "w", 3)
    ),
    "columns before rows": Case(
        FLOAT, ["N", 3, W, H], 'layout = "ncwh"', lambda x: planes(x).swapaxes(2, 3) * f32(1 / 255)
    ),
    "columns before rows, as NanoDet has values": Case(
        FLOAT,
        ["N", 3, W, H],
        f'layout = "ncwh"\n{NANODET}',
        lambda x: planes((x[..., ::-1].astype(f32) - MEAN) / STD).swapaxes(2, 3),
    ),
    "lines of columns": Case(
        FLOAT,
        ["N", W, H, 3],
        f'layout = "nwhc"\n{NANODET}',
        lambda x: ((x[..., ::-1].astype(f32) - MEAN) / STD).swapaxes(1, 2),
    ),
    "lines of columns of any size": Case(
        FLOAT,
        ["N", "w", "h", 3],
        f'layout = "nwhc"\n{NANODET}',
        lambda x: ((x[..., ::-1].astype(f32) - MEAN) / STD).swapaxes(1, 2),
        fed=("N", "h", "w", 3),
    ),
    "luma and chroma in lines of columns": Case(
        FLOAT,
        ["N", W, H, 3],
        'colours = "ycbcr"\nscale = 1\nlayout = "nwhc"',
        lambda x: np.floor(ycbcr(x) + 0.5).swapaxes(1, 2),
    ),
    "gray columns before rows": Case(
        FLOAT,
        ["N", 1, W, H],
        'layout = "ncwh"',
        lambda x: x[:, None].swapaxes(2, 3) * f32(1 / 255),
        gray=True,
        fed=("N", H, W),
    ),
    "gray columns before rows without channels": Case(
        UINT8, ["N", W, H], 'layout = "nwh"', lambda x: x.swapaxes(1, 2), gray=True, fed=("N", H, W)
    ),
    "sides of three": Case(
        FLOAT, ["N", 3, H, 3], 'layout = "nchw"', lambda x: planes(x) * f32(1 / 255), fed=("N", H, 3, 3)
    ),
}


@pytest.mark.parametrize("opset", [7, 12, 13, 17, 21])
@pytest.mark.parametrize("name", CASES)
def test_a_picture_of_bytes_becomes_what_numpy_makes_of_it(name: str, opset: int) -> None:
    case = CASES[name]
    spec, body = read(through(case.dtype, case.shape, opset), case.whole_card)
    [fed] = spec.inputs
    assert (fed.name, fed.dtype, fed.shape) == ("x", "uint8", case.fed)
    assert fed.picture is not None
    assert fed.picture.layout == ("gray" if case.gray else "rgb")
    pixels = frames(1 if case.fed[0] == 1 else 2, width=3 if case.fed[2] == 3 else W)
    pixels = pixels[..., 0] if case.gray else pixels
    found = run((spec, body), x=pixels)["y"]
    expected = case.expected(pixels)
    if "chroma" in name:  # libjpeg's fixed point rounds otherwise where a value is next to a half
        assert np.abs(found.astype(float) - expected).max() <= 1
        assert np.mean(found != expected) < 0.01
        return
    dtype = helper.tensor_dtype_to_np_dtype(case.dtype)
    np.testing.assert_array_equal(found.view(f"u{dtype.itemsize}"), expected.astype(dtype).view(f"u{dtype.itemsize}"))


def net(case: Case) -> bytes:
    """Something behind the picture that tells places and colours apart: `x` -> `score [N]`, whatever the layout."""
    alone = case.fed[0] == 1 and case.shape[0] != 1
    axes = list(range(0 if alone else 1, len(case.shape)))
    nodes = [
        node("Cast", "x", "f", to=FLOAT),
        node("CumSum", "f last", "sums"),
        node("CumSum", "sums second", "places"),
        node("Sin", "places", "waves"),
        node("ReduceMean", "waves", "mean", axes=axes, keepdims=0),
        node("Reshape", "mean flat", "score"),
    ]
    places = {"last": np.array(-1), "second": np.array(axes[0]), "flat": np.array([-1])}
    constants = tuple(numpy_helper.from_array(array, name) for name, array in places.items())
    rows = 1 if case.fed[0] == 1 else "rows"
    return model_of(nodes, [value("x", case.dtype, case.shape)], [value("score", FLOAT, [rows])], constants)


@pytest.mark.parametrize("name", [name for name in CASES if "chroma" not in name])
def test_a_model_answers_as_onnx_runtime_does_on_the_original_graph(name: str) -> None:
    case = CASES[name]
    body = net(case)
    pixels = frames(1 if case.fed[0] == 1 else 2, width=3 if case.fed[2] == 3 else W)
    pixels = pixels[..., 0] if case.gray else pixels
    values = case.expected(pixels).astype(helper.tensor_dtype_to_np_dtype(case.dtype))
    expected = plainly(body, x=values if values.ndim == len(case.shape) else values[0])["score"]
    found = run(read(body, case.whole_card), x=pixels)["score"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


# graphs as other programs write them


def test_an_input_that_is_read_in_subgraphs_and_names_that_are_taken() -> None:
    """`x` is read by both branches, and a loop has an `x` of its own."""
    typed = value("x", FLOAT, ["N", 3, 2, 2])
    double = helper.make_graph(
        [node("Add", "x x", "rigflow_front_cast")], "a", [], [value("rigflow_front_cast", FLOAT, None)]
    )
    same = helper.make_graph([node("Identity", "x", "same")], "b", [], [value("same", FLOAT, None)])
    inner = helper.make_graph(
        [node("Identity", "go", "on"), node("Add", "x one", "more")],
        "c",
        [value("i", INT64, []), value("go", TensorProto.BOOL, []), value("x", FLOAT, None)],
        [value("on", TensorProto.BOOL, []), value("more", FLOAT, None)],
    )
    nodes = [
        node("If", "yes", "rigflow_front_mul", then_branch=double, else_branch=same),
        node("If", "no", "rigflow_front_transpose", then_branch=double, else_branch=same),
        node("Loop", "three yes rigflow_front_constant", "looped", body=inner),
        helper.make_node(
            "Sum", ["rigflow_front_mul", "rigflow_front_transpose", "looped"], ["y"], "rigflow_front_node"
        ),
    ]
    constants = {
        "yes": np.array(True),
        "no": np.array(False),
        "three": np.array(3),
        "one": f32(1),
        "rigflow_front_constant": np.zeros((1, 3, 2, 2), f32),
    }
    made = tuple(numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items())
    body = model_of(nodes, [typed], [value("y", FLOAT, ["N", 3, 2, 2])], made)
    pixels = frames(2, 2, 2)
    values = planes(pixels) * f32(1 / 255)
    np.testing.assert_array_equal(plainly(body, x=values)["y"], values * 3 + 3)
    np.testing.assert_array_equal(run(read(body), x=pixels)["y"], values * 3 + 3)


def test_weights_that_are_inputs_too_as_before_ir_4() -> None:
    weights = numpy_helper.from_array(np.arange(12, dtype=f32).reshape(4, 3, 1, 1), "w")
    graph = helper.make_graph(
        [node("Conv", "x w", "y")],
        "g",
        [value("w", FLOAT, [4, 3, 1, 1]), value("x", FLOAT, ["N", 3, H, W])],
        [value("y", FLOAT, ["N", 4, H, W])],
        [weights],
    )
    body = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 7)], ir_version=3).SerializeToString()
    spec, made = read(body)
    assert [tensor.name for tensor in spec.inputs] == ["x"]
    pixels = frames()
    np.testing.assert_allclose(
        run((spec, made), x=pixels)["y"], plainly(body, x=planes(pixels) * f32(1 / 255))["y"], atol=1e-5
    )


def test_a_graph_without_operations_of_onnx_itself() -> None:
    graph = helper.make_graph(
        [helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")],
        "g",
        [value("x", FLOAT, ["N", 3, H, W])],
        [value("y", FLOAT, ["N", 3, H, W])],
    )
    body = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("com.microsoft", 1)], ir_version=8
    ).SerializeToString()
    pixels = frames()
    np.testing.assert_array_equal(run(read(body), x=pixels)["y"], plainly(body, x=planes(pixels) * f32(1 / 255))["y"])


# what is kept


@pytest.mark.parametrize("name", CASES)
def test_a_model_that_travels_is_read_as_it_is(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    made = read(through(case.dtype, case.shape), case.whole_card)
    assert kept(tmp_path, *made) == made
