"""The GPU's encoder but for the call of NVENC itself: x264 takes its place, the host's memory the GPU's."""

import errno
import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.codeccontext import VideoCodecContext
from av.video.frame import CudaContext

from engines.cuda.arrays import GpuRow, GpuRows, rows_of
from engines.cuda.dlpack import Lent
from engines.device import cuda as device
from engines.device import nvenc
from engines.device.nvenc import GpuEncoder, gpu_frames, nvenc_options
from engines.encoding import Colour, Pictures, VideoOptions
from engines.inference.batch import infer_parts
from engines.outputs.gop import Geometry, frames_of, geometry_of, new_encoder
from engines.outputs.software import X264_PARAMS, Software
from engines.outputs.video import VideoFormat
from engines.part import Array
from schemas.errors import ExitCode, MediaError, UsageError
from schemas.model import ModelSpec, TensorSpec
from schemas.pipeline import EncodeStage, OperatorStage
from schemas.settings import Settings
from tests.host_gpu import COMPILER, HostGpu
from tests.unit.outputs_parts import VIDEO, assemble, make_part
from tests.unit.test_outputs_video import cut, decoded, plane_of, planes_of, psnr

compiled = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here")
STAGE = EncodeStage(kind="encode", format="video")
COLOUR = Colour(1, 1, 1, 1)


def in_place_of_nvenc(geometry: Geometry, pictures: Pictures, options: VideoOptions) -> VideoCodecContext:
    """x264 as `Software` opens it, but for NV12."""
    encoder = new_encoder("libx264", geometry._replace(pix_fmt="nv12"), pictures)
    encoder.options = {"crf": str(options.quantiser), "preset": options.preset, "x264-params": X264_PARAMS}
    encoder.thread_count = 1
    return encoder


def on_gpu(gpu: HostGpu, array: Array) -> GpuRows:
    block = gpu.memory.take(array.nbytes)
    block.host(np.uint8, array.shape)[...] = array
    return rows_of(gpu, block, array.shape, np.uint8)  # type: ignore[arg-type]


def encoder_of(gpu: HostGpu, host: Software | None = None) -> GpuEncoder:
    return GpuEncoder(gpu, host)  # type: ignore[arg-type]


@compiled
@pytest.mark.parametrize(("height", "width"), [(48, 64), (47, 63), (2, 300), (1, 1)])
@pytest.mark.parametrize("kind", ["colour", "grey", "doubled"])
def test_a_picture_in_nv12_is_what_x264_is_given(height: int, width: int, kind: str) -> None:
    planes = list(planes_of(2, height, width).values())[: 1 if kind == "grey" else 3]
    if kind == "doubled":  # chroma of an odd source at twice its size is larger than it need be
        planes = [plane.repeat(2, axis=1).repeat(2, axis=2) for plane in planes]
    if geometry_of(planes).pix_fmt != "yuv420p":
        planes = planes[:1]
    gpu, geometry = HostGpu(), geometry_of(planes)
    context = CudaContext(primary_ctx=False, current_ctx=True)
    for given in (planes, [on_gpu(gpu, plane) for plane in planes]):
        made = list(gpu_frames(gpu, given, geometry, context))  # type: ignore[arg-type]
        assert len(made) == 2
        for frame, wanted in zip(made, frames_of(planes, geometry), strict=True):
            assert (frame.format.name, frame.height, frame.width) == ("nv12", geometry.height, geometry.width)
            assert (plane_of(frame, 0) == plane_of(wanted, 0)).all()
            pairs = np.frombuffer(frame.planes[1], np.uint8).reshape(-1, frame.planes[1].line_size)[:, : geometry.width]
            assert (pairs[:, ::2] == plane_of(wanted, 1)).all()
            assert (pairs[:, 1::2] == plane_of(wanted, 2)).all()


def test_lent_memory_is_read_where_it_lies_and_comes_back() -> None:
    gpu = HostGpu()
    block = gpu.memory.take(4 * 16)
    whole = block.host(np.uint8, (4, 16))
    whole[...] = np.arange(64).reshape(4, 16)
    pointer = block.pointer
    seen: Array | None = np.from_dlpack(Lent(gpu, block, (3, 5), 16, offset=16))  # type: ignore[arg-type]
    assert seen is not None
    assert (seen == whole[1:, :5]).all()
    assert seen.ctypes.data == pointer + 16
    del block
    gc.collect()
    assert gpu.memory.take(64).pointer != pointer  # somebody still looks at it
    seen = None
    gc.collect()
    assert gpu.memory.take(64).pointer == pointer


@compiled
@pytest.mark.parametrize("colours", [1, 3])
def test_pictures_on_the_gpu_become_the_same_bytes_without_the_host(
    monkeypatch: pytest.MonkeyPatch, colours: int
) -> None:
    monkeypatch.setattr(nvenc, "_new_encoder", in_place_of_nvenc)
    gpu, planes = HostGpu(), list(planes_of(20, 47, 63).values())[:colours]
    wanted = Software().encode(Pictures(planes, COLOUR, VIDEO), VideoOptions()).arrays
    there = Pictures([on_gpu(gpu, plane) for plane in planes], COLOUR, VIDEO)
    for _ in range(3):
        made = encoder_of(gpu).encode(there, VideoOptions()).arrays
        assert all((made[name] == wanted[name]).all() for name in wanted)
    assert (gpu.counters.to_gpu_bytes, gpu.counters.from_gpu_bytes) == (0, 0)
    before = gpu.counters.allocations
    encoder_of(gpu).encode(there, VideoOptions())
    assert gpu.counters.allocations == before
    made = encoder_of(gpu).encode(Pictures(planes, COLOUR, VIDEO), VideoOptions()).arrays
    assert all((made[name] == wanted[name]).all() for name in wanted)
    assert gpu.counters.to_gpu_bytes == sum(plane.nbytes for plane in planes)


@compiled
def test_a_file_of_parts_on_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(nvenc, "_new_encoder", in_place_of_nvenc)
    gpu, planes = HostGpu(), planes_of(12)
    parts = cut(VIDEO, planes, range(12), [5, 7])
    parts = [part.with_arrays({name: on_gpu(gpu, plane) for name, plane in part.arrays.items()}) for part in parts]
    again = {name: on_gpu(gpu, plane[:2]) for name, plane in planes.items()}
    parts.append(make_part(VIDEO, {**again, "index": np.array([[0], [1], [1], [0]], np.int32)}, range(12, 16)))
    (path,) = assemble(VideoFormat(STAGE, encoder=encoder_of(gpu)), tmp_path / "a", VIDEO, parts)
    frames = decoded(path)
    for frame, row in zip(frames, [*range(12), 0, 1, 1, 0], strict=True):
        assert psnr(plane_of(frame, 0), planes["plane0"][row]) > 36
    assert gpu.counters.from_gpu_bytes == 0


@pytest.mark.parametrize("preset", VideoOptions.model_json_schema()["properties"]["preset"]["enum"])
def test_ffmpeg_takes_all_options_for_nvenc(preset: str) -> None:
    """It reads them before it looks for a driver: without one it fails later, and with another error."""
    known = av.CodecContext.create(nvenc.NAME, "w").supported_options
    options = nvenc_options(VideoOptions.model_validate({"preset": preset}))
    assert options.keys() <= {option.name for option in (*known.generic, *known.private)}
    for wrong in ({}, {"preset": "p8"}, {"rc": "crf"}):
        encoder = new_encoder(nvenc.NAME, Geometry("nv12", 256, 256), Pictures([], COLOUR, VIDEO))
        encoder.options = options | wrong
        refused = 0
        try:
            encoder.open()
        except av.error.FFmpegError as error:
            refused = error.errno
        assert (refused == errno.EINVAL) == bool(wrong)


def test_crf_becomes_the_nearest_quantiser() -> None:
    asked = [nvenc_options(VideoOptions(crf=crf))["qp"] for crf in (0, 18, 23.4, 51)]
    assert asked == ["0", "18", "23", "51"]


@compiled
def test_what_the_gpu_refuses_goes_to_the_host_or_is_an_error_of_one_line() -> None:
    gpu = HostGpu()
    assert not encoder_of(gpu).opens()
    small, full = list(planes_of(3).values()), list(planes_of(3, 48, 64, 1, 1).values())
    for planes, why in ((small, ""), (full, "it is not 4:2:0")):
        pictures = Pictures([on_gpu(gpu, plane) for plane in planes], COLOUR, VIDEO)
        made = encoder_of(gpu, Software()).encode(pictures, VideoOptions())
        wanted = Software().encode(Pictures(planes, COLOUR, VIDEO), VideoOptions())
        assert made.facts == wanted.facts == {"encoder": "libx264", "codec": "h264", "size": [64, 48]}
        assert (made.arrays["data"] == wanted.arrays["data"]).all()
        with pytest.raises(MediaError) as raised:
            encoder_of(gpu).encode(pictures, VideoOptions())
        assert str(raised.value).startswith(f"clip.mp4: the GPU cannot encode 64x48 ({why}")
        assert str(raised.value).endswith(": allow `encoder = any`")
        assert "\n" not in str(raised.value)


@compiled
@pytest.mark.parametrize("opens", [True, False])
@pytest.mark.parametrize("wanted", ["host", "any", "gpu"])
def test_who_encodes_is_chosen_by_the_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wanted: str, opens: bool
) -> None:
    monkeypatch.setattr(device, "CudaGpu", lambda name, cache: HostGpu())
    if opens:
        monkeypatch.setattr(nvenc, "_new_encoder", in_place_of_nvenc)
    settings = Settings.model_validate({"encoder": wanted})
    if wanted == "gpu" and not opens:
        with pytest.raises(UsageError) as raised:
            device.CudaDevice("cuda:0", settings, tmp_path)
        assert str(raised.value) == (
            "device cuda:0: A GPU of the host opens no encoder of H.264 (h264_nvenc): "
            "set `encoder` to any or host, see docs/gpus.md"
        )
        assert raised.value.exit_code == ExitCode.USAGE
        return
    opened = device.CudaDevice("cuda:0", settings, tmp_path)
    assert opened.encoder.on_gpu == (opens and wanted != "host")
    assert opened.facts()["encodes"] == opened.encoder.on_gpu
    opened.close()


class Doubler:
    """A session whose outputs stay on a GPU: each row twice its value."""

    spec = ModelSpec(
        name="doubler",
        inputs=(TensorSpec(name="plane", dtype="uint8", shape=("N", "H", "W")),),
        outputs=(TensorSpec(name="doubled", dtype="uint8", shape=("N", "H", "W")),),
        sha256="",
    )
    batch_bytes = 1 << 20

    def __init__(self, gpu: HostGpu, first_on_host: bool) -> None:
        self._gpu = gpu
        self._on_host = first_on_host

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Any]:
        made = np.asarray(inputs["plane"]) * 2
        on_host, self._on_host = self._on_host, False
        return {"doubled": made if on_host else on_gpu(self._gpu, made)}

    def warm_up(self) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("first_on_host", [False, True])
@pytest.mark.parametrize("max_batch", [3, 4, 64])
def test_outputs_that_stay_on_a_gpu_are_joined_there(max_batch: int, first_on_host: bool) -> None:
    gpu = HostGpu()
    stage = OperatorStage.model_validate(
        {"kind": "infer", "model": "doubler", "each": ["plane0"], "max_batch": max_batch}
    )
    planes = np.random.default_rng(0).integers(0, 100, (12, 4, 6), np.uint8)
    parts = cut(VIDEO, {"plane0": planes}, range(12), [5, 7])
    outcomes = infer_parts(stage, Doubler(gpu, first_on_host), parts)
    arrays = [outcome.arrays["plane0"] for outcome in outcomes]  # type: ignore[union-attr]
    if not first_on_host:
        assert all(isinstance(array, GpuRows) for array in arrays)
        assert gpu.counters.from_gpu_bytes == 0
    assert (np.concatenate([np.asarray(array) for array in arrays]) == planes * 2).all()


def test_rows_are_chosen_and_joined_on_the_gpu() -> None:
    gpu = HostGpu()
    values = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    rows = on_gpu(gpu, values)
    for key in (slice(1, 3), slice(None, None, 2), np.array([3, 0, 0])):
        assert isinstance(rows[key], GpuRows)
        assert (np.asarray(rows[key]) == values[key]).all()
    joined: Any = np.concatenate([rows, rows[1:]])  # type: ignore[arg-type, list-item]
    assert isinstance(joined, GpuRows)
    assert (np.asarray(joined) == np.concatenate([values, values[1:]])).all()
    assert rows[:0].shape == (0, 2, 3)
    assert rows[2].tolist() == values[2].tolist()
    assert np.concatenate([rows, values]).shape == (8, 2, 3)  # type: ignore[arg-type, list-item]
    assert isinstance(rows.rows[0], GpuRow)
