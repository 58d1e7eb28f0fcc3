"""Reads the files that contestants wrote as numbers, and compares them."""

import json
from collections.abc import Mapping
from pathlib import Path

import av
import numpy as np

from engines.part import Array

TOLERANCE = 2e-4  # of descriptors, scores and features: batches of another size round differently
PICTURE_TOLERANCE = (
    1.0  # of 255, of all thumbnails' mean: encoders whose groups begin at other frames lose other detail
)
_THUMBNAIL = 16


def read_answers(out: Path) -> dict[str, Array]:
    """Every answer in a folder, by file and name: arrays of npz, rows of jsonl, thumbnails `[F, 16, 16]` of mp4."""
    answers: dict[str, Array] = {}
    for path in sorted(out.iterdir()):
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                named = {f"{path.name}/{name}": arrays[name] for name in arrays.files}
                answers |= {name: array for name, array in named.items() if array.dtype.kind == "f"}
        elif path.suffix == ".jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            answers[path.name] = np.array([[row["start"], row["end"], row["score"]] for row in rows])
        elif path.suffix == ".mp4":
            with av.open(path) as container:
                size = _THUMBNAIL, _THUMBNAIL, "gray"
                answers[path.name] = np.stack(
                    [
                        frame.reformat(*size, interpolation="AREA").to_ndarray().astype(np.float32)
                        for frame in container.decode(video=0)
                    ]
                )
    return answers


def difference(found: Mapping[str, Array], expected: Mapping[str, Array]) -> str:
    """What is different beyond tolerance, in words; empty when nothing is."""
    if found.keys() != expected.keys():
        return f"answers {', '.join(sorted(found.keys() ^ expected.keys())[:4])} on one side only"
    for name, array in found.items():
        wanted = expected[name]
        if array.shape != wanted.shape:
            return f"{name} has shape {list(array.shape)}, not {list(wanted.shape)}"
        off = np.abs(array - wanted)
        pictures = name.endswith(".mp4")
        if off.size and (off.mean() > PICTURE_TOLERANCE if pictures else off.max() > TOLERANCE):
            return f"{name} is off by up to {off.max():.2g}, {off.mean():.2g} on average"
    return ""


def summary(answers: Mapping[str, Array]) -> dict[str, float]:
    """Rows and mean of all answers, by which the answers of a whole workload are compared."""
    rows = sum(len(array) for array in answers.values())
    return {"rows": rows, "mean": float(np.mean([array.mean() for array in answers.values() if array.size]))}
