"""annotated on a GPU: the planes are drawn on where they are, and equal those that the host draws."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.cuda.arrays import GpuRow, GpuRows
from engines.encoding import Encoded, Pictures, VideoOptions
from engines.outputs.format import load_format
from engines.part import Array, Tick, no_tick
from engines.ragged import Ragged
from schemas.pipeline import EncodeStage
from tests.host_gpu import COMPILER, HostGpu
from tests.unit.outputs_parts import VIDEO, make_part

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here")
COUNT = 3
LABELS = {"classes": ("person", "Größe 车"), "mask": ("background", "road", "sky")}


class Capture:
    """Takes the pictures as they would be encoded."""

    pictures: Pictures

    def __init__(self, on_gpu: bool) -> None:
        self.on_gpu = on_gpu

    def encode(self, pictures: Pictures, options: VideoOptions, tick: Tick = no_tick) -> Encoded:
        self.pictures = pictures
        return Encoded({})


def planes_of(height: int, width: int, subsampled: bool) -> dict[str, Array]:
    rng = np.random.default_rng(height * 1000 + width)
    small = (-(-height // 2), -(-width // 2)) if subsampled else (height, width)
    sizes = {"plane0": (height, width), "plane1": small, "plane2": small}
    return {name: rng.integers(0, 256, (COUNT, *size), np.uint8) for name, size in sizes.items()}


def on_gpu(gpu: HostGpu, array: Array) -> GpuRows:
    """The rows of an array, copied to the GPU."""
    rows = []
    for picture in array:
        block = gpu.memory.take(picture.nbytes)
        block.host(np.uint8, picture.shape)[:] = picture
        rows.append(GpuRow(gpu, block, picture.shape))  # type: ignore[arg-type]
    return GpuRows(rows)


def encoded(arrays: dict[str, Any], height: int, width: int, encoder: Capture) -> Pictures:
    media = VIDEO.model_copy(update={"width": width, "height": height, "color_space": 6, "color_range": 1})
    stage = EncodeStage(kind="encode", format="annotated")
    load_format(stage, encoder, LABELS).encode(make_part(media, arrays, range(COUNT)))
    return encoder.pictures


def check(found: dict[str, Any], height: int, width: int, subsampled: bool = True) -> None:
    planes, gpu = planes_of(height, width, subsampled), HostGpu()
    resident = {name: on_gpu(gpu, plane) for name, plane in planes.items()}
    wanted = encoded(planes | found, height, width, Capture(on_gpu=False)).planes
    made = encoded(resident | found, height, width, Capture(on_gpu=True)).planes
    assert all(isinstance(plane, GpuRows) for plane in made)
    assert gpu.counters.from_gpu_bytes == 0
    downloaded = encoded(resident | found, height, width, Capture(on_gpu=False)).planes
    for host, drawn, back in zip(wanted, made, downloaded, strict=True):
        assert isinstance(back, np.ndarray)
        np.testing.assert_array_equal(np.asarray(drawn), host)
        np.testing.assert_array_equal(back, host)
    for name, plane in planes.items():
        np.testing.assert_array_equal(np.asarray(resident[name]), plane)


coordinate = st.floats(-40, 160, width=32)
rows = st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate), max_size=4)


@settings(max_examples=40, deadline=None)
@given(boxes=st.lists(rows, min_size=COUNT, max_size=COUNT), height=st.integers(1, 90), width=st.integers(1, 120))
def test_boxes_labels_masks_and_keypoints(boxes: list[list[tuple[float, ...]]], height: int, width: int) -> None:
    rng = np.random.default_rng(len(boxes[0]))
    counts = [len(each) for each in boxes]
    found = {
        "boxes": Ragged.of([np.array(each, np.float32).reshape(-1, 4) for each in boxes]),
        "classes": Ragged.of([np.arange(count, dtype=np.int32) for count in counts]),
        "scores": Ragged.of([np.full(count, 0.5, np.float32) for count in counts]),
        "keypoints": Ragged.of([rng.random((count, 17, 3), np.float32) * 80 for count in counts]),
        "masks": Ragged.of([rng.integers(0, 2, (count, 5, 4), np.uint8) for count in counts]),
    }
    check(found, height, width, subsampled=height % 2 == 0)


def test_classes_of_pixels_and_tags() -> None:
    rng = np.random.default_rng(5)
    check({"mask": rng.integers(0, 3, (COUNT, 51, 63), np.uint8)}, 51, 63)
    check({"mask": rng.integers(0, 3, (COUNT, 10, 12), np.uint8)}, 50, 64)
    tags = Ragged.of([np.array([0, 1], np.int32)] * COUNT)
    check({"tags": tags, "scores": Ragged.of([np.array([0.9, 0.4], np.float32)] * COUNT)}, 120, 160)


def test_pictures_without_findings_are_not_copied() -> None:
    planes, gpu = planes_of(32, 48, subsampled=True), HostGpu()
    resident = {name: on_gpu(gpu, plane) for name, plane in planes.items()}
    box = np.array([[4, 4, 20, 20]], np.float32)
    found = {"boxes": Ragged.of([box, box[:0], box[:0]])}
    drawn = encoded(resident | found, 32, 48, Capture(on_gpu=True)).planes[0]
    assert isinstance(drawn, GpuRows)
    assert [mine is given for mine, given in zip(drawn.rows, resident["plane0"].rows, strict=True)] == [
        False,
        True,
        True,
    ]


def test_pictures_for_tracks_are_encoded_undrawn_where_they_are() -> None:
    class Named(Capture):
        def encode(self, pictures: Pictures, options: VideoOptions, tick: Tick = no_tick) -> Encoded:
            super().encode(pictures, options, tick)
            return Encoded({}, {"encoder": "any"})

    planes, gpu = planes_of(33, 48, subsampled=True), HostGpu()
    resident = {name: on_gpu(gpu, plane) for name, plane in planes.items()}
    boxes = [np.array([[4, 4, 20, 20]] * number, np.float32).reshape(-1, 4) for number in range(COUNT)]
    media = VIDEO.model_copy(update={"width": 48, "height": 33})
    stage, encoder = EncodeStage(kind="encode", format="annotated", options={"track": True}), Named(on_gpu=True)
    part = make_part(media, {**resident, "boxes": Ragged.of(boxes)}, range(COUNT))
    made = load_format(stage, encoder, LABELS).encode(part)
    for drawn, given_ in zip(encoder.pictures.planes, resident.values(), strict=True):
        assert isinstance(drawn, GpuRows)
        assert drawn.rows == given_.rows
    assert gpu.counters.from_gpu_bytes == 0
    assert made.facts["picture"] == [33, 48, 3]
    assert made.arrays["boxes@offsets"].tolist() == [0, 0, 1, 3]
    assert made.arrays["boxes@found"].shape == (3, 4)
