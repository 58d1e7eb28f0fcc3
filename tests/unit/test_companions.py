"""What lies beside or inside a model becomes lines of its card."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines import registry
from engines.heads.base import Tensor
from engines.models.catalogue import travelling
from engines.models.companions import load
from engines.models.companions.base import Line, Model, Port, Sure
from engines.models.proposal import Proposal, propose
from schemas.errors import ModelError
from tests.answering import graph

PICTURE = Port("images", "float32", ("N", 3, 640, 640))


def model(folder: Path, outputs: dict[str, tuple[int | str, ...]], picture: Port = PICTURE, **said: str) -> Model:
    ports = tuple(Port(name, "float32", shape) for name, shape in outputs.items())
    return Model(folder / "theirs.onnx", (picture,), ports, metadata=said)


def values(lines: Any) -> dict[str, Any]:
    return {line.field: line.value for line in lines}


# files


def test_ultralytics_metadata_says_it_all(tmp_path: Path) -> None:
    said = {"task": "detect", "names": "{0: 'cat', 1: 'dog'}", "imgsz": "[480, 640]", "license": "AGPL-3.0"}
    free = Port("images", "float32", ("N", 3, "h", "w"))
    lines = load("ultralytics")(model(tmp_path, {"output0": (1, 6, 8400)}, free, **said))
    found = values(lines)
    assert all(line.sure is Sure.certain for line in lines)
    assert found["heads.0.kind"] == "detect"
    assert found["heads.0.labels"] == ["cat", "dog"]
    assert found["inputs.0.size"] == [480, 640]
    assert found["inputs.0.scale"] == 1 / 255
    assert (found["inputs.0.fit"], found["inputs.0.pad_value"]) == ("letterbox", 114)
    assert "AGPL-3.0" in found["description"]


def test_ultralytics_metadata_that_is_no_literal_is_passed_over(tmp_path: Path) -> None:
    said = {"task": "detect", "names": "__import__('os').abort()", "imgsz": "(" * 5000}
    assert "heads.0.labels" not in values(load("ultralytics")(model(tmp_path, {"o": (1, 6, 8400)}, **said)))


@pytest.mark.parametrize(
    ("file", "text", "labels"),
    [
        ("labels.txt", "cat\ndog\n\n", ["cat", "dog"]),
        ("classes.txt", "0 cat\n1 hot dog\n", ["cat", "hot dog"]),
        ("labels.txt", "1: dog\n0: cat", ["cat", "dog"]),
        ("synset.txt", "n01440764 tench, Tinca tinca\nn01443537 goldfish\n", ["tench, Tinca tinca", "goldfish"]),
        ("theirs.labels.txt", "\ufeffcat\r\ndog\r\n", ["cat", "dog"]),
        ("coco.names", "1 person\n3 car\n", ["?", "person", "?", "car"]),
        ("labels.txt", "100\n200\n", ["100", "200"]),
    ],
)
def test_labels_are_read_as_people_write_them(tmp_path: Path, file: str, text: str, labels: list[str]) -> None:
    (tmp_path / file).write_bytes(text.encode())
    lines = load("labels.txt")(model(tmp_path, {"scores": (1, len(labels))}))
    assert [(line.value, line.sure) for line in lines] == [(labels, Sure.certain)]


def test_labels_of_another_count_are_a_guess(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    (line,) = load("labels.txt")(model(tmp_path, {"scores": (1, 1000)}))
    assert line.sure is Sure.guess
    assert line.why == "labels.txt has 2 lines, no output has as many"


def test_selected_tags_have_categories(tmp_path: Path) -> None:
    rows = "tag_id,name,category,count\n9,general,9,5\n1,1girl,0,7\n2,someone,4,3\n"
    (tmp_path / "selected_tags.csv").write_text(rows)
    picture = Port("input", "float32", ("N", 448, 448, 3))
    found = values(load("selected_tags.csv")(model(tmp_path, {"output": (1, 3)}, picture)))
    assert found["heads.0.kind"] == "tag"
    assert found["heads.0.labels"] == ["general", "1girl", "someone"]
    assert found["heads.0.categories"] == ["rating", "general", "character"]
    assert (found["inputs.0.colours"], found["inputs.0.scale"], found["inputs.0.pad_value"]) == ("bgr", 1.0, 255)


@pytest.mark.parametrize(
    "said",
    [
        {"1": {"tag": "hat", "category": "General"}, "0": {"tag": "safe", "category": "Rating"}},
        {"idx_to_tag": {"0": "safe", "1": "hat"}, "tag_to_category": {"safe": "Rating", "hat": "General"}},
    ],
)
def test_tag_mapping_is_read_in_both_forms(tmp_path: Path, said: Any) -> None:
    (tmp_path / "tag_mapping.json").write_text(json.dumps(said))
    found = values(load("tag_mapping.json")(model(tmp_path, {"output": (1, 2)})))
    assert found["heads.0.labels"] == ["safe", "hat"]
    assert found["heads.0.categories"] == ["rating", "general"]


CLIP = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48, 0.45, 0.4],
    "image_std": [0.26, 0.26, 0.27],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 224},
}
VIT = {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2, "size": 224}
PLAIN = {"do_rescale": False, "do_normalize": False, "size": {"height": 512, "width": 256}}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (CLIP, {"size": [224, 224], "fit": "crop", "resize": "bicubic", "antialias": True, "mean": [0.48, 0.45, 0.4]}),
        (VIT, {"size": [224, 224], "fit": "stretch", "resize": "bilinear", "scale": 1 / 255, "std": [0.5] * 3}),
        (PLAIN, {"size": [512, 256], "fit": "stretch", "scale": 1.0}),
    ],
)
def test_a_preprocessor_config_says_how_the_picture_is_made(
    tmp_path: Path, said: dict[str, Any], expected: dict[str, Any]
) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    (tmp_path / "onnx").mkdir()
    free = Port("pixel_values", "float32", ("N", 3, "h", "w"))
    for folder in (tmp_path, tmp_path / "onnx"):  # beside it, or above the folder that transformers.js looks in
        found = values(load("preprocessor_config.json")(model(folder, {"logits": (1, 2)}, free)))
        assert {key: found[f"inputs.0.{key}"] for key in expected} == expected
    assert ("inputs.0.mean" in found) == said["do_normalize"]


def test_a_crop_after_a_larger_size_is_said_to_be_near(tmp_path: Path) -> None:
    said = {**CLIP, "size": {"shortest_edge": 256}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    (line,) = (
        line
        for line in load("preprocessor_config.json")(model(tmp_path, {"logits": (1, 2)}))
        if line.field == "inputs.0.fit"
    )
    assert (line.value, line.sure) == ("crop", Sure.guess)
    assert "256" in line.why


def test_a_config_has_labels_and_a_head(tmp_path: Path) -> None:
    said = {"architectures": ["ViTForImageClassification"], "id2label": {"1": "dog", "0": "cat"}}
    (tmp_path / "config.json").write_text(json.dumps(said))
    found = values(load("config.json")(model(tmp_path, {"logits": (1, 2)})))
    assert found == {"heads.0.labels": ["cat", "dog"], "heads.0.kind": "classify"}


MODEL_INFO = {
    "model_type": "YOLOX",
    "labels": "traffic_light car",
    "mean_values": "123.675 116.28 103.53",
    "scale_values": "58.395 57.12 57.375",
    "reverse_input_channels": "True",
    "resize_type": "fit_to_window_letterbox",
    "pad_value": "114",
    "confidence_threshold": "0.3",
}


@pytest.mark.parametrize("where", ["xml", "metadata"])
def test_model_info_of_openvino(tmp_path: Path, where: str) -> None:
    said: dict[str, str] = {}
    if where == "xml":
        inner = "".join(f'<{key} value="{value}"/>' for key, value in MODEL_INFO.items())
        (tmp_path / "theirs.xml").write_text(f"<net><rt_info><model_info>{inner}</model_info></rt_info></net>")
    else:
        said = {f"model_info {key}": value for key, value in MODEL_INFO.items()}
    found = values(load("openvino")(model(tmp_path, {"boxes": (1, 8400, 7)}, **said)))
    assert found == {
        "heads.0.kind": "detect",
        "heads.0.decoder": "yolox",
        "heads.0.labels": ["traffic light", "car"],
        "heads.0.threshold": 0.3,
        "inputs.0.colours": "rgb",
        "inputs.0.mean": [123.675, 116.28, 103.53],
        "inputs.0.std": [58.395, 57.12, 57.375],
        "inputs.0.scale": 1.0,
        "inputs.0.fit": "letterbox",
        "inputs.0.pad_place": "center",
        "inputs.0.pad_value": 114,
    }


TRITON = """
name: "faces"   # what clients call it
platform: "onnxruntime_onnx"
max_batch_size: 8
input [
  { name: "images" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, 480, 640 ] }
]
output { name: "scores", data_type: TYPE_FP32; dims: 2 label_filename: "kinds.txt" }
instance_group [ { count: 1 kind: KIND_GPU gpus: [0] } ]
parameters { key: "x" value: { string_value: "a \\"b\\" {" } }
"""


def test_a_triton_repository(tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt").write_text(TRITON)
    (tmp_path / "kinds.txt").write_text("cat\ndog\n")
    (tmp_path / "1").mkdir()
    free = Port("images", "float32", ("N", 3, "h", "w"))
    found = values(load("triton")(model(tmp_path / "1", {"scores": (1, 2)}, free)))
    assert found == {
        "name": "faces",
        "inputs.0.layout": "nchw",
        "inputs.0.size": [480, 640],
        "heads.0.labels": ["cat", "dog"],
    }


def test_a_triton_configuration_names_no_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.pbtxt").write_text('output { label_filename: "../secret.txt" }')
    assert load("triton")(model(tmp_path / "m", {"scores": (1, 2)})) == []


@pytest.mark.parametrize(
    ("file", "content", "companion"),
    [
        ("config.pbtxt", b"input [ { name", "triton"),
        ("config.pbtxt", b"a {" * 5000, "triton"),
        ("config.pbtxt", b'name: "\\x"', "triton"),
        ("config.json", b"[1, 2]", "config.json"),
        ("config.json", b"[" * 100_000, "config.json"),
        ("preprocessor_config.json", b"\xff\xfe", "preprocessor_config.json"),
        ("preprocessor_config.json", b'{"size": {"height": "x", "width": 1}}', "preprocessor_config.json"),
        ("labels.txt", b"\xff", "labels.txt"),
        ("selected_tags.csv", b"a,b\n1,2\n", "selected_tags.csv"),
        ("tag_mapping.json", b'{"x": 1}', "tag_mapping.json"),
        ("theirs.xml", b"<a", "openvino"),
        ("theirs.xml", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "openvino"),
    ],
)
def test_a_broken_companion_is_one_true_line(tmp_path: Path, file: str, content: bytes, companion: str) -> None:
    (tmp_path / file).write_bytes(content)
    free = Port("images", "float32", ("N", 3, "h", "w"))
    with pytest.raises(ModelError) as caught:
        load(companion)(model(tmp_path, {"scores": (1, 2)}, free))
    assert str(tmp_path / file) in str(caught.value)
    assert "\n" not in str(caught.value)


# graphs


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
    "retinaface": {"a": scores(1, 500, 4), "b": scores(1, 500, 2), "c": logits(1, 500, 10)},
    "scrfd": {f"{n}_{count}": scores(count, n) for count in (128, 32, 8) for n in (1, 4, 10)},
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


def upscaler(low: float, high: float, factor: int) -> bytes:
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
    shapes = (["n", 3, "h", "w"], ["n", 3, "oh", "ow"])
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip(("images", "out"), shapes, strict=True)
    ]
    made = helper.make_graph(nodes, "g", ports[:1], ports[1:], constants)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString()


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 255), (-1, 1)])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_a_trial_finds_the_values_of_a_network_of_pictures(tmp_path: Path, low: int, high: int, factor: int) -> None:
    found = values(proposed(tmp_path, upscaler(low, high, factor)).lines)
    assert found["heads.0.kind"] == "image"
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
    assert values(load("inputs")(recurrent)) == {"inputs.1.state": {"output": "stateN"}, "inputs.2.value": 16000}
    inputs = (PICTURE, Port("r1i", "float32", (1, "c", "h", "w")), Port("downsample_ratio", "float32", (1,)))
    outputs = (Port("pha", "float32", (1, 1, "h", "w")), Port("r1o", "float32", (1, "c", "h", "w")))
    found = values(load("inputs")(Model(tmp_path / "rvm.onnx", inputs, outputs)))
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
