"""The operator crop against SciPy and a singular value decomposition, and models that run over its pictures."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from engines.inference.batch import infer_parts
from engines.inference.filling import rows_of
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.inference.work import Begun
from engines.models.graph import FLOAT, Graph
from engines.operators.crop import Crop
from engines.operators.paste import Paste
from engines.part import Part
from engines.planned import Tensor
from engines.ports import BatchCounts, RowKind
from engines.ragged import Ragged
from engines.warp import inverse, product, quadrilateral, similarity, warped
from schemas.errors import ModelError, PipelineError
from schemas.jobs import JobRef, Key
from schemas.media import MediaInfo
from schemas.parts import PartMeta
from schemas.pipeline import OperatorStage
from tests.cases import drawn
from tests.faces import SHAPE, centres, drawn_faces, face, psnr, restored, restorer, with_faces
from tests.unit.test_inference import Counting, good, session_of, tensor, wider

Array = np.ndarray[Any, Any]
FFHQ = np.array([[192.98, 239.95], [318.90, 240.19], [256.63, 314.02], [201.26, 371.41], [313.09, 371.15]]) / 512


def ragged(rows: list[Array]) -> Ragged:
    return Ragged.of([np.asarray(row) for row in rows])


def umeyama(points: Array, template: Array) -> Array:
    """The similarity as in the paper, equations 38 to 42, by NumPy's decomposition."""
    mean, to = points.mean(0), template.mean(0)
    spread = ((points - mean) ** 2).sum(1).mean()
    u, d, v = np.linalg.svd((template - to).T @ (points - mean) / len(points))
    sign = np.diag([1, np.sign(np.linalg.det(u) * np.linalg.det(v))])
    rotation, scale = u @ sign @ v, (d * np.diag(sign)).sum() / spread
    made = np.eye(3)
    made[:2, :2], made[:2, 2] = scale * rotation, to - scale * rotation @ mean
    return made


@given(st.floats(-180, 180), st.floats(0.1, 50), st.floats(-500, 500), st.floats(-500, 500), st.integers(0, 1 << 30))
def test_a_similarity_is_that_of_least_squares(degrees: float, eyes: float, x: float, y: float, seed: int) -> None:
    points = face(x, y, eyes, degrees) + np.random.default_rng(seed).normal(0, eyes / 20, (5, 2))
    found = similarity(points, 512 * FFHQ)
    assert found is not None
    np.testing.assert_allclose(found, umeyama(points, 512 * FFHQ), rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(product(found, inverse(found)), np.eye(3), atol=1e-6)


def test_points_in_one_place_have_no_similarity() -> None:
    assert similarity(np.ones((5, 2)), FFHQ) is None
    assert similarity(np.full((5, 2), np.nan), FFHQ) is None
    assert similarity(SHAPE * 1e200, FFHQ) is None


@given(st.lists(st.tuples(st.floats(0, 99), st.floats(0, 99)), min_size=4, max_size=4))
def test_a_quadrilateral_has_its_corners(corners: list[tuple[float, float]]) -> None:
    sides = [np.subtract(corners[n - 1], corners[n - 2]) for n in range(4)]
    turns = [sides[n - 1][0] * sides[n][1] - sides[n - 1][1] * sides[n][0] for n in range(4)]
    if min(turns) < 1 and max(turns) > -1:
        return  # not convex
    matrix = quadrilateral(np.array(corners), (30, 200))
    assert matrix is not None
    placed = matrix @ np.array([[0, 200, 200, 0], [0, 0, 30, 30], [1, 1, 1, 1]])
    np.testing.assert_allclose((placed[:2] / placed[2]).T, corners, atol=1e-6)


def sampled(picture: Array, matrix: Array, size: tuple[int, int], border: Array) -> Array:
    """Bilinear samples at the centres of pixels, `border` outside, by SciPy in float64."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    x, y, scale = np.einsum("ij,jhw->ihw", matrix, np.stack([columns + 0.5, rows + 0.5, np.ones(size)]))
    places = np.stack([y / scale - 0.5, x / scale - 0.5])
    made = [ndimage.map_coordinates(picture[..., c].astype(float), places, order=1, mode="nearest") for c in range(3)]
    height, width = picture.shape[:2]
    outside = ~((x / scale >= 0) & (x / scale < width) & (y / scale >= 0) & (y / scale < height))
    return np.where(outside[..., None], border, np.stack(made, -1))


@settings(max_examples=40)
@given(st.floats(-180, 180), st.floats(0.3, 1.9), st.integers(-20, 90), st.integers(-20, 90))
def test_pictures_are_bilinear_samples(degrees: float, scale: float, x: int, y: int) -> None:
    picture, turn = drawn((80, 100), 3), np.deg2rad(degrees)
    matrix = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    matrix = np.array([[1, 0, x], [0, 1, y], [0, 0, 1]]) @ matrix @ np.diag([scale, scale, 1])
    made = warped(picture, matrix, (24, 32), (9, 8, 7))
    expected = sampled(picture, matrix, (24, 32), np.array([9, 8, 7]))
    differs = np.abs(made - expected).max(-1) > 0.51
    assert differs.mean() < 0.01  # the edge of the frame may lie on either side of a pixel's centre


def test_pictures_that_shrink_leave_no_pixel_out() -> None:
    picture = drawn((60, 90), 1)
    made = warped(picture, np.diag([3.0, 3.0, 1.0]), (20, 30))
    np.testing.assert_allclose(made, picture.reshape(20, 3, 30, 3, 3).mean((1, 3)), atol=0.51)


def stage(**options: Any) -> OperatorStage:
    return OperatorStage(kind="crop", name="crop", options={"size": [64, 64], **options})


def part(pixels: Array, **arrays: Any) -> Part:
    job = JobRef(id="j", pipeline="p", revision="r")
    meta = PartMeta(key=Key(job=job, segment=0), media=MediaInfo(kind="video"), pts=tuple(range(len(pixels))))
    return Part(meta, {"pixels": pixels, "index": np.arange(len(pixels), dtype=np.int32)[:, None], **arrays})


def values(part: Part, name: str) -> Ragged:
    value = part.arrays[name]
    assert isinstance(value, Ragged)
    return value


def test_faces_of_three_frames() -> None:
    """One, none and two; of the last one's second the score is too small."""
    frames = np.stack([drawn((80, 100), n) for n in range(3)])
    points = [np.concatenate([face(50, 30, 12 + n, 20.0 * n), np.ones((5, 1))], axis=1) for n in range(3)]
    given = part(
        frames,
        boxes=ragged([np.ones((1, 4)), np.ones((0, 4)), np.ones((2, 4))]),
        scores=ragged([np.array([0.9]), np.zeros(0), np.array([0.8, 0.3])]),
        keypoints=ragged([np.stack(points[:1]), np.zeros((0, 5, 3)), np.stack(points[1:])]),
    )
    made = Crop(stage(least_score=0.5, border=[1, 2, 3]), None).apply(given)
    crops, matrices = made["crops"], made["crop_matrix"]
    assert isinstance(crops, Ragged)
    assert isinstance(matrices, Ragged)
    assert crops.offsets.tolist() == matrices.offsets.tolist() == [0, 1, 1, 2]
    assert isinstance(made["scores"], Ragged)
    assert made["scores"].values.tolist() == [0.9, 0.8]
    for crop, matrix, frame, place in zip(crops.values, matrices.values, frames[[0, 2]], points[:2], strict=True):
        centres = np.linalg.inv(umeyama(place[:, :2], 64 * FFHQ))
        shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        in_pixels = matrix @ np.diag([1 / 64, 1 / 64, 1])
        np.testing.assert_allclose(in_pixels, shift @ centres @ np.linalg.inv(shift), atol=1e-2)
        np.testing.assert_array_less(np.abs(crop - sampled(frame, in_pixels, (64, 64), np.array([1, 2, 3]))), 1.01)


def test_lines_of_text_are_padded_or_squeezed() -> None:
    """The second one is written downwards, and is turned: its upper right corner comes first."""
    frame = drawn((80, 100), 2)
    lines = np.array(
        [
            [[10, 10], [50, 10], [50, 20], [10, 20]],
            [[60, 5], [70, 5], [70, 75], [60, 75]],
            [[0, 0], [9, 0], [9, 9], [0, 9]],
        ]
    )
    made = Crop(stage(by="corners", size=[20, 1], widths=[40, 90], width_step=30, pad_value=7), None).apply(
        part(frame[None], corners=ragged([lines.astype(np.float32)]))
    )
    crops, widths = made["crops"], made["crops_width"]
    assert isinstance(crops, Ragged)
    assert isinstance(widths, Ragged)
    assert crops.values.shape == (3, 20, 90, 3)
    assert widths.values.tolist() == [90, 90, 40]  # 80, 140 that does not fit, 20
    first, second, third = (crop.astype(int) for crop in crops.values)
    assert (first[:, 80:] == 7).all()
    assert (third[:, 20:] == 7).all()
    twice = ndimage.zoom(frame[10:20, 10:50].astype(float), (2, 2, 1), order=1, mode="nearest", grid_mode=True)
    assert np.abs(first[:, :80] - twice).max() <= 1
    turned = np.rot90(frame[5:75, 60:70]).astype(float)
    squeezed = ndimage.zoom(turned, (2, 90 / 70, 1), order=1, mode="nearest", grid_mode=True)
    assert np.abs(second - squeezed).max() <= 40  # a pixel's shift
    assert np.abs(second - squeezed).mean() < 8


def test_boxes_are_stretched() -> None:
    frame = drawn((80, 100), 2)
    made = Crop(stage(by="boxes", size=[20, 30]), None).apply(
        part(frame[None], boxes=ragged([np.array([[10, 20, 70, 60.0]])]))
    )
    crops = made["crops"]
    assert isinstance(crops, Ragged)
    np.testing.assert_allclose(crops.values[0], frame[20:60, 10:70].reshape(20, 2, 30, 2, 3).mean((1, 3)), atol=0.51)


def test_places_far_outside_of_the_frame_cost_nothing() -> None:
    far = np.array([[[0, 0], [3e38, 0], [3e38, 9], [0, 9]], [[np.nan, 0], [1, 0], [1, 1], [0, 1]]], np.float32)
    made = Crop(stage(by="corners"), None).apply(part(drawn((80, 100), 2)[None], corners=ragged([far])))
    assert len(made["crops"].values) <= 1  # type: ignore[union-attr]
    faces = np.stack([np.c_[SHAPE * scale, np.ones(5)] for scale in (1e-30, 1.0, 1e18, 1e30)]).astype(np.float32)
    Crop(stage(), None).apply(part(drawn((80, 100), 2)[None], keypoints=ragged([faces])))


FRAMES = {"pixels": Tensor("uint8", ("F", "H", "W", 3)), "index": Tensor("int32", ("W", 1))}
POINTS = Tensor("float32", ("W", "count", 5, 3), ragged=True)


@pytest.mark.parametrize(
    ("options", "arrays", "text"),
    [
        ({}, {"keypoints": POINTS}, "wants the frames"),
        ({}, FRAMES, "wants `keypoints` of a head"),
        ({"template": [[0.5, 0.5]]}, {**FRAMES, "keypoints": POINTS}, "5 keypoints for 1 places"),
        ({"widths": [9, 9]}, {**FRAMES, "keypoints": POINTS}, "widths are for corners"),
        ({"border": [1, 2]}, {**FRAMES, "keypoints": POINTS}, "border"),
    ],
)
def test_what_a_plan_refuses(options: dict[str, Any], arrays: dict[str, Tensor], text: str) -> None:
    with pytest.raises(PipelineError, match=text):
        Crop(stage(**options), None).plan(arrays)


OVER_CROPS = OperatorStage(kind="infer", name="infer", model="tiny", max_batch=4, items="x")


def items_part(random: np.random.Generator, per_window: list[int], with_widths: bool) -> Part:
    """Windows with so many items of 2 x 6 each, of which some are 2 wide."""
    offsets = np.cumsum([0, *per_window])
    items = Ragged(random.integers(0, 255, (offsets[-1], 2, 6), dtype=np.uint8), offsets)
    widths = Ragged(random.choice([2, 6], offsets[-1]).astype(np.int32), offsets)
    return part(np.zeros((len(per_window), 1, 1)), x=items, **({"x_width": widths} if with_widths else {}))


def adder() -> OnnxRuntimeSession:
    """`x [N, H, W]` -> `y [N]`, its sum."""
    graph = Graph()
    graph.op("ReduceSum", graph.op("Cast", "x", to=FLOAT), np.array([1, 2]), keepdims=0, result="y")
    return session_of(graph, [tensor("x", "uint8", "N", "H", "W")], [tensor("y", "float32", "N")])


def batches_of(session: Counting, parts: Iterable[Part]) -> int:
    """How many full batches parts have rows for, of the kind that has most."""
    rows = Counter[RowKind]()
    for each in parts:
        rows.update(rows_of(OVER_CROPS, session, each))
    return max((count // kind.limit for kind, count in rows.items()), default=0)


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 3), max_size=4), min_size=1, max_size=9), st.booleans())
def test_rows_that_fill_no_batch_wait_for_a_fuller_one(counts: list[list[int]], with_widths: bool) -> None:
    """Parts come one by one. All batches are full but the last one of each width, and answers are the same."""
    random = np.random.default_rng(0)
    parts = [items_part(random, per_window, with_widths) for per_window in counts]
    session, waiting, answers = Counting(adder()), dict[int, Part](), dict[int, Part]()
    for number, each in enumerate(parts):
        waiting[number] = each
        while (full := batches_of(session, waiting.values()) > 0) or number == len(parts) - 1:
            outcomes = infer_parts(OVER_CROPS, session, [*waiting.values()], only_full=full)
            answered = {number: good(outcome) for number, outcome in zip(waiting, outcomes, strict=True)}
            waiting = {number: one for number, one in answered.items() if isinstance(one, Begun)}
            answers |= {number: one for number, one in answered.items() if number not in waiting}
            if not full:
                break
    runs = 0
    for width in (2, 6) if with_widths else (6,):
        widths = [values(each, "x_width").values if with_widths else np.full(len(values(each, "x").values), 6)
                  for each in parts]  # fmt: skip
        runs += -(-sum(int((each == width).sum()) for each in widths) // 4)
    assert len(session.rows) == runs
    assert not waiting
    for number, each in enumerate(parts):
        [expected] = infer_parts(OVER_CROPS, adder(), [each])
        np.testing.assert_array_equal(values(answers[number], "y").values, values(good(expected), "y").values)
        assert values(answers[number], "y").offsets.tolist() == values(each, "x").offsets.tolist()


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 3), max_size=4), min_size=1, max_size=5), st.booleans())
def test_items_of_many_parts_fill_batches(counts: list[list[int]], with_widths: bool) -> None:
    """A list a part, a number of items a window; answers are ragged as the items, and equal to those of each alone."""
    random = np.random.default_rng(0)
    parts = [items_part(random, per_window, with_widths) for per_window in counts]
    session, filled = Counting(wider()), BatchCounts()
    outcomes = infer_parts(OVER_CROPS, session, parts, counts=filled)
    runs = 0
    for width in (2, 6) if with_widths else (6,):
        rows = sum(int((values(each, "x_width").values == width).sum()) if with_widths else
                   len(values(each, "x").values) for each in parts)  # fmt: skip
        runs += -(-rows // 4)
    assert len(session.rows) == filled.batches == runs
    assert (filled.rows, filled.room) == (sum(session.rows), 4 * runs)
    for each, outcome in zip(parts, outcomes, strict=True):
        if with_widths and len(set(values(each, "x_width").values.tolist())) > 1:
            assert isinstance(outcome, ModelError)  # this model's answers are as wide as its input
            continue
        answer = values(good(outcome), "y")
        assert answer.offsets.tolist() == values(each, "x").offsets.tolist()
        if len(answer.values):
            width = answer.values.shape[2] // 2
            expected = np.concatenate([values(each, "x").values[..., :width]] * 2, axis=2)
            np.testing.assert_array_equal(answer.values, expected)


FACE = face(60, 60, 16, 10)
OVER = np.concatenate([FACE, np.ones((5, 1))], axis=1).astype(np.float32)


def with_crops(frame: Array, *points: Array) -> Part:
    """A part of one frame with crops of these faces, restored by the network of the tests."""
    given = part(frame[None], keypoints=ragged([np.stack(points)]))
    given = given.with_arrays({**given.arrays, **Crop(stage(border=[135, 133, 132]), None).apply(given)})
    crops = values(given, "crops")
    made = np.rint(np.stack([restored(restorer(64), crop) for crop in crops.values])).astype(np.uint8)
    return given.with_arrays({**given.arrays, "image": Ragged(made, crops.offsets)})


def pasted(given: Part, **options: Any) -> Array:
    made = Paste(OperatorStage(kind="paste", name="paste", options=options), None).apply(given)
    assert made["source_size"].tolist() == [[120, 160]]  # type: ignore[union-attr]
    return np.asarray(made["image"][0])  # type: ignore[index]


def test_a_face_in_a_frame_that_is_resized_or_was_upscaled() -> None:
    frame = drawn_faces({0: FACE})
    given, points = with_crops(frame, OVER), [centres(frame, 0)]
    for size, options in (((240, 320), {"factor": 2.0}), ((60, 80), {"factor": 0.5})):
        larger = np.asarray(Image.fromarray(frame).resize(size[::-1], Image.Resampling.LANCZOS))
        if size[0] > 120:
            assert psnr(pasted(given, **options), with_faces(frame, points, restorer(64), 64, larger)) > 50
        assert pasted(given, **options).shape == (*size, 3)
    larger = np.asarray(Image.fromarray(frame).resize((480, 360), Image.Resampling.BICUBIC))
    upscaled = given.with_arrays({**given.arrays, "larger": larger[None]})
    larger.flags.writeable = False
    assert psnr(pasted(upscaled), with_faces(frame, points, restorer(64), 64, larger)) > 50


@pytest.mark.parametrize("eyes", [10, 16, 24])
def test_a_small_face_that_a_network_leaves_as_it_is_stays_sharp(eyes: float) -> None:
    """Its crop of 512 pixels is 5 to 13 times as large as the face. With bilinear filters alone: 23 to 24 dB."""
    noise = np.random.default_rng(0).standard_normal((120, 160, 3))
    frame = np.clip(128 + 300 * ndimage.gaussian_filter(noise, (1, 1, 0)), 0, 255).astype(np.uint8)
    points = face(80, 50, eyes)
    found = np.concatenate([points, np.ones((5, 1))], axis=1).astype(np.float32)
    given = part(frame[None], keypoints=ragged([found[None]]))
    given = given.with_arrays({**given.arrays, **Crop(stage(size=[512, 512]), None).apply(given)})
    made = pasted(given.with_arrays({**given.arrays, "image": values(given, "crops")}))
    (left, top), (right, bottom) = points.min(0).astype(int), points.max(0).astype(int)
    middle = np.s_[top:bottom, left:right]
    assert psnr(made[middle], frame[middle]) > 26


def test_nothing_of_a_crop_that_is_not_wanted() -> None:
    frame = drawn_faces({0: FACE})
    given = with_crops(frame, OVER)
    np.testing.assert_array_equal(pasted(given, amount=0.0), frame)
    background = np.zeros((1, 32, 32), np.uint8)  # of a parsing network: nothing is a face
    parsed = given.with_arrays({**given.arrays, "mask": Ragged(background, np.array([0, 1]))})
    np.testing.assert_array_equal(pasted(parsed), frame)
    np.testing.assert_array_equal(pasted(parsed, without=[3]), pasted(given))
    half = background.copy()
    half[:, :, :16] = 1  # the left half is skin
    left = pasted(parsed.with_arrays({**parsed.arrays, "mask": Ragged(half, np.array([0, 1]))}))
    changed, whole = (np.abs(each.astype(int) - frame).max(-1) for each in (left, pasted(given)))
    assert (changed[:, :50] == whole[:, :50]).mean() > 0.95
    assert changed[:, 75:].max() == 0


def test_the_better_of_two_faces_is_on_top() -> None:
    frame = drawn_faces({0: FACE})
    both = pasted(with_crops(frame, OVER, OVER + np.array([5, 0, 0], np.float32)))
    alone = pasted(with_crops(frame, OVER))
    assert (np.abs(both.astype(int) - alone).max(-1)[45:75, 45:75] <= 1).all()


def test_a_face_at_the_edge_of_a_frame_and_a_large_one() -> None:
    """Most of the first lies outside; the second is larger than its crop, so that pixels are averaged."""
    frame = drawn_faces({0: FACE})
    for shift, scale in ((-55, 1), (0, 5), (500, 1)):
        points = OVER.copy()
        points[:, :2] = (FACE - 60) * scale + 60 + shift
        made = pasted(with_crops(frame, points))
        assert made.shape == frame.shape
        if shift == 500:
            np.testing.assert_array_equal(made, frame)
