"""Taggers as people have them, with seeded random weights: WD's and DeepDanbooru's graphs and lists of tags.

And what a plain script of Pillow, NumPy and ONNX Runtime answers with them, which shares no code with rigflow.
"""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import helper, numpy_helper
from PIL import Image, ImageOps

from tests.onnx_graphs import FLOAT, model_of, value

Array = np.ndarray[Any, Any]
WD_TAGS = 10_861  # of the v3 models
RATINGS = ("general", "sensitive", "questionable", "explicit")
NAMES = ("1girl", "long_hair", "^_^", ":d", "o_o", "hatsune_miku_(vocaloid)", "saber_(fate)", "open mouth")
_GRID, _CHANNELS = 7, 8


def tagger(tags: int, side: int = 448, batch: int | str = "N", scale: float = 1 / 255) -> bytes:
    """`input [batch, side, side, 3]` -> `predictions_sigmoid [batch, tags]`, float32; it sees where colours are.

    `scale` makes values of 0 ... 1 of its input.
    """
    random, cell = np.random.default_rng(tags), side // (4 * _GRID)
    kernel = random.standard_normal((_CHANNELS, 3, cell, cell)).astype("f4") / cell
    weights = random.standard_normal((_CHANNELS * _GRID**2, tags)).astype("f4") * 0.4
    kept = [
        numpy_helper.from_array(np.array(scale, "f4"), "scale"),
        numpy_helper.from_array(kernel, "kernel"),
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(random.normal(-2, 1.5, tags).astype("f4"), "bias"),
    ]
    nodes = [
        helper.make_node("Mul", ["input", "scale"], ["unit"]),
        helper.make_node("Transpose", ["unit"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel"], ["conv"], strides=[cell] * 2),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("AveragePool", ["relu"], ["pool"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["predictions_sigmoid"]),
    ]
    taken, given = [value("input", FLOAT, [batch, side, side, 3])], [value("predictions_sigmoid", FLOAT, [batch, tags])]
    return model_of(nodes, taken, given, tuple(kept))


def wd_rows(tags: int) -> list[tuple[str, str]]:
    """Name and category of each tag, as in `selected_tags.csv`: 9 rating, 0 general, 4 character."""
    rows = [(name, "9") for name in RATINGS]
    rows += [(name, "4" if "(" in name else "0") for name in NAMES]
    rows += [(f"tag_{number}", "0" if number % 5 else "4") for number in range(tags - len(rows))]
    return rows[:tags]


def wd_folder(folder: Path, tags: int = 60, batch: int | str = "N") -> Path:
    """A folder as of a download: model.onnx and selected_tags.csv."""
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(tagger(tags, batch=batch, scale=1 / 255))
    with (folder / "selected_tags.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("tag_id", "name", "category", "count"))
        table.writerows((number, *row, 1000) for number, row in enumerate(wd_rows(tags)))
    return folder


def on_white(path: Path) -> Image.Image:
    """A picture as RGB, upright, transparency laid on white."""
    picture = ImageOps.exif_transpose(Image.open(path)).convert("RGBA")
    canvas = Image.new("RGB", picture.size, (255, 255, 255))
    canvas.paste(picture, mask=picture.split()[-1])
    return canvas


def wd_scores(folder: Path, paths: list[Path], side: int = 448) -> Array:
    """The scores `[N, tags]` of pictures, by a WD tagger's own recipe: white square, bicubic, BGR 0 ... 255."""
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    rows = []
    for path in paths:
        picture = on_white(path)
        longest = max(picture.size)
        square = Image.new("RGB", (longest, longest), (255, 255, 255))
        square.paste(picture, ((longest - picture.width) // 2, (longest - picture.height) // 2))
        if longest != side:
            square = square.resize((side, side), Image.Resampling.BICUBIC)
        values = np.asarray(square, np.float32)[None, :, :, ::-1]
        rows.append(session.run(None, {"input": np.ascontiguousarray(values)})[0][0])
    return np.stack(rows)


def wd_tags(scores: Array, general: float = 0.35, character: float = 0.85) -> dict[str, float]:
    """The tags of one picture: the best rating, and all above the threshold of their category."""
    rows = wd_rows(len(scores))
    ratings = [number for number, (_, category) in enumerate(rows) if category == "9"]
    least = {"0": general, "4": character, "9": np.inf}
    kept = {number for number, (_, category) in enumerate(rows) if scores[number] > least[category]}
    kept.add(max(ratings, key=lambda number: scores[number]))
    return {rows[number][0]: float(scores[number]) for number in kept}
