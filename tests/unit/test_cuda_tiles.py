"""Upscaling on a GPU without the host, where the host's memory is the GPU's: tiles, resizing, planes for an encoder."""

from math import prod
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.backends.onnxruntime import OnnxRuntime
from engines.cuda.arrays import GpuRows
from engines.inference import cuda
from engines.inference.tiles import padded
from engines.models.reading import travelling_form
from engines.operators.scale import Scale
from engines.outputs.colour import picture_planes
from engines.part import Part
from engines.planned import SOURCE_SIZE, model_picture_name
from schemas.media import Item
from schemas.model import InputCard, ModelCard, ModelSpec
from schemas.pipeline import OperatorStage
from schemas.settings import Settings
from tests.convolutions import convolutions, whole
from tests.host_gpu import COMPILER, HostGpu, on_gpu
from tests.reducing import HostSession, copied_back
from tests.unit.test_tiles import HEAD, Array, inferred, noise, part_of

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here")
INPUT = model_picture_name("infer", "input")


@pytest.fixture
def gpu() -> HostGpu:
    return HostGpu()


@pytest.fixture(autouse=True)
def _on_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "CudaSession", HostSession)


def opened(gpu: HostGpu, graph: bytes, tile: tuple[int, int], overlap: int, **more: Any) -> tuple[ModelSpec, Any]:
    """A session as a worker opens it."""
    card = InputCard.model_validate({"name": "input", "tile": tile, "overlap": overlap, **more})
    spec, body = travelling_form(graph, "m", ModelCard.model_validate({"name": "m", "inputs": (card,), "heads": HEAD}))
    device: Any = SimpleNamespace(gpu=gpu, encoder=SimpleNamespace(on_gpu=False))
    session = OnnxRuntime(Settings()).open(body, spec, device)
    if prod(tile) < 1000:
        session.warm_up()
    return spec, session


def there(gpu: HostGpu, part: Part) -> Part:
    """The same part, with its pictures on the GPU."""
    return part.with_arrays({**part.arrays, INPUT: on_gpu(gpu, part.array(INPUT))})  # type: ignore[dict-item]


@pytest.mark.parametrize("border", ["reflect", "edge"])
@pytest.mark.parametrize("size", [(52, 60), (24, 20), (25, 90), (3, 40), (1, 1), (11, 9)])
def test_tiles_are_cut_and_put_together_where_the_pictures_are(
    gpu: HostGpu, size: tuple[int, int], border: str
) -> None:
    graph = convolutions(3)
    spec, session = opened(gpu, graph, (24, 20), 3, border=border)
    frames = [noise(number, *size, 3) for number in range(3)]
    with copied_back(gpu) as copied:
        [made] = inferred(spec, session, [there(gpu, part_of(frames))])
    for frame, image in zip(frames, made.array("image"), strict=True):
        wider = padded(frame, (max(24, size[0]), max(20, size[1])), border == "reflect")
        np.testing.assert_array_equal(image, whole(graph, wider)[: 2 * size[0], : 2 * size[1]])
    assert made.array(SOURCE_SIZE).tolist() == [list(size)] * 3
    rows, columns = (
        1 if side <= tile else -(-(side - 6) // (tile - 6)) for side, tile in zip(size, (24, 20), strict=True)
    )
    assert copied == [4 * 2 * rows * columns], "which tiles of two frames are equal to those of the frame before"


def test_what_the_frame_before_showed_is_computed_once(gpu: HostGpu) -> None:
    graph = convolutions(2)
    spec, session = opened(gpu, graph, (20, 20), 2)  # 3 x 3 tiles of 52 x 52
    first, other = noise(1, 52, 52, 3), noise(2, 52, 52, 3)
    corner = other.copy()
    corner[0, 0] ^= 1
    frames, index = [first, first.copy(), other, other.copy(), corner, first], [0, 1, 2, 3, 4, 4, 5]
    [made] = inferred(spec, session, [there(gpu, part_of(frames, index))])
    for number, image in zip(index, made.array("image"), strict=True):
        np.testing.assert_array_equal(image, whole(graph, frames[number]))
    assert made.meta.held == 9 + 9 + 8 + 9


def test_parts_of_the_host_and_of_a_gpu_share_batches(gpu: HostGpu) -> None:
    graph = convolutions(2)
    spec, session = opened(gpu, graph, (20, 20), 2)
    frames = [noise(number, 30 + number, 33, 3) for number in range(4)]
    parts = [part_of([frame]) for frame in frames]
    made = inferred(spec, session, [there(gpu, parts[0]), parts[1], there(gpu, parts[2]), parts[3]])
    for frame, each, on_it in zip(frames, made, (True, False, True, False), strict=True):
        assert isinstance(each.array("image"), GpuRows) == on_it
        np.testing.assert_array_equal(each.array("image")[0], whole(graph, frame))


def test_a_part_without_windows(gpu: HostGpu) -> None:
    spec, session = opened(gpu, convolutions(2), (20, 20), 2)
    part = there(gpu, part_of([noise(1, 52, 52, 3)]))
    [made] = inferred(spec, session, [part.with_arrays({**part.arrays, "index": np.zeros((0, 1), np.int32)}, pts=())])
    assert made.array("image").shape[0] == 0


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    factor=st.sampled_from([0, 0.5, 1, 1.5, 3]),
    timed=st.booleans(),
)
def test_pictures_are_scaled_and_made_planes_as_on_the_host(size: tuple[int, int], factor: float, timed: bool) -> None:
    """Also what comes back at the end: the planes alone, a picture at a time."""
    gpu = HostGpu()
    pixels = noise(7, 2, 2 * size[0], 2 * size[1], 3)
    host = part_of([np.zeros((*size, 3), np.uint8)] * 2)
    arrays = {
        "image": pixels,
        SOURCE_SIZE: np.array([size] * 2, np.int32),
        "index": host.array("index"),
        model_picture_name("scale", "alpha"): np.full((2, *size), 255, np.uint8),
    }
    media = host.meta.media.model_copy(update={"timed": timed})
    host = host.with_arrays(arrays, media=media, items=(Item(name="a"), Item(name="b")))
    mine = host.with_arrays({**arrays, "image": on_gpu(gpu, pixels)})  # type: ignore[dict-item]
    scale = Scale(OperatorStage(kind="scale", name="scale", options={"factor": factor}), None)
    before = gpu.counters.from_gpu_bytes
    wanted, made = (scale.run([part], None, lambda: None)[0] for part in (host, mine))
    assert isinstance(wanted, Part)
    assert isinstance(made, Part)
    assert isinstance(made.array("image"), GpuRows)
    planes = [picture_planes(part.with_arrays({"pixels": part.array("image")})) for part in (wanted, made)]
    even = not any(side % 2 for side in made.array("image").shape[1:3])
    assert [isinstance(plane, GpuRows) for plane in planes[1][0]] == [even] * 3
    assert gpu.counters.from_gpu_bytes == before
    assert planes[0][1] == planes[1][1]
    np.testing.assert_array_equal(made.array("image"), wanted.array("image"))
    for one, other in zip(planes[0][0], planes[1][0], strict=True):
        np.testing.assert_array_equal(np.asarray(other), np.asarray(one))


def test_a_transparent_picture_is_joined_on_the_host(gpu: HostGpu) -> None:
    alpha: Array = noise(3, 1, 10, 12)
    arrays: dict[str, Any] = {
        "image": on_gpu(gpu, noise(4, 1, 20, 24, 3)),
        SOURCE_SIZE: np.array([(10, 12)], np.int32),
        "index": np.zeros((1, 1), np.int32),
        model_picture_name("scale", "alpha"): alpha,
    }
    part = part_of([noise(1, 10, 12, 3)])
    media = part.meta.media.model_copy(update={"timed": False})
    part = part.with_arrays(arrays, media=media, items=(Item(name="a"),))
    [made] = Scale(OperatorStage(kind="scale", name="scale"), None).run([part], None, lambda: None)
    assert isinstance(made, Part)
    assert made.array("image").shape == (1, 20, 24, 4)


def test_tiles_of_one_batch_are_of_bounded_size(gpu: HostGpu) -> None:
    for tile, rows in (((20, 20), 16), ((512, 512), 4)):
        session = opened(gpu, convolutions(1), tile, 1)[1]
        assert session.batch_bytes == rows * 3 * tile[0] * tile[1]
