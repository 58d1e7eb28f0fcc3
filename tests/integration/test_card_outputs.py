"""What cards say of outputs, through fleets: boxes in all layouts, pictures of the source's size, several models."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tests.cases import (
    Array,
    Fleets,
    arrays,
    check,
    film,
    fleets,
    frames_of,
    lines,
    put,
    stills,
    to,
    written,
)
from tests.fronts import node
from tests.onnx_graphs import FLOAT, INT64, UINT8, model_of, value

STAGES = (("decode",), ("resize",), ("infer", "first", "second"), ("encode", "split", "collect"))
PIXELS = value("pixels", UINT8, ["N", 32, 32, 3])


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleets]:
    with fleets(tmp_path_factory.mktemp("cache"), STAGES) as started:
        yield started


def constants(**given: object) -> tuple[TensorProto, ...]:
    """Whole numbers are int64, others float32."""
    arrays = {name: np.asarray(each) for name, each in given.items()}
    return tuple(
        numpy_helper.from_array(each.astype("f4" if each.dtype.kind == "f" else "i8"), name)
        for name, each in arrays.items()
    )


def flat_boxes() -> bytes:
    """`pixels [N, 32, 32, 3]` -> `det [2 N, 7]`: row, x1, y1, x2, y2, class, score, two boxes a frame, frame by frame.

    The boxes of frame n: (4, 4, 12, 20) of class 1 and (8, 8, 8 + mean / 16, 24) of class 0.
    """
    nodes = [
        helper.make_node("Cast", ["pixels"], ["f"], to=FLOAT),
        helper.make_node("ReduceMean", ["f"], ["m"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Div", ["m", "sixteen"], ["wide"]),
        helper.make_node("Unsqueeze", ["wide", "last"], ["wide1"]),
        helper.make_node("MatMul", ["wide1", "x2"], ["shift"]),
        helper.make_node("Shape", ["m"], ["n"]),
        helper.make_node("Squeeze", ["n"], ["n0"]),
        helper.make_node("Range", ["zero", "n0", "one"], ["numbers"]),
        helper.make_node("Cast", ["numbers"], ["rows"], to=FLOAT),
        helper.make_node("Unsqueeze", ["rows", "last"], ["rows1"]),
        helper.make_node("MatMul", ["rows1", "both"], ["placed"]),
        helper.make_node("Add", ["placed", "shift"], ["moved"]),
        helper.make_node("Add", ["moved", "boxes"], ["wide14"]),
        helper.make_node("Reshape", ["wide14", "sevens"], ["det"]),
    ]
    x2, both = np.zeros((1, 14)), np.zeros((1, 14))
    x2[0, 10], both[0, [0, 7]] = 1, 1
    boxes = [[0, 4, 4, 12, 20, 1, 0.9, 0, 8, 8, 8, 24, 0, 0.75]]
    kept = constants(sixteen=16.0, last=[1], x2=x2, both=both, boxes=boxes, zero=0, one=1, sevens=[-1, 7])
    return model_of(nodes, [PIXELS], [value("det", FLOAT, ["M", 7])], kept)


FLAT = """
[[heads]]
kind = "detect"
decoder = "end2end"
columns = ["row", "x1", "y1", "x2", "y2", "class", "score"]
labels = ["cat", "dog"]
"""


@pytest.mark.parametrize("batch", [3, 32])
async def test_boxes_in_one_table_for_the_batch(fleet: Fleets, tmp_path: Path, batch: int) -> None:
    put(tmp_path, flat_boxes())
    assert 'kind = "detect"' in check(written(tmp_path, to("jsonl")))
    put(tmp_path, flat_boxes(), FLAT)
    inputs = [film(tmp_path, size=(32, 32)), *stills(tmp_path, [(32, 32), (64, 64), (96, 64)])]
    pipeline = written(tmp_path, to("detections", f'model = "m"\nmax_batch = {batch}'))
    of_film, of_album = await fleet.answers(pipeline, inputs, tmp_path / "out")
    rows = lines(of_film)
    assert len(rows) == 20
    for row, frame in zip(rows, frames_of(inputs[0]), strict=True):
        boxes = row["boxes"]
        assert [(box["label"], round(box["score"], 4)) for box in boxes] == [("dog", 0.9), ("cat", 0.75)]
        assert boxes[0]["box"] == [4, 4, 12, 20]
        np.testing.assert_allclose(boxes[1]["box"], [8, 8, 8 + frame.mean() / 16, 24], atol=1e-3)
    first = [row["boxes"][0]["box"] for row in lines(of_album)]
    assert first == [[4, 4, 12, 20], [8, 8, 24, 40], [8, 12, 24, 60]]
    assert [(row["height"], row["width"]) for row in lines(of_album)] == [(32, 32), (64, 64), (96, 64)]


def counted_boxes() -> bytes:
    """`pixels [1, 32, 32, 3]` -> `boxes [1, K, 4]`, all 0.5, where K is the mean of the frame // 20 % 3."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["f"], to=FLOAT),
        helper.make_node("ReduceMean", ["f"], ["m"], keepdims=0),
        helper.make_node("Div", ["m", "twenty"], ["q"]),
        helper.make_node("Cast", ["q"], ["i"], to=INT64),
        helper.make_node("Mod", ["i", "three"], ["k"]),
        helper.make_node("Unsqueeze", ["k", "first"], ["k1"]),
        helper.make_node("Concat", ["one", "k1", "four"], ["shape"], axis=0),
        helper.make_node("ConstantOfShape", ["shape"], ["boxes"], value=helper.make_tensor("v", FLOAT, [1], [0.5])),
    ]
    kept = constants(twenty=20.0, three=3, first=[0], one=[1], four=[4])
    return model_of(nodes, [value("pixels", UINT8, [1, 32, 32, 3])], [value("boxes", FLOAT, [1, "K", 4])], kept)


async def test_another_number_of_boxes_for_each_frame(fleet: Fleets, tmp_path: Path) -> None:
    put(tmp_path, counted_boxes())
    inputs = [film(tmp_path, frames=40, size=(32, 32)), *stills(tmp_path, [(32, 32), (32, 32)])]
    expected = [
        [int(frame.mean() / 20) % 3 for frame in frames]
        for frames in (frames_of(inputs[0]), [frames_of(path)[0] for path in inputs[1:]])
    ]
    assert {0, 1, 2} == set(expected[0])
    for encode in ("npz", "jsonl"):
        pipeline = written(tmp_path, to(encode))
        outcomes = await fleet.answers(pipeline, inputs, tmp_path / encode)
        for outcome, counts in zip(outcomes, expected, strict=True):
            if encode == "jsonl":
                assert [row["boxes"] for row in lines(outcome)] == [[[0.5] * 4] * count for count in counts]
                continue
            found = arrays(outcome)
            assert np.diff(found["boxes_offsets"]).tolist() == counts
            assert found["boxes"].tolist() == [[0.5] * 4] * sum(counts)


def doubler(dtype: int = FLOAT) -> bytes:
    """`input [n, 3, h, w]` -> `output [n, 3, 2h, 2w]`, each pixel four times; h and w are multiples of 32."""
    nodes = [
        helper.make_node("Reshape", ["input", "rows"], ["same"]),
        helper.make_node("Resize", ["same", "", "scales"], ["output"], mode="nearest", nearest_mode="floor",
                         coordinate_transformation_mode="asymmetric"),
    ]  # fmt: skip
    blocks = [
        helper.make_node("SpaceToDepth", ["input"], ["deep"], blocksize=32),
        helper.make_node("DepthToSpace", ["deep"], ["same"], blocksize=32),
        nodes[1],
    ]
    shapes = [value("input", dtype, ["n", 3, "h", "w"])], [value("output", dtype, ["n", 3, "h2", "w2"])]
    return model_of(blocks, *shapes, constants(scales=[1.0, 1.0, 2.0, 2.0]))


def twice(picture: Array) -> Array:
    return picture.repeat(2, axis=0).repeat(2, axis=1)


async def test_pictures_of_the_sources_size(fleet: Fleets, tmp_path: Path) -> None:
    """Padded for the model, cut again, times its factor: 62 x 46 becomes 124 x 92, whatever else is in the job."""
    put(tmp_path, doubler(), "[[inputs]]\nname = 'input'\nmultiple = 32\n[[heads]]\nkind = 'image'\n")
    inputs = [film(tmp_path, size=(46, 62)), *stills(tmp_path, [(46, 62), (21, 33), (64, 32)])]
    of_film, of_album = await fleet.answers(written(tmp_path, to("image")), inputs, tmp_path / "out")
    for number, path in enumerate(inputs[1:]):
        made = np.asarray(Image.open(of_album.target / f"still{number}.png"))
        assert made.tolist() == twice(frames_of(path)[0]).tolist()
    with av.open(f"{of_film.target}.mp4") as container:
        frames = list(container.decode(video=0))
    assert [(frame.width, frame.height) for frame in frames] == [(124, 92)] * 20
    for made, frame in zip(frames, frames_of(inputs[0]), strict=True):
        assert np.abs(made.to_ndarray(format="rgb24").mean((0, 1)) - frame.mean((0, 1))).max() < 4
    [of_film] = await fleet.answers(written(tmp_path, to("npz")), inputs[:1], tmp_path / "arrays")
    assert arrays(of_film)["image"].tolist() == [twice(frame).tolist() for frame in frames_of(inputs[0])]


async def test_segments_without_windows(fleet: Fleets, tmp_path: Path) -> None:
    """A picture every 1.5 s, and segments of half a second: most have none, and a picture of no size of its own."""
    put(tmp_path, doubler(), "[[inputs]]\nname = 'input'\nmultiple = 32\n[[heads]]\nkind = 'image'\n")
    clip = film(tmp_path, frames=40, size=(46, 62))
    pipeline = written(tmp_path, to("npz"), "fps = 0.6666666666666666")
    [outcome] = await fleet.answers(pipeline, [clip], tmp_path / "out")
    frames = frames_of(clip)
    assert arrays(outcome)["image"].tolist() == [twice(frames[number]).tolist() for number in (0, 15, 30)]
    put(tmp_path, flat_boxes(), FLAT)
    [outcome] = await fleet.answers(written(tmp_path, to("npz"), "fps = 0.6666666666666666"), [clip], tmp_path / "of")
    assert np.diff(arrays(outcome)["boxes_offsets"]).tolist() == [2, 2, 2]


def test_floats_are_no_pictures(tmp_path: Path) -> None:
    """`each` leaves them as pixels, and the format says what it takes, before anything is sent."""
    cast = helper.make_node("Cast", ["pixels"], ["f"], to=FLOAT)
    shape: list[int | str] = ["N", 48, 64, 3]
    resize = '[[stage]]\nkind = "resize"\nsize = [48, 64]\n'
    pipeline = written(tmp_path, resize + to("video", 'model = "m"\neach = ["pixels"]'))
    put(tmp_path, model_of([cast], [value("pixels", UINT8, shape)], [value("f", FLOAT, shape)]))
    assert "`pixels` is float32" in check(pipeline)
    five = helper.make_node("Gather", ["pixels", "five"], ["f"], axis=3)
    outputs = [value("f", UINT8, ["N", 48, 64, 5])]
    put(tmp_path, model_of([five], [value("pixels", UINT8, shape)], outputs, constants(five=[0, 1, 2, 0, 1])))
    assert "`pixels` is uint8 [N, 48, 64, 5]" in check(pipeline)


def mean_of(size: int, output: str) -> bytes:
    """`x [N, 3, size, size] float32` -> `output [N, 3]`."""
    node = helper.make_node("ReduceMean", ["x"], [output], axes=[2, 3], keepdims=0)
    return model_of([node], [value("x", FLOAT, ["N", 3, size, size])], [value(output, FLOAT, ["N", 3])])


async def test_two_models_read_a_frame_at_different_sizes(fleet: Fleets, tmp_path: Path) -> None:
    """One has boxes, the other a mean; the second keeps what the first gave, and a resize stage comes before both."""
    put(tmp_path, flat_boxes(), FLAT, "boxes")
    put(tmp_path, mean_of(16, "mean"), "[[inputs]]\nname = 'x'\nscale = 1\n", "mean")
    stages = """
    [[stage]]
    kind = "resize"
    size = [8, 8]
    layout = "gray"
    [[stage]]
    kind = "infer"
    name = "first"
    model = "boxes"
    keeps = ["pixels", "index"]
    [[stage]]
    kind = "infer"
    name = "second"
    model = "mean"
    keeps = ["boxes", "scores", "source_size"]
    [[stage]]
    kind = "encode"
    format = "npz"
    """
    inputs = [film(tmp_path, size=(32, 32)), *stills(tmp_path, [(32, 32), (64, 64), (96, 64)])]
    of_film, of_album = (
        arrays(each) for each in await fleet.answers(written(tmp_path, stages), inputs, tmp_path / "o")
    )
    assert set(of_film) == {"times", "boxes", "boxes_offsets", "scores", "scores_offsets", "source_size", "mean"}
    expected = [frame.mean((0, 1)) for frame in frames_of(inputs[0])]
    np.testing.assert_allclose(of_film["mean"], expected, atol=0.5)
    np.testing.assert_allclose(of_film["boxes"][1::2, 2], [8 + each.mean() / 16 for each in expected], atol=1e-3)
    assert of_album["source_size"].tolist() == [[32, 32], [64, 64], [96, 64]]
    assert of_album["boxes"][::2].tolist() == [[4, 4, 12, 20], [8, 8, 24, 40], [8, 12, 24, 60]]
    expected = [frames_of(path)[0].mean((0, 1)) for path in inputs[1:]]
    np.testing.assert_allclose(of_album["mean"], expected, atol=0.5)


def test_heads_answer_for_single_frames(tmp_path: Path) -> None:
    put(tmp_path, flat_boxes(), FLAT)
    window = "fps = 10\nwindow = { frames = 3, stride = 3 }"
    assert "windows of 3 frames" in check(written(tmp_path, to("jsonl"), window))


def test_two_stages_that_make_an_array_of_one_name(tmp_path: Path) -> None:
    put(tmp_path, flat_boxes(), FLAT)
    infer = '[[stage]]\nkind = "infer"\nmodel = "m"\nname = "first"\n'
    pipeline = written(tmp_path, infer + to("jsonl", 'model = "m"\nname = "second"\nkeeps = ["boxes"]'))
    assert "keeps `boxes`, and makes an array of that name itself" in check(pipeline)


def scorer() -> bytes:
    """A model that takes no picture: `means [N, 3]` float32 -> `logits [N, 3]`."""
    return model_of(
        [node("Neg", "means", "logits")], [value("means", FLOAT, ["N", 3])], [value("logits", FLOAT, ["N", 3])]
    )


async def test_heads_of_a_model_without_a_picture(fleet: Fleets, tmp_path: Path) -> None:
    """It classifies what another model made of the frames."""
    means = [node("Cast", "pixels", "f", to=FLOAT), node("ReduceMean", "f", "means", axes=[1, 2], keepdims=0)]
    put(
        tmp_path,
        model_of(means, [value("pixels", UINT8, ["N", 32, 32, 3])], [value("means", FLOAT, ["N", 3])]),
        name="a",
    )
    head = '[[heads]]\nkind = "classify"\ntop = 1\nlabels = ["red", "green", "blue"]\n'
    put(tmp_path, scorer(), head)
    stages = '[[stage]]\nkind = "infer"\nname = "first"\nmodel = "a"\n' + to("npz")
    inputs = [film(tmp_path, size=(32, 32)), *stills(tmp_path, [(32, 32)])]
    of_film, of_album = (
        arrays(each) for each in await fleet.answers(written(tmp_path, stages), inputs, tmp_path / "o")
    )
    assert set(of_film) == {"times", "classes", "scores"}
    expected = np.stack([frame.mean((0, 1)) for frame in frames_of(inputs[0])])
    assert of_film["classes"][:, 0].tolist() == expected.argmin(1).tolist()
    np.testing.assert_allclose(of_film["scores"][:, 0], -expected.min(1), rtol=1e-5)
    assert of_album["classes"][0, 0] == frames_of(inputs[1])[0].mean((0, 1)).argmin()


def test_a_head_that_places_its_answers_needs_a_picture(tmp_path: Path) -> None:
    boxes = model_of(
        [node("Identity", "rows", "o")], [value("rows", FLOAT, ["N", 5, 6])], [value("o", FLOAT, ["N", 5, 6])]
    )
    put(tmp_path, boxes, '[[heads]]\nkind = "detect"\ndecoder = "end2end"\n')
    put(tmp_path, rows_of_picture(), name="a")
    stages = '[[stage]]\nkind = "infer"\nname = "first"\nmodel = "a"\n' + to("npz")
    found = check(written(tmp_path, stages))
    assert "head detect places its answers in the frame, and no input is the picture that its card describes" in found
    assert "heads that need no picture are classify, embed, raw and tag" in found


def rows_of_picture() -> bytes:
    """`pixels [N, 5, 6, 3]` bytes -> `rows [N, 5, 6]` float32."""
    nodes = [node("Cast", "pixels", "f", to=FLOAT), node("ReduceMean", "f", "rows", axes=[3], keepdims=0)]
    return model_of(nodes, [value("pixels", UINT8, ["N", 5, 6, 3])], [value("rows", FLOAT, ["N", 5, 6])])
