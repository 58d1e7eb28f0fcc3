"""Heads on what real models make of real pictures, against references that share no code with the product."""

from collections.abc import Mapping, Sequence

import av
import numpy as np
import onnxruntime
import pytest
from PIL import Image

from engines.heads.detect import Detect
from engines.heads.view import view_of
from schemas.model import PictureSpec
from tests.clips import real_clip
from tests.unit.detector_cases import best, softmax
from tests.unit.head_reference import Box, described, in_source, kept
from tests.weights import weights

pytestmark = pytest.mark.models
CPU = ["CPUExecutionProvider"]
NANODET_MEAN, NANODET_STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)  # of blue, green, red


def pictures_of(clip: str, frames: Sequence[int]) -> list[Image.Image]:
    with av.open(str(real_clip(clip))) as container:
        found = {number: frame for number, frame in enumerate(container.decode(video=0)) if number in frames}
    return [found[number].to_image() for number in frames]


def letterboxed(picture: Image.Image, side: int) -> np.ndarray:
    """`[side, side, 3]` uint8 RGB, the picture in the middle."""
    ratio = side / max(picture.size)
    size = round(picture.width * ratio), round(picture.height * ratio)
    canvas = Image.new("RGB", (side, side))
    canvas.paste(picture.resize(size, Image.Resampling.BILINEAR), ((side - size[0]) // 2, (side - size[1]) // 2))
    return np.asarray(canvas)


def run(model: str, batch: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs for pictures of a batch, each run alone."""
    session = onnxruntime.InferenceSession(weights(model), providers=CPU)
    name = session.get_inputs()[0].name
    answers = [session.run(None, {name: each[None]}) for each in batch]
    names = [output.name for output in session.get_outputs()]
    return {name: np.concatenate(rows) for name, rows in zip(names, zip(*answers, strict=True), strict=True)}


def nanodet_boxes(o: Mapping[str, np.ndarray], number: int) -> list[Box]:
    """The candidates of one picture, a cell at a time."""
    found = []
    for stride in (8, 16, 32):
        for place, scores in enumerate(o[f"scores_s{stride}"][number].tolist()):
            if max(scores) < 0.3:
                continue
            row, column = divmod(place, 416 // stride)
            raw = o[f"regs_s{stride}"][number, place].tolist()
            sides = [sum(n * share for n, share in enumerate(softmax(raw[11 * k : 11 * k + 11]))) for k in range(4)]
            signs = (-1, -1, 1, 1)
            corners = [((row if k % 2 else column) + 0.5 + signs[k] * sides[k]) * stride for k in range(4)]
            found.append(Box([min(max(each, 0), 416) for each in corners], best(scores)))
    return found


def test_nanodet_finds_what_the_reference_finds() -> None:
    pictures = [*pictures_of("bikes", (60, 120, 200)), *pictures_of("carphone_pristine", (10,))]
    bgr = [letterboxed(picture, 416)[..., ::-1] for picture in pictures]
    batch = [((each - np.float32(NANODET_MEAN)) / np.float32(NANODET_STD)).transpose(2, 0, 1) for each in bgr]
    outputs = run("nanodet_g_416.onnx", [np.ascontiguousarray(each) for each in batch])
    spec = PictureSpec(size=(416, 416), fit="letterbox")
    views = [view_of((picture.height, picture.width), spec) for picture in pictures]
    found = Detect({"decoder": "nanodet", "reg_max": 10}, described(outputs), spec).decode(outputs, views)
    for number, view in enumerate(views):
        answers = kept(nanodet_boxes(outputs, number), threshold=0.35, nms=0.6, most=300, class_aware=True)
        assert found["classes"].row(number).tolist() == [answer.label for answer in answers]
        np.testing.assert_allclose(found["scores"].row(number), [answer.score for answer in answers], atol=1e-6)
        expected = np.array([in_source(view, answer.corners) for answer in answers]).reshape(-1, 4)
        np.testing.assert_allclose(found["boxes"].row(number), expected, atol=1e-3)
    for number in (1, 3):  # a rider and a man in a car: persons
        assert found["classes"].row(number)[0] == 0
        assert found["scores"].row(number)[0] > 0.7
