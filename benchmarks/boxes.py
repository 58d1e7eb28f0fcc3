"""Measures the way from a detector's outputs to boxes on the host: `python -m benchmarks.boxes [--short]`.

The outputs are what a GPU selects of those of a network in the shape of YOLOv8 with 80 classes: 64 pictures with some
candidates each, in groups around objects. Times are milliseconds of CPU a batch, the least of several runs: of the head
detect with suppression in rounds, as an earlier version had it, and as it is now, whose boxes are compared; of what is
before it; and of the infer stage with a session that takes no other time,.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from engines.cuda.reductions import _COUNT, Output, _Selecting
from engines.heads.boxes import Candidates
from engines.heads.detect import Detect
from engines.heads.suppression import Overlap
from engines.heads.view import view_of
from engines.inference.batch import infer_parts
from engines.inference.heads import Heads
from engines.part import Array, Part, Value
from engines.planned import FRAME_SIZE, INDEX, Tensor, model_picture_name
from engines.ragged import Ragged
from schemas.jobs import JobRef, Key
from schemas.media import MediaInfo
from schemas.model import HeadSpec, ModelSpec, TensorSpec
from schemas.parts import PartMeta
from schemas.picture import PictureSpec
from schemas.pipeline import OperatorStage

ROWS, PART, SIDE, CLASSES = 64, 8, 320, 80  # pictures of a batch and of a part
PLACES = 2100  # of a picture of that side
COUNTS = (56, 300, 2000)  # candidates of a picture
SECONDS = 1.5
AROUND = 8  # candidates of one object
PICTURE = PictureSpec(size=(SIDE, SIDE), fit="letterbox", resize="bilinear")
SOURCE = (720, 1280)


class InRounds(Detect):
    """Each round keeps the best candidate of every group, and drops those that overlap with it."""

    def _chosen(self, candidates: Candidates, overlap: Overlap) -> Array:
        options, rows, scores = self._options, candidates.rows, candidates.scores
        groups = rows * (int(candidates.classes.max()) + 1) + candidates.classes if options.class_aware else rows
        left, columns, kept = np.lexsort((-scores, groups)), np.ascontiguousarray(candidates.boxes.T), []
        for _ in range(options.max):
            if not len(left):
                break
            group = groups[left]
            starts = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
            kept.append(left[starts])
            best = np.repeat(left[starts], np.diff(np.append(starts, len(left))))
            dropped = _shares(np.take(columns, best, axis=1), np.take(columns, left, axis=1)) > options.nms
            dropped[starts] = True
            left = left[~dropped]
        found = np.sort(np.concatenate(kept))
        ordered = found[np.lexsort((found, -scores[found], rows[found]))]
        row = rows[ordered]
        return np.asarray(ordered[np.arange(len(row)) - np.searchsorted(row, row) < options.max])


def _shares(first: Array, second: Array) -> Array:
    width = np.maximum(np.minimum(first[2], second[2]) - np.maximum(first[0], second[0]), 0)
    height = np.maximum(np.minimum(first[3], second[3]) - np.maximum(first[1], second[1]), 0)
    areas = [(each[2] - each[0]) * (each[3] - each[1]) for each in (first, second)]
    return np.asarray(width * height / (areas[0] + areas[1] - width * height))


class Prepared:
    """A session whose outputs are there at once, as the kernels of a GPU left them."""

    in_flight, batch_bytes = 2, 1 << 30

    def __init__(self, spec: ModelSpec, count: int) -> None:
        self.spec = spec
        self._selecting, self._records = selected_records(Heads(spec), count)

    def most_rows(self, row_bytes: int) -> int:
        return ROWS

    def start(self, inputs: Mapping[str, Any], room: int = 0) -> Callable[[], dict[str, Value]]:
        return self.outputs

    def outputs(self) -> dict[str, Value]:
        return self._selecting.selected(self._records)


def selected_records(heads: Heads, count: int) -> tuple[_Selecting, Array]:
    """The selection of a batch with `count` candidates a picture, and the records that its kernel writes."""
    [selection] = heads.reductions
    block: Any = None  # nothing is read from it
    selecting = _Selecting(selection, [Output(np.dtype(np.float32), (ROWS, 4 + CLASSES, PLACES), block)])
    random = np.random.default_rng(0)
    records = np.zeros((ROWS * count, selecting.record_bytes // 4), np.float32)
    for row in range(ROWS):
        mine, objects = records[row * count : (row + 1) * count], -(-count // AROUND)
        places = np.sort(random.choice(PLACES, count, replace=False))
        mine[:, :1].view(_COUNT)[:, 0] = row * PLACES + places
        of = random.integers(0, objects, count)
        centers, sides = random.uniform(0, SIDE, (objects, 2)), np.exp(random.uniform(2.5, 5, (objects, 2)))
        mine[:, 1:3] = centers[of] + random.normal(0, 0.06, (count, 2)) * sides[of]
        mine[:, 3:5] = sides[of] * np.exp(random.normal(0, 0.1, (count, 2)))
        mine[:, 5:] = random.uniform(0, 0.1, (count, CLASSES))
        classes = random.integers(0, CLASSES, objects) * random.integers(0, 2, objects)  # half of them are one class
        mine[np.arange(count), 5 + classes[of]] = random.uniform(0.26, 1, count)
    return selecting, random.permutation(records).reshape(-1).view(np.uint8)


def model(**options: Any) -> ModelSpec:
    """The card of the network."""
    return ModelSpec(
        name="detector",
        sha256="0" * 64,
        inputs=(TensorSpec(name="images", dtype="uint8", shape=("N", SIDE, SIDE, 3), picture=PICTURE),),
        outputs=(TensorSpec(name="output0", dtype="float32", shape=("N", 4 + CLASSES, PLACES)),),
        heads=(HeadSpec(kind="detect", options={"decoder": "yolov8", **options}),),
    )


def part(number: int) -> Part:
    """`PART` frames of 720p, without pixels."""
    pictures = np.broadcast_to(np.zeros(1, np.uint8), (PART, SIDE, SIDE, 3))
    arrays: dict[str, Any] = {model_picture_name("infer", "images"): pictures}
    arrays |= {INDEX: np.arange(PART, dtype=np.int32)[:, None], FRAME_SIZE: np.full((PART, 2), SOURCE, np.int32)}
    key = Key(job=JobRef(id="bench", pipeline="bench", revision="0" * 16), segment=number, part=0, last=True)
    media = MediaInfo(kind="video", width=SOURCE[1], height=SOURCE[0])
    return Part(PartMeta(key=key, media=media, pts=tuple(range(PART)), frames=PART), arrays)


def least_ms(runs: Sequence[Callable[[], object]], seconds: float) -> list[float]:
    """The least CPU time of each, run in turn: other programs may use the machine, too."""
    least, end_s = [float("inf")] * len(runs), time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        for number, run in enumerate(runs):
            began_s = time.thread_time()
            run()
            least[number] = min(least[number], 1000 * (time.thread_time() - began_s))
    return least


def measured(count: int, class_aware: bool, seconds: float) -> str:
    """One line of figures. Boxes differ from those of the earlier version: AssertionError."""
    spec = model(class_aware=class_aware)
    session, views = Prepared(spec, count), [view_of(SOURCE, PICTURE)] * ROWS
    described = {"output0": Tensor("float32", ("N", 4 + CLASSES, PLACES))}
    before, now = (kind(spec.heads[0].options, described, PICTURE) for kind in (InRounds, Detect))
    outputs = session.outputs()
    found = now.decode(outputs, views)
    check_equal(found, before.decode(outputs, views))
    stage = OperatorStage(kind="infer", name="infer", model=spec.name, max_batch=ROWS)
    given: Any = session
    heads, parts = Heads(spec), [part(number) for number in range(ROWS // PART)]
    runs = [lambda: before.decode(outputs, views), lambda: now.decode(outputs, views), session.outputs]
    old, new, selected = least_ms(runs, seconds)
    [step] = least_ms([lambda: infer_parts(stage, given, parts, heads=heads)], seconds)
    boxes = len(found["scores"].values) / ROWS  # type: ignore[union-attr]
    figures = (f"{each:10.2f}" for each in (old, new, selected, step))
    return f"{count:10} {'yes' if class_aware else 'no':>11} {boxes:6.1f} {''.join(figures)}"


def check_equal(found: Mapping[str, Value], expected: Mapping[str, Value]) -> None:
    """Compare all boxes, bit for bit."""
    for name, value in expected.items():
        other = found[name]
        assert isinstance(value, Ragged)
        assert isinstance(other, Ragged)
        assert (value.values.tobytes(), value.offsets.tobytes()) == (other.values.tobytes(), other.offsets.tobytes())


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="as a check")
    options = parser.parse_args(arguments)
    print("candidates class_aware  boxes  in rounds      head  selected     stage  (ms a batch of 64)")
    with ThreadPoolExecutor(1) as thread:  # as in a worker; the main thread's memory is given back after each batch
        for count in COUNTS:
            for class_aware in (True, False):
                seconds = 0.05 if options.short else SECONDS
                print(thread.submit(measured, count, class_aware, seconds).result(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
