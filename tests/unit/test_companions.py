"""What lies beside or inside a model becomes lines of its card."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.models.companions import COMPANIONS, lines_of
from engines.models.companions.base import Line, Model, Port, Sure
from schemas.errors import ModelError

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
    lines = lines_of("ultralytics", model(tmp_path, {"output0": (1, 6, 8400)}, free, **said))
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
    assert "heads.0.labels" not in values(lines_of("ultralytics", model(tmp_path, {"o": (1, 6, 8400)}, **said)))


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
    lines = lines_of("labels.txt", model(tmp_path, {"scores": (1, len(labels))}))
    assert [(line.value, line.sure) for line in lines] == [(labels, Sure.certain)]


def test_labels_of_another_count_are_a_guess(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    (line,) = lines_of("labels.txt", model(tmp_path, {"scores": (1, 1000)}))
    assert line.sure is Sure.guess
    assert line.why == "labels.txt has 2 lines, no output has as many"


def test_selected_tags_have_categories(tmp_path: Path) -> None:
    rows = "tag_id,name,category,count\n9,general,9,5\n1,1girl,0,7\n2,someone,4,3\n"
    (tmp_path / "selected_tags.csv").write_text(rows)
    picture = Port("input", "float32", ("N", 448, 448, 3))
    found = values(lines_of("selected_tags.csv", model(tmp_path, {"output": (1, 3)}, picture)))
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
    found = values(lines_of("tag_mapping.json", model(tmp_path, {"output": (1, 2)})))
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
        found = values(lines_of("preprocessor_config.json", model(folder, {"logits": (1, 2)}, free)))
        assert {key: found[f"inputs.0.{key}"] for key in expected} == expected
    assert ("inputs.0.mean" in found) == said["do_normalize"]


CONVNEXT = {"crop_pct": 0.875, "resample": 3, "size": {"shortest_edge": 224}, "image_mean": [0.5] * 3}
STRETCHED = {"do_center_crop": True, "crop_size": {"height": 289, "width": 289}, "size": {"height": 346, "width": 346}}
TIMM = {"input_size": [3, 224, 224], "crop_pct": 0.95, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.mark.parametrize(
    ("file", "said", "expected"),
    [
        ("preprocessor_config.json", {**CLIP, "size": {"shortest_edge": 256}}, ("crop", [224, 224], 256, Sure.certain)),
        ("preprocessor_config.json", CLIP, ("crop", [224, 224], None, None)),
        ("preprocessor_config.json", CONVNEXT, ("crop", [224, 224], 256, Sure.certain)),
        ("preprocessor_config.json", {**CONVNEXT, "size": {"shortest_edge": 384}}, ("stretch", [384, 384], None, None)),
        ("preprocessor_config.json", STRETCHED, ("crop", [289, 289], 346, Sure.guess)),
        ("config.json", {"architecture": "vit", "pretrained_cfg": TIMM}, ("crop", [224, 224], 235, Sure.certain)),
        ("config.json", {**TIMM, "crop_pct": 1.0}, ("crop", [224, 224], None, None)),
        ("config.json", {**TIMM, "crop_pct": 1.0, "crop_mode": "squash"}, ("stretch", [224, 224], None, None)),
    ],
)
def test_a_picture_that_is_cropped_from_a_larger_one(
    tmp_path: Path, file: str, said: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    """The short side before the crop, as the processors of transformers and timm compute it."""
    (tmp_path / file).write_text(json.dumps(said))
    free = Port("pixel_values", "float32", ("N", 3, "h", "w"))
    found = {
        line.field.removeprefix("inputs.0."): line
        for name in (file, "timm")
        for line in lines_of(name, model(tmp_path, {"logits": (1, 2)}, free))
    }
    short = found.get("short_side")
    assert (
        found["fit"].value,
        found["size"].value,
        short and short.value,
        short and short.sure,
    ) == expected


def test_a_graph_of_another_size_than_its_config_keeps_its_own(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**CLIP, "size": {"shortest_edge": 256}}))
    fixed = Port("pixel_values", "float32", ("N", 3, 384, 384))
    found = values(lines_of("preprocessor_config.json", model(tmp_path, {"logits": (1, 2)}, fixed)))
    assert "inputs.0.short_side" not in found
    assert "inputs.0.size" not in found


def test_a_config_has_labels_and_a_head(tmp_path: Path) -> None:
    said = {"architectures": ["ViTForImageClassification"], "id2label": {"1": "dog", "0": "cat"}}
    (tmp_path / "config.json").write_text(json.dumps(said))
    found = values(lines_of("config.json", model(tmp_path, {"logits": (1, 2)})))
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
    found = values(lines_of("openvino", model(tmp_path, {"boxes": (1, 8400, 7)}, **said)))
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
    found = values(lines_of("triton", model(tmp_path / "1", {"scores": (1, 2)}, free)))
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
    assert lines_of("triton", model(tmp_path / "m", {"scores": (1, 2)})) == []


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
        ("preprocessor_config.json", b'{"size": {"shortest_edge": 1e400}}', "preprocessor_config.json"),
        ("labels.txt", b"\xff", "labels.txt"),
        ("selected_tags.csv", b"a,b\n1,2\n", "selected_tags.csv"),
        ("tag_mapping.json", b'{"x": 1}', "tag_mapping.json"),
        ("tag_mapping.json", b'{"idx_to_tag": {"0": "a"}, "tag_to_category": []}', "tag_mapping.json"),
        ("theirs.xml", b"<a", "openvino"),
        ("theirs.xml", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "openvino"),
    ],
)
def test_a_broken_companion_is_one_true_line(tmp_path: Path, file: str, content: bytes, companion: str) -> None:
    (tmp_path / file).write_bytes(content)
    free = Port("images", "float32", ("N", 3, "h", "w"))
    with pytest.raises(ModelError) as caught:
        lines_of(companion, model(tmp_path, {"scores": (1, 2)}, free))
    assert str(tmp_path / file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "content", "companion"),
    [
        ("config.json", b'{"architectures": 3}', "config.json"),
        ("config.pbtxt", b"input: 3", "triton"),
        ("config.pbtxt", b'input { name: "images" dims: { a: 1 } }', "triton"),
        ("labels.txt", b"9" * 5000 + b" cat", "labels.txt"),
    ],
)
def test_a_companion_of_an_unknown_form_is_one_true_line(
    tmp_path: Path, file: str, content: bytes, companion: str
) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(
        ModelError, match=rf"the {companion} data inside or beside \S+ has an unknown form \("
    ) as caught:
        lines_of(companion, model(tmp_path, {"scores": (1, 2)}, FREE))
    assert str(tmp_path) in str(caught.value)


def test_a_label_of_a_great_number_is_none(tmp_path: Path) -> None:
    """A list up to that number would fill the memory."""
    (tmp_path / "config.json").write_text('{"id2label": {"1000000000": "cat"}}')
    assert lines_of("config.json", model(tmp_path, {"scores": (1, 2)}, FREE)) == []


FREE = Port("images", "float32", ("N", 3, "h", "w"))
KEYS = (
    *("task", "names", "imgsz", "kpt_shape", "description", "license", "architectures", "id2label", "problem_type"),
    *("size", "crop_size", "do_center_crop", "do_pad", "resample", "do_rescale", "rescale_factor", "do_normalize"),
    *("image_mean", "image_std", "crop_pct", "do_flip_channel_order", "0", "tag", "category", "idx_to_tag"),
    *("input_size", "pretrained_cfg", "crop_mode", "interpolation", "label_names"),
    *("tag_to_category", "model_type", "labels", "mean_values", "resize_type", "pad_value"),
)
TEXTS = st.sampled_from(["detect", "pose", "(1, 'a')", "[640, 640]", "{0: 'a'}", "[[", "1e999", "\0", "n" * 300])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 1000) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=st.dictionaries(st.sampled_from(KEYS), JSON, max_size=10), name=st.sampled_from(sorted(COMPANIONS)))
def test_whatever_a_companion_holds_it_is_lines_or_an_error_in_words(
    tmp_path: Path, said: dict[str, Any], name: str
) -> None:
    for file in ("preprocessor_config.json", "config.json", "tag_mapping.json"):
        (tmp_path / file).write_text(json.dumps(said))
    metadata = {key: value if isinstance(value, str) else str(value) for key, value in said.items()}
    metadata |= {f"model_info {key}": value for key, value in metadata.items()}
    lines: Sequence[Line] = ()
    with suppress(ModelError):
        lines = lines_of(name, model(tmp_path, {"scores": (1, 2)}, FREE, **metadata))
    assert all(line.why and "\n" not in line.why for line in lines)
