"""Cards of exported models: constants, states, what is a picture, what contradicts itself, and what is kept."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper
from pydantic import ValidationError

from engines.heads.view import view_of
from engines.inference.heads import Heads
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.inference.session import zeros_of
from engines.models.catalogue import load_model, read_files, save_model
from engines.models.proposal import propose
from engines.models.reading import travelling_form
from engines.part import Value
from engines.ragged import Ragged
from schemas.errors import ModelError
from schemas.model import InputCard, StateSpec
from schemas.picture import PictureSpec
from tests.fronts import NANODET, Array, H, W, f32, frames, kept, node, plainly, planes, read, run, through
from tests.onnx_graphs import FLOAT, INT64, UINT8, model_of, value

HALF, INT8 = TensorProto.FLOAT16, TensorProto.INT8


@dataclass(frozen=True)
class Constant:
    """A further input of a model, its value in a card, and the array that the original graph is fed."""

    dtype: int
    shape: list[int | str]
    card: str
    array: Array


CONSTANTS = {
    "a scalar": Constant(INT64, [], "value = 16000", np.array(16000)),
    "one": Constant(FLOAT, [1], "value = [4.0]", f32([4])),
    "one, as a number": Constant(FLOAT, [1], "value = 4", f32([4])),
    "one of half precision": Constant(HALF, [1], "value = 0.5", np.float16([0.5])),
    "a truth": Constant(TensorProto.BOOL, [1], "value = 1", np.array([True])),
    "several": Constant(INT64, [1, 3], "value = [1, 2, 3]", np.array([[1, 2, 3]])),
    "one for all": Constant(FLOAT, [3, 1], "value = 7", np.full((3, 1), 7, f32)),
    "a free length": Constant(FLOAT, ["n"], "value = [1, 2, 3]", f32([1, 2, 3])),
    "a shape of the card": Constant(FLOAT, ["n", "m"], "shape = [2, 1]\nvalue = [1, 2]", f32([[1], [2]])),
    "for each row": Constant(INT64, ["N", 2], "value = [640, 480]", np.array([[640, 480]] * 2)),
    "one for each row": Constant(FLOAT, ["N"], "value = 3", f32([3, 3])),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_further_input_with_a_value_is_a_constant(name: str) -> None:
    case = CONSTANTS[name]
    body = model_of(
        [
            node("Cast", "gain", "g", to=FLOAT),
            node("ReduceSum", "g", "s", keepdims=0),
            node("ReduceMean", "x", "m", axes=[1, 2, 3], keepdims=0),
            node("Mul", "m s", "y"),
        ],
        [value("gain", case.dtype, case.shape), value("x", FLOAT, ["N", 3, H, W])],
        [value("y", FLOAT, ["N"])],
        opset=12,
    )
    model = read(body, f'[[inputs]]\nname = "gain"\n{case.card}\n')
    assert [tensor.name for tensor in model[0].inputs] == ["x"]
    pixels = frames()
    expected = plainly(body, x=planes(pixels) * f32(1 / 255), gain=case.array)["y"]
    np.testing.assert_allclose(run(model, x=pixels)["y"], expected, rtol=1e-6)


def test_a_constant_of_a_graph_without_a_batch() -> None:
    body = model_of(
        [node("Mul", "x gain", "y")],
        [value("x", FLOAT, [3, H, W]), value("gain", FLOAT, [3, 1, 1])],
        [value("y", FLOAT, [3, H, W])],
    )
    model = read(body, 'batch = "none"\n[[inputs]]\nname = "gain"\nvalue = [1, 2, 3]\n')
    pixels = frames(1)
    expected = planes(pixels) * f32(1 / 255) * f32([1, 2, 3]).reshape(3, 1, 1)
    np.testing.assert_array_equal(run(model, x=pixels)["y"], expected)


def recurrent(dtype: int = FLOAT) -> bytes:
    """`y` is the sum of the means of all frames so far, `state` that of those before, `state_out` the next one's."""
    return model_of(
        [
            node("ReduceMean", "x", "m", axes=[1, 2, 3], keepdims=0),
            node("Cast", "state", "s", to=FLOAT),
            node("Add", "m s", "y"),
            node("Cast", "y", "state_out", to=dtype),
        ],
        [value("x", FLOAT, [1, 3, H, W]), value("state", dtype, [1])],
        [value("state_out", dtype, [1]), value("y", FLOAT, [1])],
    )


def test_a_state_stays_an_input_that_names_its_output() -> None:
    spec, body = read(recurrent(), '[[inputs]]\nname = "state"\nstate = { output = "state_out", start = 2 }\n')
    picture, state = spec.inputs
    assert picture.shape == (1, H, W, 3)
    assert state.state == StateSpec(output="state_out", start=2)
    assert spec.state_outputs == {"state_out"}
    session = OnnxRuntimeSession(body, spec)
    zeros = zeros_of(spec, 1)
    assert zeros is not None
    np.testing.assert_array_equal(session.run(zeros)["state_out"], [2.0])
    assert zeros_of(spec, 2) is None


def test_an_input_that_reads_an_array_of_an_earlier_stage_has_its_name() -> None:
    """The array is of bytes, too: another stage made it, and its arithmetic is in front."""
    spec, body = read(through(FLOAT, ["N", 3, H, W]), f'[[inputs]]\nname = "x"\nreads = "pixels"\n{NANODET}\n')
    assert [(tensor.name, tensor.picture) for tensor in spec.inputs] == [("pixels", None)]
    pixels = frames()
    expected = planes((pixels[..., ::-1] - f32([103.53, 116.28, 123.675])) / f32([57.375, 57.12, 58.395]))
    np.testing.assert_array_equal(run((spec, body), pixels=pixels)["y"], expected)
    spec, body = read(through(FLOAT, ["N", 3, H, W]), '[[inputs]]\nname = "x"\nreads = "rigflow_front_cast"\n')
    assert [(tensor.name, tensor.dtype) for tensor in spec.inputs] == [("rigflow_front_cast", "float32")]


# what is a picture, and how a frame becomes it


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        (FLOAT, ["N", 4, H, W]),
        (FLOAT, ["N", "c", "h", "w"]),
        (FLOAT, ["N", 3, H, 3]),
        (FLOAT, ["N", 3, H, "w"]),
        (FLOAT, ["N", H, W]),
        (FLOAT, ["N", 3, 16, H, W]),
        (INT64, ["N", 3, H, W]),
        (FLOAT, ["N", 3, 9000, W]),
    ],
)
def test_what_is_not_clearly_a_picture_is_an_array(dtype: int, shape: list[int | str]) -> None:
    body = through(dtype, shape)
    spec, made = read(body)
    assert made == body
    assert [tensor.picture for tensor in spec.inputs] == [None]


def test_one_channel_beside_three_is_a_mask_and_no_picture() -> None:
    inputs = [value("x", FLOAT, ["N", 3, H, W]), value("mask", FLOAT, ["N", 1, H, W])]
    body = model_of([node("Mul", "x mask", "y")], inputs, [value("y", FLOAT, ["N", 3, H, W])])
    spec, _ = read(body)
    assert [(tensor.dtype, tensor.picture is not None) for tensor in spec.inputs] == [
        ("uint8", True),
        ("float32", False),
    ]


def test_a_card_says_how_a_frame_becomes_the_picture() -> None:
    body = through(FLOAT, ["N", 3, "h", "w"])
    spec, _ = read(body, '[[inputs]]\nname = "x"\nmultiple = 32\npad_value = 114\npad_place = "corner"\n')
    assert spec.inputs[0].picture == PictureSpec(multiple=32, pad_value=114, pad_place="corner")
    spec, _ = read(body, '[[inputs]]\nname = "x"\nresize = "bicubic"\nantialias = true\n')
    assert spec.inputs[0].picture == PictureSpec(resize="bicubic", antialias=True)
    spec, _ = read(body, '[[inputs]]\nname = "x"\nsize = [64, 96]\nfit = "letterbox"\n')
    assert spec.inputs[0].picture == PictureSpec(size=(64, 96), fit="letterbox")
    assert (spec.inputs[0].shape, spec.outputs[0].shape) == (("N", 64, 96, 3), ("N", 3, 64, 96))


# cards that contradict themselves or the graph

PLANES = through(FLOAT, ["N", 3, H, W])
FREE = through(FLOAT, ["N", 3, "h", "w"])


@pytest.mark.parametrize(
    ("body", "card", "words"),
    [
        (PLANES, "mean = [1, 2]", "input `x`, mean: 2 numbers for 3 channels: write one, or one a channel"),
        (PLANES, "scale = []", "scale: 0 numbers for 3 channels"),
        (PLANES, "std = [1, 0, 1]", "std: 0, and values are divided by it"),
        (
            PLANES,
            "mean = [0.485, 0.456, 0.406]",
            "mean: at most 1, and of bytes, 0 to 255, where no scale is: write scale = 0.0039",
        ),
        (PLANES, 'colours = "gray"', 'colours: gray for 3 channels: write "rgb", "bgr" or "ycbcr"'),
        (through(FLOAT, ["N", 1, H, W]), 'colours = "bgr"', 'colours: bgr for 1 channel: write "gray"'),
        (PLANES, 'layout = "nhwc"', "layout: nhwc, and dimension 3 of float32 [N, 3, 6, 10] is not 1 or 3"),
        (through(FLOAT, ["N", 3, H, 3]), "scale = 1", 'its colours are: write layout = "nchw" or "nhwc"'),
        (through(FLOAT, ["N", 4, H, W]), "scale = 1", "scale: float32 [N, 4, 6, 10] is no picture"),
        (through(FLOAT, ["N", 3, 8, H, W]), "scale = 1", "scale: float32 [N, 3, 8, 6, 10] is no picture"),
        (through(FLOAT, [3, H, W]), 'colours = "rgb"', 'for a graph without N, say batch = "none"'),
        (PLANES, "size = [8, 8]", "size: 8 × 8, and its graph takes 6 × 10 (height × width): write that"),
        (PLANES, 'size = "source"', 'size: "source", and its graph takes 6 × 10 (height × width): leave it out'),
        (through(FLOAT, ["N", 3, H, "w"]), "scale = 1", "size: its graph takes 6 × w (height × width): write size"),
        (PLANES, "multiple = 32", "multiple: its graph takes 6 × 10 (height × width): leave it out"),
        (FREE, "size = [64, 64]\nmultiple = 32", 'multiple is for size = "source"'),
        (through(FLOAT, ["N", 3, 9000, W]), "scale = 1", "size"),
        (PLANES, "range = [0, 1]\nscale = 1", "range: 0 to 1, and its values go from 0 to 255"),
        (
            PLANES,
            "range = [-1, 1]",
            "input `x`, range: -1 to 1, and its values go from 0 to 1: write scale, mean and std",
        ),
        (
            through(FLOAT, ["N", 4, H, W]),
            'layout = "nchw"',
            "dimension 1 of float32 [N, 4, 6, 10] is not 1 or 3: a picture",
        ),
        (through(INT8, ["N", 3, H, W]), "scale = 1", "dtype: int8 does not hold values from 0 to 255"),
        (PLANES, 'dtype = "uint8"', "its model card says uint8 [N, 3, 6, 10], its graph float32 [N, 3, 6, 10]"),
        (PLANES, 'shape = ["N", 3, "h", 10]', "dimension 2: its model card says h, its graph takes 6"),
        (PLANES, 'reads = "pixels"\nfit = "crop"', "fit: it reads the array `pixels`: leave one of them out"),
        (PLANES, 'reads = "y"', "reads: `y` is another input or output"),
        (PLANES, "value = 1\nscale = 1", "input `x`: value and scale: leave one of them out"),
        (PLANES, 'value = 1\nstate = { output = "y" }', "input `x`: value and state: leave one of them out"),
        (PLANES, 'state = { output = "z" }', "state: the model has no output `z`: write one of `y`"),
        (through(INT64, [2]), "value = [1, 2, 3]", "value: 3 numbers for int64 [2]: write one, or 2"),
        (through(INT64, [2]), "value = 0.5", "value: int64 does not hold 0.5: write whole numbers that fit"),
        (through(UINT8, [2]), "value = 256", "value: uint8 does not hold 256"),
        (through(HALF, ["N", 2]), "value = 1e6", "value: float16 does not hold 1000000.0: write smaller numbers"),
        (through(INT64, [2]), "value = 1e300", "value: int64 does not hold 1e+300"),
        (through(TensorProto.STRING, [2]), "value = 1", "takes no numbers: make it a constant of the graph"),
        (through(INT64, [2]), "value = 1", "all its inputs have a value: leave one to be fed"),
        (through(TensorProto.BOOL, ["N", 3, H, W]), "scale = 1", "scale: bool [N, 3, 6, 10] is no picture"),
        (through(FLOAT, ["N", "m"]), "value = 1", "value: float32 [N, m] has free dimensions: write its shape"),
        (through(FLOAT, ["N", 2]), "value = 1", "input `x`, value: no other input has a batch"),
        (PLANES, "[[inputs]]", "inputs.1.name: missing"),
        (PLANES, '[[inputs]]\nname = "x"', "input `x`: twice: leave one of them out"),
        (PLANES, '[[inputs]]\nname = "z"', "has no input `z`, only `x`"),
    ],
    ids=lambda value: "graph" if isinstance(value, bytes) else value,
)
def test_a_card_that_contradicts_is_one_line(tmp_path: Path, body: bytes, card: str, words: str) -> None:
    (tmp_path / "m.onnx").write_bytes(body)
    (tmp_path / "m.toml").write_text(f'[[inputs]]\nname = "x"\n{card}\n')
    with pytest.raises(ModelError, match=re.escape(words)) as caught:
        travelling_form(body, "m.onnx", read_files(tmp_path / "m.onnx")[0])
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_a_state_of_another_type_is_one_line() -> None:
    with pytest.raises(ModelError, match=r"input `state`, state: int64 \[1\], and `y` is float32"):
        read(recurrent(INT64), '[[inputs]]\nname = "state"\nstate = { output = "y" }\n')


# what is kept

HEADS = """
batch = "none"
description = "what \\"it\\" is"
[[inputs]]
name = "x"
mean = [1.5, 2, 3e-5]
std = 7
[[heads]]
kind = "detect"
decoder = "yolov8"
threshold = 0.25
labels = ["a", "b\\tc", "ü"]
per_category = { "a b" = 0.5, c = { d = [true, 1] } }
"""


def test_a_model_is_kept_as_its_owner_wrote_it(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(through(FLOAT, [3, H, W]))
    (tmp_path / "m.toml").write_text(HEADS)
    card, body = read_files(tmp_path / "m.onnx")
    path = save_model(tmp_path / "kept", card, body)
    assert path.read_bytes() == body
    assert read_files(path) == (card, body)
    assert card.heads[0].options["per_category"] == {"a b": 0.5, "c": {"d": [True, 1]}}
    with pytest.raises(ModelError, match="option per_category: unknown field"):
        load_model(path)
    for folder in (tmp_path, path.parent):
        toml = folder / "m.toml"
        toml.write_text(toml.read_text().partition("[[heads]]")[0])
    spec, changed = load_model(path)
    assert (spec, changed) == load_model(tmp_path / "m.onnx")
    assert spec.sha256 == hashlib.sha256(changed).hexdigest()
    assert kept(tmp_path / "again", spec, changed) == (spec, changed)


def test_a_state_and_an_array_of_another_stage_are_kept(tmp_path: Path) -> None:
    for body, card in (
        (recurrent(), '[[inputs]]\nname = "state"\nstate = { output = "state_out", start = 2 }\n'),
        (through(UINT8, ["N", H, W, 3]), '[[inputs]]\nname = "x"\nreads = "pixels"\n'),
        (through(FLOAT, ["N", "m"]), '[[inputs]]\nname = "x"\nrange = [0, 1]\nshape = ["b", 7]\n'),
    ):
        made = read(body, card)
        assert kept(tmp_path, *made) == made


def test_a_graph_of_bytes_travels_as_it_is() -> None:
    body = through(UINT8, ["N", H, W, 3])
    spec, made = read(body)
    assert made is body
    assert spec.inputs[0].picture == PictureSpec(size=(H, W))


def rt_detr(order: list[int]) -> bytes:
    """As RT-DETR is exported: boxes of shares of the picture, in pixels of the size that a second input gives."""
    nodes = [
        node("ReduceMean", "images", "m", axes=[2, 3], keepdims=0),
        node("Gemm", "m weights bias", "rows"),
        node("Sigmoid", "rows", "half"),
        node("Mul", "half small", "shares"),
        node("Reshape", "shares shape", "corners"),
        node("Add", "corners places", "unit"),
        node("Gather", "orig_target_sizes order", "wh", axis=1),
        node("Cast", "wh", "sizes", to=FLOAT),
        node("Concat", "sizes sizes", "four", axis=1),
        node("Unsqueeze", "four", "row", axes=[1]),
        node("Mul", "unit row", "boxes"),
        node("ReduceMean", "half", "best", axes=[1], keepdims=1),
        node("Mul", "best falling", "scores"),
        node("ArgMax", "corners", "labels", axis=2, keepdims=0),
    ]
    random = np.random.default_rng(5)
    constants = {
        "weights": random.normal(0, 1, (3, 20)).astype(f32),
        "bias": random.normal(0, 1, 20).astype(f32),
        "small": f32([0.1]),
        "shape": np.array([0, 5, 4]),
        "places": f32([[0.1 * k, 0.15 * k, 0.1 * k + 0.3, 0.15 * k + 0.2] for k in range(5)]),
        "order": np.array(order),
        "falling": f32([[1.5, 1.3, 1.1, 0.9, 0.7]]),
    }
    inputs = [value("images", FLOAT, ["N", 3, H, W]), value("orig_target_sizes", INT64, ["N", 2])]
    outputs = [value("labels", INT64, ["N", 5]), value("boxes", FLOAT, ["N", 5, 4]), value("scores", FLOAT, ["N", 5])]
    initializers = tuple(numpy_helper.from_array(each, name) for name, each in constants.items())
    return model_of(nodes, inputs, outputs, initializers, opset=12)


@pytest.mark.parametrize(("order", "size"), [([0, 1], [W, H]), ([1, 0], [H, W])])
def test_boxes_scaled_to_a_size_that_is_an_input_come_in_pixels_of_the_source(
    order: list[int], size: list[int]
) -> None:
    """The card gives the size of the model's picture, in the graph's order; the head goes on to each source's own."""
    body = rt_detr(order)
    card = f"""
    [[inputs]]
    name = "orig_target_sizes"
    value = {size}
    [[heads]]
    kind = "detect"
    decoder = "arrays"
    boxes = "boxes"
    scores = "scores"
    class_output = "labels"
    threshold = 0.3
    """
    spec, made = read(body, card)
    pixels, sources = frames(2), [(120, 200), (480, 270)]
    picture = spec.inputs[0].picture
    assert picture is not None
    found = Heads(spec)(run((spec, made), images=pixels), [view_of(source, picture) for source in sources], 2)
    for number, (height, width) in enumerate(sources):
        sizes = np.array([(width, height) if order == [0, 1] else (height, width)])
        values = (planes(pixels[number : number + 1]) * f32(1 / 255)).astype(f32)
        expected = plainly(body, images=values, orig_target_sizes=sizes)
        kept = expected["scores"][0] > 0.3
        assert kept.any()
        boxes = np.clip(expected["boxes"][0][kept], 0, [width, height, width, height])
        np.testing.assert_allclose(rows(found, "boxes", number), boxes, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(rows(found, "scores", number), expected["scores"][0][kept], rtol=1e-5)
        assert rows(found, "classes", number).tolist() == expected["labels"][0][kept].tolist()


def rows(found: Mapping[str, Value], name: str, number: int) -> Array:
    values = found[name]
    assert isinstance(values, Ragged)
    return values.row(number)


def test_the_size_that_boxes_are_scaled_to_is_found(tmp_path: Path) -> None:
    (tmp_path / "rt.onnx").write_bytes(rt_detr([0, 1]))
    lines = {line.field: line.value for line in propose(tmp_path / "rt.onnx", rt_detr([0, 1])).lines}
    assert lines["inputs.1.value"] == [W, H]
    assert (lines["heads.0.decoder"], lines["heads.0.boxes"]) == ("arrays", "boxes")
    assert "heads.0.normalised" not in lines


@pytest.mark.parametrize(("field", "value"), [("overlap", -1), ("overlap", 5000), ("align", 0), ("multiple", 9000)])
def test_a_card_takes_the_values_that_a_picture_takes(field: str, value: int) -> None:
    for kind in (PictureSpec, InputCard):
        with pytest.raises(ValidationError, match=field):
            kind.model_validate(({"name": "x"} if kind is InputCard else {}) | {field: value})
