"""Formats of what heads find, on real workers: a film with sound through a model that detects."""

import asyncio
import csv
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from onnx import helper, numpy_helper

from engines.outputs.draw import class_colour
from schemas.jobs import Priority
from schemas.model import HeadSpec, ModelSpec, TensorSpec
from schemas.picture import PictureSpec
from schemas.pipeline import PipelineSpec, parse_pipeline
from tests.clips import Clip, make_clip, still
from tests.fleet import ONE_WORKER, Fleet, Silent
from tests.onnx_graphs import FLOAT, UINT8, model_of, value
from workers.run import run_jobs

SIDE, LABELS = 64, ("Fahrrad", "车")
BOXES = np.array([[20, 30, 24, 12], [40, 36, 16, 8]], np.float32)  # center, width and height in the model's picture


def model_with(head: HeadSpec, answer: np.ndarray) -> tuple[ModelSpec, bytes]:
    """`pixels [N, 64, 64, 3]` -> `out [N, ...]`, which is `answer` for every picture; its head says what that means."""
    ones = np.ones(answer.ndim, np.int64)
    nodes = [
        helper.make_node("Cast", ["pixels"], ["f"], to=FLOAT),
        helper.make_node("ReduceMean", ["f"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Reshape", ["nothing", "shape"], ["rows"]),
        helper.make_node("Add", ["rows", "answer"], ["out"]),
    ]
    constants = {"zero": np.float32(0), "shape": np.array([-1, *ones]), "answer": answer[None].astype(np.float32)}
    tensors = tuple(numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items())
    given, made = ["N", SIDE, SIDE, 3], ["N", *answer.shape]
    body = model_of(nodes, [value("pixels", UINT8, given)], [value("out", FLOAT, made)], tensors)
    picture = PictureSpec(size=(SIDE, SIDE), fit="letterbox")
    spec = ModelSpec(
        name="m",
        inputs=(TensorSpec(name="pixels", dtype="uint8", shape=tuple(given), picture=picture),),
        outputs=(TensorSpec(name="out", dtype="float32", shape=tuple(made)),),
        heads=(head,),
        sha256=hashlib.sha256(body).hexdigest(),
    )
    return spec, body


def detector() -> tuple[ModelSpec, bytes]:
    """Finds two boxes, of class 0 and 1, and none of class 2."""
    scores = np.array([[0.9, 0.1], [0.2, 0.6], [0.1, 0.1]])
    head = HeadSpec(kind="detect", options={"decoder": "yolov8", "labels": [*LABELS, "unicorn"]})
    return model_with(head, np.concatenate([BOXES.T, scores]))


def tagger() -> tuple[ModelSpec, bytes]:
    """Gives a rating and two tags, and leaves out a third."""
    options = {
        "labels": ["general", "sensitive", "long_hair", "^_^", "sky"],
        "categories": ["rating", "rating", "general", "general", "general"],
        "best_only": ["rating"],
    }
    return model_with(HeadSpec(kind="tag", options=options), np.array([0.2, 0.7, 0.5, 0.9, 0.1]))


def pipeline(name: str, encode: str, planes: bool = False) -> PipelineSpec:
    resize = '[[stage]]\nkind = "resize"\nlayout = "planes"' if planes else ""
    kept = ["index", *(f"plane{number}" for number in range(3) if planes)]
    return parse_pipeline(
        f"""
        name = "{name}"
        media = ["video", "image"]
        segment_s = 0.5
        [[stage]]
        kind = "decode"
        {resize}
        [[stage]]
        kind = "infer"
        model = "m"
        keeps = {kept}
        [[stage]]
        kind = "encode"
        {encode}
        """,
        "p.toml",
    )


def run(spec: PipelineSpec, model: tuple[ModelSpec, bytes], inputs: Sequence[Path], folder: Path) -> str:
    out, cache = folder / "out", folder / "cache"
    out.mkdir()
    with Fleet(ONE_WORKER * 2, cache) as fleet:
        jobs = run_jobs(fleet.settings, spec, {"m": model}, inputs, out, Priority.BULK, Silent())
        [outcome] = asyncio.run(jobs)
    assert outcome.ok, outcome.error or (outcome.done and outcome.done.failures)
    return str(outcome.target)


def expected(height: int, width: int) -> np.ndarray:
    """The boxes in pixels of the source, by hand: the letterbox's bars are taken away, and its scale."""
    scale = SIDE / max(height, width)
    left, top = (SIDE - width * scale) / 2, (SIDE - height * scale) / 2
    center, size = BOXES[:, :2], BOXES[:, 2:]
    corners = np.concatenate([center - size / 2, center + size / 2], axis=1)
    return np.asarray((corners - [left, top, left, top]) / scale)


def test_boxes_come_in_pixels_of_the_source_in_all_three_files(tmp_path: Path) -> None:
    clip = make_clip(tmp_path, Clip(size=(72, 128), frames=30))
    encode = 'format = "detections"\noptions = { coco = true, csv = true }'
    target = run(pipeline("d", encode), detector(), [clip], tmp_path)
    lines = [json.loads(line) for line in Path(f"{target}.jsonl").read_text().splitlines()]
    assert len(lines) == 30
    for line in lines:
        assert (line["width"], line["height"]) == (128, 72)
        np.testing.assert_allclose([box["box"] for box in line["boxes"]], expected(72, 128), atol=1e-3)
        assert [box["label"] for box in line["boxes"]] == list(LABELS)
        assert [box["score"] for box in line["boxes"]] == [0.9, 0.6]
    coco = json.loads(Path(f"{target}.coco.json").read_text())
    categories = enumerate([*LABELS, "unicorn"])
    assert coco["categories"] == [{"id": number, "name": name} for number, name in categories], "all of the model"
    assert len(coco["annotations"]) == 60
    with Path(f"{target}.csv").open(newline="") as table:
        assert len(list(csv.DictReader(table))) == 60


def test_an_annotated_film_has_its_boxes_and_its_sound(tmp_path: Path) -> None:
    clip = make_clip(tmp_path, Clip(size=(288, 512), frames=30, sound="aac"))
    encode = 'format = "annotated"\noptions = { crf = 12, labels = false, scores = false }'
    target = run(pipeline("a", encode, planes=True), detector(), [clip], tmp_path)
    with av.open(f"{target}.mp4") as film:
        assert [stream.type for stream in film.streams] == ["video", "audio"]
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == 30
    for frame in frames[::7]:
        for number, (left, _, right, bottom) in enumerate(np.rint(expected(288, 512)).astype(int).tolist()):
            line = frame[bottom - 2 : bottom, left + 4 : right - 4].astype(int).mean(axis=(0, 1))
            assert abs(line - class_colour(number)).max() < 40


def test_pictures_get_text_files_with_their_tags(tmp_path: Path) -> None:
    names = ["a.jpg", "böse 片.png"]
    for name, codec in zip(names, ("mjpeg", "png"), strict=True):
        (tmp_path / name).write_bytes(still(codec))
    encode = 'format = "tags"\noptions = { spaces = true }'
    target = Path(run(pipeline("t", encode), tagger(), [tmp_path / name for name in names], tmp_path))
    rows = json.loads(Path(f"{target}.json").read_text())
    assert [row["name"] for row in rows] == names
    assert [[tag["tag"], tag["category"]] for tag in rows[0]["tags"]] == [
        ["^_^", "general"],
        ["sensitive", "rating"],
        ["long_hair", "general"],
    ]
    assert {path.name: path.read_text() for path in target.iterdir()} == {
        "a.txt": "^_^, long hair",
        "böse 片.txt": "^_^, long hair",
    }
