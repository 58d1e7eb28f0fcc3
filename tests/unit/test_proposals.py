"""What the shape of a graph and a trial say becomes lines of its card; lines of all companions become one card."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines import registry
from engines.models.catalogue import travelling
from engines.models.companions import lines_of
from engines.models.companions.base import Line, Model, Port, Sure
from engines.models.proposal import Proposal, propose
from engines.planned import Tensor
from schemas.errors import ModelError
from tests.answering import graph

PICTURE = Port("images", "float32", ("N", 3, 640, 640))


def values(lines: Any) -> dict[str, Any]:
    return {line.field: line.value for line in lines}


def proposed(folder: Path, body: bytes, name: str = "theirs") -> Proposal:
    path = folder / f"{name}.onnx"
    path.write_bytes(body)
    return propose(path, body)


CELLS = 400 + 100 + 25  # of strides 8, 16, 32 in a picture of 160 x 160
RANDOM = np.random.default_rng(1)


def scores(*shape: int) -> np.ndarray:
    return RANDOM.random(shape)


def logits(*shape: int) -> np.ndarray:
    return RANDOM.normal(0, 3, shape)


YOLOX_ROWS = np.concatenate([logits(1, CELLS, 4), scores(1, CELLS, 81)], -1)
PIXEL_ROWS = np.concatenate([scores(1, CELLS, 4) * 160, scores(1, CELLS, 81)], -1)
NANODET_ROWS = np.concatenate([scores(1, CELLS + 9, 80), logits(1, CELLS + 9, 32)], -1)
DETECTORS = {
    "yolov8": {"output0": scores(1, 84, CELLS) * 160},
    "yolov5": {"output": scores(1, 3 * CELLS, 85) * 160},
    "end2end": {"output0": scores(1, 40, 6) * 160},
    "yolox": {"output": YOLOX_ROWS},
    "nanodet": {"output": NANODET_ROWS},
    "detr": {"dets": scores(1, 300, 4), "labels": logits(1, 300, 91)},
    "arrays": {"bboxes": scores(1, 200, 4), "labels": scores(1, 200), "scores": scores(1, 200)},
    "ssd": {"scores": np.full((1, 500, 21), 1 / 21), "boxes": scores(1, 500, 4)},
    "ultraface": {"scores": np.full((1, 500, 2), 0.5), "boxes": scores(1, 500, 4)},
    "retinaface": {"a": scores(1, 1050, 4), "b": scores(1, 1050, 2), "c": logits(1, 1050, 10)},
    "scrfd": {f"{n}_{count}": scores(count, n) for count in (800, 200, 50) for n in (1, 4, 10)},
    "yunet": {
        f"{part}_{stride}": scores(1, (160 // stride) ** 2, size)
        for part, size in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))
        for stride in (8, 16, 32)
    },
}
COLOURS = {"yolox": "bgr", "nanodet": "bgr", "retinaface": "bgr", "yunet": "bgr"}


@pytest.mark.parametrize("decoder", DETECTORS)
def test_detectors_are_known_by_their_rows(tmp_path: Path, decoder: str) -> None:
    found = values(proposed(tmp_path, graph(DETECTORS[decoder])).lines)
    assert found["heads.0.decoder"] == decoder
    assert found["inputs.0.colours"] == COLOURS.get(decoder, "rgb")


@pytest.mark.parametrize(
    ("task", "kind", "rows", "given"),
    [
        ("pose", "keypoints", 4 + 1 + 51, {"points": 17, "dimensions": 3}),
        ("obb", "obb", 4 + 2 + 1, {}),
        ("segment", "instances", 4 + 2 + 32, {}),
    ],
)
def test_the_tasks_of_ultralytics(tmp_path: Path, task: str, kind: str, rows: int, given: dict[str, int]) -> None:
    outputs = {"output0": scores(1, rows, CELLS) * 160}
    if task == "segment":
        outputs["output1"] = logits(1, 32, 40, 40)
    body = onnx.load_from_string(graph(outputs))
    said = {"task": task, "names": "{0: 'a', 1: 'b'}", "kpt_shape": "[17, 3]"}
    helper.set_model_props(body, said)
    found = values(proposed(tmp_path, body.SerializeToString()).lines)
    assert (found["heads.0.kind"], found["heads.0.decoder"]) == (kind, "yolov8")
    assert {key: found.get(f"heads.0.{key}") for key in given} == given


def test_a_model_with_prototypes_has_masks(tmp_path: Path) -> None:
    outputs = {"output0": scores(1, 38, CELLS) * 160, "output1": logits(1, 32, 40, 40)}
    assert values(proposed(tmp_path, graph(outputs)).lines)["heads.0.kind"] == "instances"


def test_nanodet_with_arrays_for_each_stride(tmp_path: Path) -> None:
    outputs = {}
    for stride in (8, 16, 32):
        count = (160 // stride) ** 2
        outputs |= {f"s{stride}": scores(1, count, 80), f"r{stride}": logits(1, count, 44)}
    found = values(proposed(tmp_path, graph(outputs)).lines)
    assert (found["heads.0.decoder"], len(found["heads.0.labels"])) == ("nanodet", 80)
    assert found["inputs.0.mean"] == [103.53, 116.28, 123.675]


def test_decoded_rows_of_one_a_cell_are_read_as_boxes_in_pixels(tmp_path: Path) -> None:
    found = values(proposed(tmp_path, graph({"output": PIXEL_ROWS})).lines)
    assert (found["heads.0.decoder"], found["inputs.0.pad_place"]) == ("yolov5", "corner")


@pytest.mark.parametrize(
    ("output", "name", "kind", "activation"),
    [
        (np.full((1, 10), 0.1), "theirs", "classify", "none"),
        (logits(1, 10), "theirs", "classify", "softmax"),
        (scores(1, 10), "theirs", "classify", "none"),
        (np.full((1, 64), 0.125), "theirs", "embed", None),
    ],
)
def test_vectors(tmp_path: Path, output: np.ndarray, name: str, kind: str, activation: str | None) -> None:
    found = values(proposed(tmp_path, graph({"out": output}), name).lines)
    assert (found["heads.0.kind"], found.get("heads.0.activation")) == (kind, activation)


def upscaler(low: float, high: float, factor: int, channels: int = 3) -> bytes:
    """A network of values low ... high: what is beyond them is cut, as such networks do badly."""
    constants = [
        numpy_helper.from_array(np.array([1, 1, factor, factor], np.float32), "scales"),
        numpy_helper.from_array(np.float32(low), "low"),
        numpy_helper.from_array(np.float32(high), "high"),
        numpy_helper.from_array(np.float32((low + high) / 2), "middle"),
        numpy_helper.from_array(np.float32((high - low) / 2), "half"),
    ]
    nodes = [
        helper.make_node("Sub", ["images", "middle"], ["a"]),
        helper.make_node("Div", ["a", "half"], ["b"]),
        helper.make_node("Tanh", ["b"], ["c"]),
        helper.make_node("Mul", ["c", "half"], ["d"]),
        helper.make_node("Add", ["d", "middle"], ["e"]),
        helper.make_node("Resize", ["e", "", "scales"], ["out"], mode="nearest"),
    ]
    shapes = (["n", channels, "h", "w"], ["n", channels, "oh", "ow"])
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip(("images", "out"), shapes, strict=True)
    ]
    made = helper.make_graph(nodes, "g", ports[:1], ports[1:], constants)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString()


def test_a_network_of_grey_pictures_makes_grey_pictures(tmp_path: Path) -> None:
    found = values(proposed(tmp_path, upscaler(0, 1, 2, channels=1)).lines)
    assert (found["heads.0.kind"], found["heads.0.colours"], found["inputs.0.colours"]) == ("image", "gray", "gray")


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 255), (-1, 1)])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_a_trial_finds_the_values_of_a_network_of_pictures(tmp_path: Path, low: int, high: int, factor: int) -> None:
    lines = proposed(tmp_path, upscaler(low, high, factor)).lines
    found = values(lines)
    assert found["heads.0.kind"] == "image"
    (why,) = [line.why for line in lines if line.field == "heads.0.kind"]
    size = "as large" if factor == 1 else f"{factor} times as high and wide"
    assert why == f"output `out` is {size} as the input picture, and shows it in a trial"
    assert found["heads.0.range"] == [low, high]
    assert found["inputs.0.scale"] == (1.0 if high == 255 else 1 / 255)
    assert found.get("inputs.0.mean") == (0.5 if low else None)


@pytest.mark.parametrize(
    ("name", "channels", "kind"), [("m", 21, "segment"), ("midas_small", 1, "depth"), ("u2net", 1, "matte")]
)
def test_maps(tmp_path: Path, name: str, channels: int, kind: str) -> None:
    body = graph({"out": logits(1, channels, 160, 160)})
    assert values(proposed(tmp_path, body, name).lines)["heads.0.kind"] == kind


def test_states_and_constants(tmp_path: Path) -> None:
    inputs = (Port("input", "float32", ("b", 512)), Port("state", "float32", (2, "b", 128)), Port("sr", "int64", ()))
    outputs = (Port("output", "float32", ("b", 1)), Port("stateN", "float32", (2, "b", 128)))
    recurrent = Model(tmp_path / "vad.onnx", inputs, outputs)
    assert values(lines_of("inputs", recurrent)) == {"inputs.1.state": {"output": "stateN"}, "inputs.2.value": 16000}
    inputs = (PICTURE, Port("r1i", "float32", (1, "c", "h", "w")), Port("downsample_ratio", "float32", (1,)))
    outputs = (Port("pha", "float32", (1, 1, "h", "w")), Port("r1o", "float32", (1, "c", "h", "w")))
    found = values(lines_of("inputs", Model(tmp_path / "rvm.onnx", inputs, outputs)))
    assert (found["inputs.1.state"], found["inputs.2.value"]) == ({"output": "r1o"}, 0.25)


def test_a_graph_without_a_batch(tmp_path: Path) -> None:
    found = values(proposed(tmp_path, graph({"out": logits(10)}, (3, 160, 160))).lines)
    assert found["batch"] == "none"


# the proposal


def test_files_are_surer_than_shapes_and_values_that_belong_together_have_one_source(tmp_path: Path) -> None:
    said = {"do_rescale": True, "do_normalize": False, "size": 160}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    found = values(proposed(tmp_path, graph({"logits": logits(1, 2)})).lines)
    assert found["inputs.0.scale"] == 1 / 255
    assert "inputs.0.mean" not in found, "a guess of ImageNet's mean beside another source's scale would be wrong"
    assert found["heads.0.labels"] == ["cat", "dog"]


def test_a_field_given_by_hand_replaces_what_was_proposed(tmp_path: Path) -> None:
    proposal = proposed(tmp_path, graph(DETECTORS["yolov8"]))
    changed = proposal.changed({"heads": [], "inputs.0.mean": [1, 2, 3]}, "given")
    card = changed.card()
    assert card.heads == ()
    assert card.inputs[0].mean == (1, 2, 3)
    assert card.inputs[0].name == "images"
    assert Line("inputs.0.mean", [1, 2, 3], Sure.certain, "given") in changed.lines


@pytest.mark.parametrize("field", ["inputs.x", "nothing", "inputs.0.nothing", "inputs.99999999999.mean", "heads.0"])
def test_a_field_that_no_card_has(tmp_path: Path, field: str) -> None:
    with pytest.raises(ModelError) as caught:
        proposed(tmp_path, graph(DETECTORS["yolov8"])).changed({field: 1}, "given").card()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("decoder", DETECTORS)
def test_a_proposed_head_fits_its_model(tmp_path: Path, decoder: str) -> None:
    proposal = proposed(tmp_path, graph(DETECTORS[decoder]))
    card = proposal.card()
    spec, _ = travelling(proposal.model.path, card, proposal.model.path.read_bytes())
    outputs = {tensor.name: Tensor(tensor.dtype, tensor.shape) for tensor in spec.outputs}
    for head in card.heads:
        made = registry.load("heads", head.kind)(head.options, outputs, spec.inputs[0].picture)
        assert "boxes" in made.plan()


def test_another_kind_drops_what_was_guessed_for_the_old_one_and_options_that_it_does_not_have(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    found = proposed(tmp_path, graph({"y": logits(1, 2)}))
    assert values(found.lines)["heads.0.activation"] == "softmax", "a guess about a classifier"
    for kind, options in (("embed", {}), ("tag", {"labels": ["cat", "dog"]}), ("raw", {"labels": ["cat", "dog"]})):
        [head] = found.changed({"heads.0.kind": kind}, "given").card().heads
        assert (head.kind, head.options) == (kind, options)
    [head] = found.changed({"heads.0.kind": "tag", "heads.0.activation": "sigmoid"}, "given").card().heads
    assert head.options == {"labels": ["cat", "dog"], "activation": "sigmoid"}
    [same] = found.changed({"heads.0.kind": "classify"}, "given").card().heads
    assert same.options == {"labels": ["cat", "dog"], "activation": "softmax"}
    with pytest.raises(ModelError, match="there is no head embedding"):
        found.changed({"heads.0.kind": "embedding"}, "given")


def test_another_decoder_drops_the_options_of_the_old_one(tmp_path: Path) -> None:
    found = proposed(tmp_path, graph({"output0": np.zeros((1, 525, 6), np.float32)}))
    [head] = found.changed({"heads.0.transposed": True, "heads.0.decoder": "yolov8"}, "given").card().heads
    assert head.options["transposed"] is True
    transposed = found.changed({"heads.0.decoder": "yolov8", "heads.0.transposed": True}, "given")
    [other] = transposed.changed({"heads.0.decoder": "yolov5"}, "given").card().heads
    assert other.options == {"decoder": "yolov5"}
