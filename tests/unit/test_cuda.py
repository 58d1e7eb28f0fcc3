"""The GPU's arithmetic and memory, on the host: the kernels' source itself runs, see tests/host_gpu.py."""

import gc
import weakref
from collections.abc import Mapping
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.cuda.arrays import GpuRow, GpuRows
from engines.cuda.filters import ACROSS_ONE, DOWN_ONE, taps
from engines.cuda.memory import Counters, Pool
from engines.cuda.resampling import resized_rows
from engines.cuda.transforms import CudaPictures
from engines.geometry import Middle
from engines.part import Array
from engines.pictures import HostPictures
from engines.resizing import filtered
from schemas.picture import PictureSpec
from tests.clips import real_clip
from tests.host_gpu import COMPILER, HostGpu, LateGpu, Surface, on_gpu
from tests.plans import pictures

compiled = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here")
BT709, BT601, BT2020 = 1, 5, 9
LIMITED, FULL = 1, 2


def picture(layout: str, matrix: int = BT709, colour_range: int = LIMITED, clip: str = "bikes") -> av.VideoFrame:
    with av.open(real_clip(clip)) as container:
        frame = next(container.decode(video=0)).reformat(format=layout)
    frame.colorspace, frame.color_range = matrix, colour_range
    return frame


def surface(frame: av.VideoFrame) -> Any:
    return Surface(frame.reformat(format="p010le" if "10" in frame.format.name else "nv12"))


def both(
    stage: Mapping[str, PictureSpec], frame: av.VideoFrame, shown: Any, orientation: int = 1
) -> list[tuple[Array, Array]]:
    """Each array of a frame as the host makes it and as the GPU does."""
    gpu = CudaPictures(stage, HostGpu())  # type: ignore[arg-type]
    wanted, made = HostPictures(stage).convert(frame, orientation), gpu.convert(shown, orientation)
    gpu.synchronize()
    assert wanted.keys() == made.keys()
    pairs = [(wanted[name], np.asarray(made[name])) for name in wanted]
    assert all(one.shape == other.shape for one, other in pairs)
    return pairs


def apart(pairs: list[tuple[Array, Array]]) -> tuple[int, float]:
    """Largest and mean difference."""
    gaps = [np.abs(one.astype(np.int32) - other) for one, other in pairs]
    return max(int(gap.max()) for gap in gaps), max(float(gap.mean()) for gap in gaps)


def stage(size: tuple[int, int] | str, layout: str = "rgb", fit: str = "stretch") -> Mapping[str, PictureSpec]:
    return pictures(size=size, layout=layout, fit=fit)


@compiled
@pytest.mark.parametrize("colour_range", [LIMITED, FULL])
@pytest.mark.parametrize("matrix", [BT709, BT601, BT2020])
@pytest.mark.parametrize("layout", ["yuv420p", "yuv420p10le"])
def test_a_decoders_frame_becomes_what_swscale_makes_of_it(layout: str, matrix: int, colour_range: int) -> None:
    frame = picture(layout, matrix, colour_range)
    if colour_range == FULL and layout == "yuv420p":
        frame = picture("yuvj420p", matrix, colour_range)
    for size, most in (((32, 32), 2), ((91, 161), 2), ((182, 182), 2)):
        worst, mean = apart(both(stage(size), frame, surface(frame)))
        assert worst <= most
        assert mean < 0.02
        worst, mean = apart(both(stage(size, "gray"), frame, surface(frame)))
        assert worst <= 1
        assert mean < 0.01


@compiled
def test_pictures_that_grow_differ_little_more() -> None:
    frame = picture("yuv420p", clip="carphone_pristine")
    assert apart(both(stage((300, 400)), frame, surface(frame)))[0] <= 2
    assert apart(both(stage((300, 100)), frame, surface(frame)))[0] <= 4
    assert apart(both(stage((300, 400), "gray"), frame, surface(frame)))[0] <= 1
    assert apart(both(stage((300, 100), "gray"), frame, surface(frame)))[0] <= 4


@compiled
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", ["crop", "letterbox", "stretch"])
def test_cropped_padded_and_turned_like_on_the_host(fit: str, orientation: int) -> None:
    frame = picture("yuv420p")
    assert apart(both(stage((120, 90), "rgb", fit), frame, surface(frame), orientation))[0] <= 2
    assert apart(both(stage((121, 91), "rgb", fit), frame, surface(frame), orientation))[0] <= 2
    assert apart(both(stage((120, 90), "gray", fit), frame, surface(frame), orientation))[0] <= 2


FILTERS = [("nearest", False), ("bilinear", False), ("bilinear", True), ("bicubic", False), ("bicubic", True)]
FILTERS += [("lanczos", False)]


@compiled
@pytest.mark.parametrize("orientation", [1, 5, 8])
@pytest.mark.parametrize("fit", ["crop", "letterbox", "stretch", "pad"])
@pytest.mark.parametrize(("resize", "antialias"), FILTERS)
def test_filters_like_on_the_host(resize: str, antialias: bool, fit: str, orientation: int) -> None:
    frame = picture("yuv420p", BT601)
    asked = {"size": (182, 182), "fit": fit, "resize": resize, "antialias": antialias, "pad_value": 200}
    assert apart(both(pictures(**asked), frame, surface(frame), orientation))[0] <= 2
    assert apart(both(pictures(**asked, layout="gray"), frame, surface(frame)))[0] <= 2


@compiled
@pytest.mark.parametrize("orientation", [1, 5, 8])
@pytest.mark.parametrize(("resize", "antialias"), [("area", False), *FILTERS])
def test_cropped_from_a_larger_picture_like_on_the_host(resize: str, antialias: bool, orientation: int) -> None:
    asked = {"size": (112, 90), "fit": "crop", "short_side": 128, "resize": resize, "antialias": antialias}
    frame = picture("yuv420p")
    assert apart(both(pictures(**asked), frame, surface(frame), orientation))[0] <= 2


@compiled
@pytest.mark.parametrize("size", [(272, 64), (60, 200), (640, 640)])
@pytest.mark.parametrize("place", ["center", "corner"])
def test_padded_to_other_shapes_and_then_scaled_like_on_the_host(size: tuple[int, int], place: str) -> None:
    frame = picture("yuv420p")
    for resize, antialias in (("bicubic", True), ("lanczos", False), ("bilinear", False)):
        asked = {"size": size, "fit": "pad", "pad_value": 7, "pad_place": place, "resize": resize}
        assert apart(both(pictures(**asked, antialias=antialias), frame, surface(frame)))[0] <= 2


@compiled
def test_frames_of_a_part_are_made_by_one_launch_of_each_pass() -> None:
    """And no frame of a GPU's decoder is read by the host."""
    for asked, passes in (
        ({"size": (90, 90), "resize": "bicubic", "antialias": True}, ["scale", "resample", "resample"]),
        ({"size": (90, 90), "resize": "lanczos"}, ["scale", "resample", "resample"]),
        ({"size": (90, 90), "resize": "bicubic"}, ["scale", "resample"]),
        ({"size": (90, 90)}, ["scale"]),
        ({"size": (90, 90), "fit": "letterbox"}, ["fill", "scale"]),
        ({"layout": "planes"}, ["plane", "plane", "plane"]),
    ):
        device = LateGpu()
        gpu = CudaPictures(pictures(**asked), device)  # type: ignore[arg-type]
        for _ in range(5):
            gpu.convert(surface(picture("yuv420p")))
        assert device.launched == []
        gpu.synchronize()
        assert device.launched == passes


@compiled
@pytest.mark.parametrize("asked", [{"size": (32, 32), "layout": "gray"}, {"size": (90, 160)}, {"layout": "planes"}])
@pytest.mark.parametrize("each_ends_a_part", [1, 7, 100])
def test_frames_are_the_decoders_again_only_after_their_kernels(
    asked: dict[str, object], each_ends_a_part: int
) -> None:
    """A surface whose frame is dropped is overwritten, and kernels run when their stream or event is waited for."""
    with av.open(real_clip("bikes")) as container:
        given = [frame.reformat(format="nv12") for _, frame in zip(range(75), container.decode(video=0), strict=False)]
    there, device = CudaPictures(pictures(**asked), HostGpu()), LateGpu()  # type: ignore[arg-type]
    late = CudaPictures(pictures(**asked), device)  # type: ignore[arg-type]
    wanted = [{name: np.asarray(row) for name, row in converted(there, Surface(frame)).items()} for frame in given]
    made = []
    for number, frame in enumerate(given, 1):
        shown = Surface(frame)
        weakref.finalize(shown, overwrite, frame)
        made.append(late.convert(shown))  # type: ignore[arg-type]
        del shown
        if number % each_ends_a_part == 0:
            late.synchronize()
    late.synchronize()
    gc.collect()
    for rows, arrays in zip(made, wanted, strict=True):
        for name, array in arrays.items():
            np.testing.assert_array_equal(np.asarray(rows[name]), array)
    if each_ends_a_part == 100:
        assert len(device.launched) == 3 * (3 if "layout" in asked and asked["layout"] == "planes" else 1)


@compiled
@pytest.mark.parametrize("asked", [{"size": (32, 32), "layout": "gray"}, {"size": (270, 480)}, {"layout": "planes"}])
def test_frames_of_the_host_are_staged_until_they_are_copied(
    asked: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what they are copied to is not given to others before the kernels have read it."""
    monkeypatch.setattr("engines.cuda.batches._WAITING_BYTES", 1 << 20)
    with av.open(real_clip("bikes")) as container:
        given = [frame for _, frame in zip(range(40), container.decode(video=0), strict=False)]
    there, late = CudaPictures(pictures(**asked), HostGpu()), CudaPictures(pictures(**asked), LateGpu())  # type: ignore[arg-type]
    wanted = [{name: np.asarray(row) for name, row in converted(there, frame).items()} for frame in given]
    made = [late.convert(frame) for frame in given]
    late.synchronize()
    for rows, arrays in zip(made, wanted, strict=True):
        for name, array in arrays.items():
            np.testing.assert_array_equal(np.asarray(rows[name]), array)


def converted(gpu: CudaPictures, frame: Any) -> Mapping[str, Any]:
    made = gpu.convert(frame)
    gpu.synchronize()
    return made


def overwrite(frame: av.VideoFrame) -> None:
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))


@compiled
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    sides=st.tuples(*[st.integers(1, 70)] * 4),
    colours=st.sampled_from([(), (3,)]),
    hard=st.booleans(),
    kind=st.sampled_from(FILTERS),
)
def test_pictures_on_a_gpu_are_resized_to_the_hosts_bytes(
    sides: tuple[int, ...], colours: tuple[int, ...], hard: bool, kind: tuple[str, bool]
) -> None:
    (height, width), size = sides[:2], (sides[2], sides[3])
    pixels = np.random.default_rng(sides).integers(0, 256, (2, height, width, *colours), np.uint8)
    pixels = pixels // 128 * 255 if hard else pixels
    made = np.asarray(resized_rows(on_gpu(HostGpu(), pixels), size, *kind))
    spec = PictureSpec(resize=kind[0], antialias=kind[1])
    wanted = [filtered(each, size, Middle((0, 0), size), spec) for each in pixels]
    np.testing.assert_array_equal(made, wanted)


@compiled
@pytest.mark.parametrize("orientation", [1, 5, 8])
def test_planes_come_as_they_are(orientation: int) -> None:
    frame = picture("yuv420p")
    assert apart(both(stage("source", "planes"), frame, surface(frame), orientation))[0] == 0
    deep = picture("yuv420p10le")
    assert apart(both(stage("source", "planes"), deep, surface(deep), orientation))[0] <= 1


@compiled
@pytest.mark.parametrize("layout", ["yuv420p", "yuvj420p", "yuv420p10le", "yuv444p", "rgb24"])
def test_frames_that_the_host_decoded_become_the_same_but_for_sharp_edges_of_colour(layout: str) -> None:
    most = 12 if layout == "yuv420p" else 0  # swscale scales chroma to the left of a pair here, and to its middle there
    for matrix in (BT601, BT709):
        frame = picture(layout, matrix, FULL if layout == "yuvj420p" else LIMITED)
        worst, mean = apart(both(stage((90, 160)), frame, frame))
        assert worst <= most
        assert mean < 0.2
        assert apart(both(stage((90, 160), "gray"), frame, frame))[0] == 0


@compiled
def test_a_colour_frame_of_the_host_costs_two_bytes_a_pixel() -> None:
    gpu = HostGpu()
    convert = CudaPictures(stage((90, 160)), gpu).convert  # type: ignore[arg-type]
    convert(picture("yuv420p"))
    before = gpu.counters.to_gpu_bytes
    convert(picture("yuv420p"))
    assert gpu.counters.to_gpu_bytes - before == 2 * 90 * 160


@pytest.mark.parametrize(("source", "target"), [(1920, 182), (720, 182), (64, 640), (7, 3), (3, 7), (1, 5), (100, 100)])
@pytest.mark.parametrize("cubic", [False, True])
def test_taps_stay_inside_and_keep_the_mean(source: int, target: int, cubic: bool) -> None:
    for one in (ACROSS_ONE, DOWN_ONE):
        made = taps(source, target, cubic and target >= source, one)
        assert made.first.min() >= 0
        assert (made.first + made.count).max() <= source
        assert np.abs(made.weights.astype(np.int64).sum(axis=1) - one).max() <= 1


def test_rows_on_a_gpu_are_numpys_to_join_and_to_bring_back() -> None:
    gpu = HostGpu()
    rows = []
    for value in range(3):
        block = gpu.memory.take(6)
        block.host(np.uint8, (2, 3))[...] = value
        rows.append(GpuRow(gpu, block, (2, 3)))  # type: ignore[arg-type]
    joined = np.stack(rows)  # type: ignore[call-overload]
    assert isinstance(joined, GpuRows)
    assert (joined.shape, joined.ndim, joined.nbytes, joined.itemsize, len(joined)) == ((3, 2, 3), 3, 18, 1, 3)
    assert np.ascontiguousarray(joined).tolist() == [[[value] * 3] * 2 for value in range(3)]
    assert joined[1].tolist() == [[1, 1, 1], [1, 1, 1]]


def test_a_block_comes_back_when_nobody_holds_it_and_nothing_is_allocated_twice() -> None:
    counters = Counters()
    pool = Pool(lambda nbytes: (1, bytearray(nbytes)), counters)
    held = [pool.take(1000), pool.take(1001)]
    assert counters.allocations == 2
    del held
    gc.collect()
    again = [pool.take(1000), pool.take(990)]
    assert counters.allocations == 2
    assert all(block.nbytes >= 1000 for block in again)
