"""Heads on what real models make of real pictures, against references that share no code with the product."""

from collections.abc import Mapping, Sequence

import av
import numpy as np
import onnxruntime
import pytest
from PIL import Image

from engines.heads.classify import Classify
from engines.heads.detect import Detect
from engines.heads.image import ImageHead
from engines.heads.keypoints import Keypoints
from engines.heads.view import view_of
from schemas.picture import PictureSpec
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
        answers = kept(view, nanodet_boxes(outputs, number), threshold=0.35, nms=0.6, most=300, class_aware=True)
        assert found["classes"].row(number).tolist() == [answer.label for answer in answers]
        np.testing.assert_allclose(found["scores"].row(number), [answer.score for answer in answers], atol=1e-6)
        expected = np.array([in_source(view, answer.corners) for answer in answers]).reshape(-1, 4)
        np.testing.assert_allclose(found["boxes"].row(number), expected, atol=1e-3)
    for number in (1, 3):  # a rider and a man in a car: persons
        assert found["classes"].row(number)[0] == 0
        assert found["scores"].row(number)[0] > 0.7


def test_efficientnet_knows_what_the_reference_knows() -> None:
    pictures = [*pictures_of("bikes", (120,)), *pictures_of("carphone_pristine", (10,))]
    batch = []
    for picture in pictures:
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        cut = picture.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BOX)
        batch.append(((np.asarray(cut, np.float32) - 127) / 128).transpose(2, 0, 1))
    outputs = run("efficientnet-lite0.onnx", [np.ascontiguousarray(each) for each in batch])
    views = [view_of((picture.height, picture.width), PictureSpec(size=(224, 224), fit="crop")) for picture in pictures]
    found = Classify({"activation": "softmax", "top": 3}, described(outputs), None).decode(outputs, views)
    for number, logits in enumerate(outputs["logits"].tolist()):
        scores = softmax(logits)
        expected = sorted(range(1000), key=lambda label: -scores[label])[:3]
        assert found["classes"][number].tolist() == expected
        np.testing.assert_allclose(found["scores"][number], [scores[label] for label in expected], rtol=1e-4)
    assert found["classes"][:, 0].tolist() == [880, 457]  # unicycle, bow tie
    assert (found["scores"][:, 0] > 0.5).all()


def face_crop(picture: Image.Image, box: tuple[int, int, int, int]) -> np.ndarray:
    """`[48, 48, 3]` as O-Net takes it: columns before rows, in this copy of the model."""
    cut = picture.crop(box).resize((48, 48), Image.Resampling.BOX)
    return ((np.asarray(cut, np.float32) - 127.5) / 128).transpose(1, 0, 2)


def test_mtcnn_finds_the_points_of_a_face() -> None:
    (picture,) = pictures_of("carphone_pristine", (10,))
    outputs = {"points": "dense_6", "boxes": "dense_5", "scores": "softmax_2"}
    given = run("mtcnn/onet.onnx", [np.ascontiguousarray(face_crop(picture, (40, 10, 120, 90)))])
    spec = PictureSpec(size=(48, 48))
    head = Keypoints({"decoder": "mtcnn", "points": 5, "threshold": 0}, described(given), spec)
    found = head.decode(given, [view_of((80, 80), spec)])
    reg, points, score = (given[outputs[name]][0].tolist() for name in ("boxes", "points", "scores"))
    corners = [min(max(place + 80 * shift, 0), 80) for place, shift in zip((0, 0, 80, 80), reg, strict=True)]
    expected = [[min(max(80 * points[k], 0), 80), min(max(80 * points[k + 5], 0), 80), 1] for k in range(5)]
    np.testing.assert_allclose(found["boxes"].row(0), [corners], rtol=1e-4)
    np.testing.assert_allclose(found["scores"].row(0), [score[1]], rtol=1e-5)
    np.testing.assert_allclose(found["keypoints"].row(0), [expected], rtol=1e-4)


@pytest.mark.parametrize("transposed", [False, True])
def test_p_net_finds_what_the_reference_finds(transposed: bool) -> None:
    (picture,) = pictures_of("carphone_pristine", (10,))
    small = picture.resize((picture.width // 5, picture.height // 5), Image.Resampling.BOX)
    values = (np.asarray(small, np.float32) - 127.5) / 128
    given = run("mtcnn/pnet.onnx", [np.ascontiguousarray(values.swapaxes(0, 1)) if transposed else values])
    spec = PictureSpec(size=(small.height, small.width))
    head = Detect({"decoder": "mtcnn", "threshold": 0.05, "nms": 0.5, "transposed": transposed}, described(given), spec)
    found = head.decode(given, [view_of((small.height, small.width), spec)])
    boxes = []
    for place in np.ndindex(given["softmax"].shape[1:3]):
        row, column = place[::-1] if transposed else place
        corners = (column * 2, row * 2, column * 2 + 12, row * 2 + 12)
        reg, score = given["conv2d_4"][0, *place].tolist(), float(given["softmax"][0, *place, 1])
        boxes.append(Box([side + 12 * shift for side, shift in zip(corners, reg, strict=True)], {0: score}))
    view = view_of((small.height, small.width), spec)
    expected = [in_source(view, answer.corners) for answer in kept(view, boxes, 0.05, 0.5, 300, True)]
    assert len(expected) > 0
    np.testing.assert_allclose(found["boxes"].row(0), expected, atol=1e-4)


def test_an_upscaled_frame_is_the_references() -> None:
    (picture,) = pictures_of("carphone_pristine", (10,))
    small = np.asarray(picture.crop((60, 20, 100, 50)))  # 30 x 40, padded to 32 x 64
    padded = np.zeros((32, 64, 3), np.uint8)
    padded[:30, :40] = small
    given = run("realesr-animevideov3-x4.onnx", [(padded / np.float32(255)).transpose(2, 0, 1)])
    spec = PictureSpec(size="source", multiple=32)
    found = ImageHead({}, described(given), spec).decode(given, [view_of((30, 40), spec)])["image"]
    values = given["output"][0, :, :120, :160].astype(float)
    expected = np.round(np.minimum(np.maximum(values, 0), 1) * 255).transpose(1, 2, 0)
    assert found.shape == (1, 120, 160, 3)
    assert np.abs(found[0] - expected).max() <= 1
    assert (found[0] != expected).mean() < 1e-3
