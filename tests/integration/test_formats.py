"""Formats of what heads find, on real workers: a film with sound through a model that detects."""

import asyncio
import csv
import hashlib
import json
from pathlib import Path

import av
import numpy as np
from onnx import helper, numpy_helper

from engines.outputs.draw import class_colour
from schemas.messages import Priority
from schemas.model import HeadSpec, ModelSpec, PictureSpec, TensorSpec
from schemas.pipeline import PipelineSpec, parse_pipeline
from tests.clips import Clip, make_clip
from tests.fleet import ONE_WORKER, Fleet, Silent
from tests.onnx_graphs import FLOAT, UINT8, model_of, value
from workers.local import run_jobs

SIDE, LABELS = 64, ("Fahrrad", "车")
BOXES = np.array([[20, 30, 24, 12], [40, 36, 16, 8]], np.float32)  # center, width and height in the model's picture


def detector() -> tuple[ModelSpec, bytes]:
    """`pixels [N, 64, 64, 3]` -> `out [N, 6, 2]`: two boxes, of class 0 and 1, in every picture."""
    rows = np.zeros((1, 6, 2), np.float32)
    rows[0, :4] = BOXES.T
    rows[0, 4:] = [[0.9, 0.1], [0.2, 0.6]]
    nodes = [
        helper.make_node("Cast", ["pixels"], ["f"], to=FLOAT),
        helper.make_node("ReduceMean", ["f"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("ReduceMean", ["mean"], ["mean1"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["mean1", "zero"], ["nothing"]),
        helper.make_node("Unsqueeze", ["nothing", "axis"], ["nothing3"]),
        helper.make_node("Add", ["nothing3", "rows"], ["out"]),
    ]
    constants = {"zero": np.float32(0), "axis": np.array([2]), "rows": rows}
    tensors = tuple(numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items())
    given, made = ["N", SIDE, SIDE, 3], ["N", 6, 2]
    body = model_of(nodes, [value("pixels", UINT8, given)], [value("out", FLOAT, made)], tensors)
    picture = PictureSpec(size=(SIDE, SIDE), fit="letterbox")
    head = HeadSpec(kind="detect", options={"decoder": "yolov8", "labels": list(LABELS)})
    spec = ModelSpec(
        name="m",
        inputs=(TensorSpec(name="pixels", dtype="uint8", shape=tuple(given), picture=picture),),
        outputs=(TensorSpec(name="out", dtype="float32", shape=tuple(made)),),
        heads=(head,),
        sha256=hashlib.sha256(body).hexdigest(),
    )
    return spec, body


def pipeline(name: str, encode: str, planes: bool = False) -> PipelineSpec:
    resize = '[[stage]]\nkind = "resize"\nlayout = "planes"' if planes else ""
    kept = ["index", *(f"plane{number}" for number in range(3) if planes)]
    return parse_pipeline(
        f"""
        name = "{name}"
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


def run(spec: PipelineSpec, clip: Path, out: Path, cache: Path) -> str:
    out.mkdir()
    with Fleet(ONE_WORKER * 2, cache) as fleet:
        jobs = run_jobs(fleet.settings, spec, {"m": detector()}, [clip], out, Priority.BULK, Silent())
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
    target = run(pipeline("d", encode), clip, tmp_path / "out", tmp_path / "cache")
    lines = [json.loads(line) for line in Path(f"{target}.jsonl").read_text().splitlines()]
    assert len(lines) == 30
    for line in lines:
        assert (line["width"], line["height"]) == (128, 72)
        np.testing.assert_allclose([box["box"] for box in line["boxes"]], expected(72, 128), atol=1e-3)
        assert [box["label"] for box in line["boxes"]] == list(LABELS)
        assert [box["score"] for box in line["boxes"]] == [0.9, 0.6]
    coco = json.loads(Path(f"{target}.coco.json").read_text())
    assert [category["name"] for category in coco["categories"]] == list(LABELS)
    assert len(coco["annotations"]) == 60
    with Path(f"{target}.csv").open(newline="") as table:
        assert len(list(csv.DictReader(table))) == 60


def test_an_annotated_film_has_its_boxes_and_its_sound(tmp_path: Path) -> None:
    clip = make_clip(tmp_path, Clip(size=(288, 512), frames=30, sound="aac"))
    encode = 'format = "annotated"\noptions = { crf = 12, labels = false, scores = false }'
    target = run(pipeline("a", encode, planes=True), clip, tmp_path / "out", tmp_path / "cache")
    with av.open(f"{target}.mp4") as film:
        assert [stream.type for stream in film.streams] == ["video", "audio"]
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == 30
    for frame in frames[::7]:
        for number, (left, _, right, bottom) in enumerate(np.rint(expected(288, 512)).astype(int).tolist()):
            line = frame[bottom - 2 : bottom, left + 4 : right - 4].astype(int).mean(axis=(0, 1))
            assert abs(line - class_colour(number)).max() < 40
