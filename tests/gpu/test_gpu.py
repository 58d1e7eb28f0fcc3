"""What only a GPU can show: its decoder, its kernels, its runtime, and what becomes of a worker that loses it."""

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import CudaContext
from onnx import TensorProto, helper, numpy_helper

from benchmarks.gpu_parts import decoded, samples
from engines.cuda.arrays import GpuRows
from engines.cuda.burst_library import BurstLibrary
from engines.cuda.draw import GpuDrawing
from engines.cuda.gpu import CudaGpu
from engines.cuda.nvdec import GpuDecoders
from engines.cuda.transforms import CudaPictures
from engines.device.nvenc import GpuEncoder, gpu_frames
from engines.encoding import Colour
from engines.inference.cuda import CudaSession
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.machine import find_gpu, gpus
from engines.models.catalogue import builtin_model
from engines.outputs.draw import Canvas, ycbcr_paint
from engines.outputs.gop import frames_of, geometry_of
from engines.outputs.surfaces import HostDrawing
from engines.pictures import HostPictures
from pipelines.registry import builtin_pipeline
from schemas.errors import ExitCode
from schemas.model import ModelSpec, TensorSpec
from schemas.rig import ALL_STAGES
from tests.cli import rigflow_process
from tests.clips import Clip, generated, real_clip
from tests.fleet import Fleet
from tests.host_gpu import COMPILER, HostGpu, Surface, on_gpu
from tests.plans import decode_plan, pictures
from tests.unit import media_passes
from tests.unit.media_passes import pipeline, segments_of
from tests.unit.test_outputs_video import plane_of, planes_of, psnr
from workers.inputs import JobOutcome

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]
CLIPS = ("bigbuckbunny", "bikes", "carphone_pristine")


def test_gpus_are_found_by_their_uuid() -> None:
    found = gpus()
    assert found
    number, gpu = find_gpu(f"cuda:{found[-1].uuid}")
    assert (number, gpu) == (len(found) - 1, found[-1])


@pytest.mark.parametrize("name", CLIPS)
def test_planes_of_its_decoder_are_those_of_the_host(gpu: CudaGpu, name: str) -> None:
    for host, mine in decoded(gpu, real_clip(name)):
        assert mine.sw_format is not None
        there = mine.reformat(format=mine.sw_format.name)
        for one, other in zip(samples(host), samples(there), strict=True):
            assert (one == other).all()


@pytest.mark.parametrize(
    "given",
    [
        {"size": (182, 182)},
        {"size": (32, 32), "layout": "gray"},
        {"size": (91, 161), "layout": "gray", "fit": "crop", "resize": "bilinear"},
        {"layout": "planes"},
        {"size": (91, 161), "fit": "letterbox"},
        {"size": (182, 182), "resize": "bilinear"},
        {"size": (160, 160), "fit": "letterbox", "pad_value": 114, "pad_place": "corner", "resize": "bilinear"},
        {"multiple": 32, "pad_value": 7},
        {"size": (120, 120), "fit": "crop", "resize": "bicubic", "antialias": True},
        {"size": (112, 112), "fit": "crop", "short_side": 128, "resize": "bilinear", "antialias": True},
        {"size": (224, 224), "fit": "letterbox", "pad_value": 114, "resize": "bicubic"},
        {"size": (448, 448), "fit": "pad", "pad_value": 255, "resize": "bicubic", "antialias": True},
        {"size": (90, 120), "resize": "lanczos"},
        {"size": (90, 120), "resize": "nearest", "layout": "gray"},
    ],
)
def test_its_transforms_are_those_of_the_host(gpu: CudaGpu, given: dict[str, object]) -> None:
    wanted_pictures = pictures(**given)
    for host, mine in decoded(gpu, real_clip("bigbuckbunny"), 5):
        convert = CudaPictures(wanted_pictures, gpu)
        made = convert.convert(mine)
        convert.synchronize()
        for name, wanted in HostPictures(wanted_pictures).convert(host).items():
            most = 1 if given.get("layout") == "gray" else 2
            assert np.abs(wanted.astype(np.int32) - np.asarray(made[name])).max() <= most


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here")
@pytest.mark.parametrize(
    "given",
    [
        {"size": (32, 32), "layout": "gray"},
        {"size": (182, 182)},
        {"size": (160, 160), "fit": "letterbox", "pad_value": 114, "resize": "bilinear"},
        {"size": (120, 120), "fit": "crop", "resize": "bicubic", "antialias": True},
        {"layout": "planes"},
    ],
)
def test_frames_of_a_part_are_to_the_bit_what_the_kernels_source_makes_on_the_host(
    gpu: CudaGpu, given: dict[str, object]
) -> None:
    """More frames than one launch takes; the decoder gets their memory again while others are converted."""
    there, here = CudaPictures(pictures(**given), gpu), CudaPictures(pictures(**given), HostGpu())  # type: ignore[arg-type]
    made, wanted = [], []
    for _, mine in decoded(gpu, real_clip("bikes"), 70):
        made.append(there.convert(mine))
        shown = mine.reformat(format="nv12")
        shown.colorspace, shown.color_range = mine.colorspace, mine.color_range
        wanted.append(here.convert(Surface(shown)))  # type: ignore[arg-type]
        here.synchronize()
    there.synchronize()
    for rows, arrays in zip(made, wanted, strict=True):
        for name, array in arrays.items():
            np.testing.assert_array_equal(np.asarray(rows[name]), np.asarray(array))


@pytest.mark.skipif(COMPILER is None, reason="no C compiler here")
@pytest.mark.parametrize("fps", [None, 5.0])
@pytest.mark.parametrize(
    "clip", [Clip(), Clip(codec="hevc", pixel_format="yuv420p10le"), Clip(codec="vp9"), None], ids=str
)
def test_frames_in_bursts_are_those_that_come_one_by_one(
    gpu: CudaGpu, tmp_path: Path, clip: Clip | None, fps: float | None
) -> None:
    """Two kinds of decoders by turns, so that those of bursts are used again after others."""
    path = real_clip("bikes") if clip is None else generated(replace(clip, frames=120, size=(144, 256)))
    spec = pipeline(fps=fps, size=(90, 90))
    library = BurstLibrary(tmp_path)
    found = []
    for decoders in (GpuDecoders(gpu, 2, "gpu", library), GpuDecoders(gpu, 2, "gpu")):
        gpu.counters.irregular_segments = 0
        convert = CudaPictures(decode_plan(spec).pictures, gpu)
        into = decoders.into(convert)
        parts = media_passes.decoded(*segments_of(path, spec, 0.9), spec, convert.convert, into)
        convert.synchronize()
        assert len(parts) > 2
        assert gpu.counters.irregular_segments == 0
        found.append([(part.meta, [np.asarray(array) for array in part.arrays.values()]) for part in parts])
    for (meta, arrays), (other, others) in zip(*found, strict=True):
        assert meta == other
        for one, two in zip(arrays, others, strict=True):
            np.testing.assert_array_equal(one, two)
    assert not library.fault


def test_a_session_answers_like_the_hosts(gpu: CudaGpu) -> None:
    spec, model = builtin_model("fingerprint")
    session, host = CudaSession(model, spec, gpu), OnnxRuntimeSession(model, spec)
    generator = np.random.default_rng(0)
    for rows in (1, 7, 7, 64):
        pixels = generator.integers(0, 256, (rows, 5, 32, 32), np.uint8)
        given = session.run({"pixels": pixels})["descriptor"]
        assert np.abs(given - host.run({"pixels": pixels})["descriptor"]).max() < 1e-4
    session.close()


def test_nothing_is_allocated_for_the_batches_that_follow(gpu: CudaGpu) -> None:
    spec, model = builtin_model("fingerprint")
    session = CudaSession(model, spec, gpu)
    pixels = np.zeros((16, 5, 32, 32), np.uint8)
    for _ in range(4):
        session.run({"pixels": pixels})
    before = gpu.counters.allocations
    for _ in range(50):
        session.run({"pixels": pixels})
    assert gpu.counters.allocations == before
    session.close()


@pytest.mark.parametrize("width", [192, "W"])
@pytest.mark.parametrize("convolved", [False, True])
def test_a_row_has_the_same_answer_in_any_batch(gpu: CudaGpu, width: int | str, convolved: bool) -> None:
    """A product of matrices, or a convolution, of rows whose size the model fixes or leaves open."""
    random = np.random.default_rng(0)
    if convolved:
        shape: tuple[int | str, ...] = (24, 24, width)
        weights = random.standard_normal((32, 24, 3, 3)).astype(np.float32)
        node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
        made: tuple[int | str, ...] = (32, 24, width)
    else:
        shape, made = (width, 192), (width, 1000)
        weights = random.standard_normal((192, 1000)).astype(np.float32)
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
    float32 = TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "rows",
        [helper.make_tensor_value_info("x", float32, ["N", *shape])],
        [helper.make_tensor_value_info("y", float32, ["N", *made])],
        [numpy_helper.from_array(weights, "w")],
    )
    body = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    spec = ModelSpec(
        name="rows",
        inputs=(TensorSpec(name="x", dtype="float32", shape=("N", *shape)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("N", *made)),),
        sha256=hashlib.sha256(body).hexdigest(),
    )
    session = CudaSession(body, spec, gpu)
    sizes = [192 if isinstance(size, str) else size for size in shape]
    rows = random.standard_normal((16, *sizes)).astype(np.float32)
    together = session.start({"x": rows})()["y"]
    for count in (1, 2, 3, 5, 8, 15):
        assert np.array_equal(session.start({"x": rows[:count]})()["y"], together[:count]), count
    session.close()


def test_a_fleet_on_it_answers_like_one_on_the_host(tmp_path: Path) -> None:
    spec = builtin_pipeline("fingerprint")
    made = {}
    for device in ("cpu", "cuda:0"):
        with Fleet((ALL_STAGES,), tmp_path / "cache", devices=[device]) as fleet:
            outcomes = fleet.run(spec, [real_clip(name) for name in CLIPS], tmp_path / device.replace(":", ""))
            assert all(outcome.ok for outcome in outcomes), [outcome.error for outcome in outcomes]
            made[device] = []
            for outcome in outcomes:
                with np.load(f"{outcome.target}.npz") as written:
                    made[device].append(dict(written))
    for host, mine in zip(made["cpu"], made["cuda:0"], strict=True):
        assert (host["times"] == mine["times"]).all()
        assert (host["descriptor"] * mine["descriptor"]).sum(1).min() > 0.999


def test_pipelines_that_come_at_once_share_it(tmp_path: Path) -> None:
    specs = [builtin_pipeline(name) for name in ("fingerprint", "scenes", "upscale2x")]

    async def at_once(fleet: Fleet) -> list[list[JobOutcome]]:
        runs = (fleet.run_async(spec, [real_clip("bikes")], tmp_path / spec.name) for spec in specs)
        return await asyncio.gather(*runs)

    with Fleet((ALL_STAGES,), tmp_path / "cache", devices=["cuda:0"]) as fleet:
        made = asyncio.run(at_once(fleet))
    assert all(outcome.ok for (outcome,) in made), [outcome.error for (outcome,) in made]


@pytest.mark.parametrize("clip", [Clip(codec="mpeg4", container="avi"), Clip(pixel_format="yuv444p")])
def test_what_its_decoder_refuses_the_host_decodes(tmp_path: Path, clip: Clip) -> None:
    spec = builtin_pipeline("fingerprint")
    with Fleet((ALL_STAGES,), tmp_path / "cache", devices=["cuda:0"]) as fleet:
        (outcome,) = fleet.run(spec, [generated(clip)], tmp_path / "out")
    assert outcome.ok, outcome.error


def test_a_worker_that_is_stopped_ends_well(tmp_path: Path) -> None:
    with Fleet((ALL_STAGES,), tmp_path / "cache", devices=["cuda:0"]) as fleet:
        (outcome,) = fleet.run(builtin_pipeline("fingerprint"), [real_clip("bikes")], tmp_path / "out")
        fleet.workers[0].send_signal(signal.SIGTERM)
        assert fleet.workers[0].wait() == ExitCode.OK
    assert outcome.ok, outcome.error


@pytest.mark.parametrize(("height", "width"), [(240, 320), (241, 319), (1080, 1918)])
@pytest.mark.parametrize("colours", [1, 3])
def test_pictures_become_frames_of_its_encoder_without_the_host(
    gpu: CudaGpu, height: int, width: int, colours: int
) -> None:
    gpu.enter()
    planes = list(planes_of(5, height, width).values())[:colours]
    there, geometry = [on_gpu(gpu, plane) for plane in planes], geometry_of(planes)
    context = CudaContext(gpu.number, primary_ctx=False, current_ctx=True)
    before = gpu.counters.to_gpu_bytes, gpu.counters.from_gpu_bytes
    made = list(gpu_frames(gpu, there, geometry, context))
    assert (gpu.counters.to_gpu_bytes, gpu.counters.from_gpu_bytes) == before
    made += gpu_frames(gpu, planes, geometry, context)  # type: ignore[arg-type]
    for frame, wanted in zip(made, [*frames_of(planes, geometry)] * 2, strict=True):
        assert (frame.format.name, frame.height, frame.width) == ("cuda", geometry.height, geometry.width)
        back = frame.reformat(format="nv12")
        assert (plane_of(back, 0) == plane_of(wanted, 0)).all()
        pairs = np.frombuffer(back.planes[1], np.uint8).reshape(-1, back.planes[1].line_size)[:, : geometry.width]
        assert (pairs[:, ::2] == plane_of(wanted, 1)).all()
        assert (pairs[:, 1::2] == plane_of(wanted, 2)).all()


def test_frames_for_its_encoder_allocate_nothing_in_the_long_run(gpu: CudaGpu) -> None:
    gpu.enter()
    planes = [on_gpu(gpu, plane) for plane in planes_of(8, 720, 1280).values()]
    geometry, context = geometry_of(planes), CudaContext(gpu.number, primary_ctx=False, current_ctx=True)  # type: ignore[arg-type]
    list(gpu_frames(gpu, planes, geometry, context))  # type: ignore[arg-type]
    before = gpu.counters.allocations
    for _ in range(20):
        list(gpu_frames(gpu, planes, geometry, context))  # type: ignore[arg-type]
    assert gpu.counters.allocations == before


def test_pictures_of_a_session_stay_for_its_encoder(gpu: CudaGpu) -> None:
    spec, model = builtin_model("lanczos2x")
    session, host = CudaSession(model, spec, gpu, pictures_stay=True), OnnxRuntimeSession(model, spec)
    plane = planes_of(8, 90, 120)["plane0"]
    wanted = host.run({"plane": plane})["doubled"].astype(np.int32)
    for turn in range(3):
        before = gpu.counters.from_gpu_bytes
        made = session.run({"plane": plane})["doubled"]
        if turn:  # after the first of its kind
            assert isinstance(made, GpuRows)
            assert gpu.counters.from_gpu_bytes == before
        assert np.abs(np.asarray(made) - wanted).max() <= 1
    session.close()


def test_results_are_drawn_on_it_as_on_the_host(gpu: CudaGpu) -> None:
    gpu.enter()
    planes = planes_of(6, 358, 641)
    drawings = {
        "host": HostDrawing(list(planes.values())),
        "gpu": GpuDrawing([on_gpu(gpu, plane) for plane in planes.values()]),  # type: ignore[arg-type]
    }
    paint = ycbcr_paint(Colour(1, 1, 1, 1), 358)
    for drawing in drawings.values():
        for number in range(5):  # the last picture stays as it is
            canvas = Canvas(drawing.surface(number), paint)
            canvas.tint(np.indices((358, 641)).sum(0).astype(np.uint8), (None, *[(200, number, 9)] * 255), 110)
            canvas.outline(11, 21, 300, 500, (255, 0, 90))
            canvas.blend(5, 7, np.random.default_rng(number).integers(0, 256, (80, 90), np.uint8), (3, 200, 40))
            canvas.text(200, 100, "Größe 车 0.75", (255, 255, 255))
    for host, drawn in zip(drawings["host"].finish(), drawings["gpu"].finish(), strict=True):
        np.testing.assert_array_equal(np.asarray(drawn), host)


def test_a_gpu_that_shall_encode_and_cannot_says_so_in_one_line(gpu: CudaGpu, tmp_path: Path) -> None:
    if GpuEncoder(gpu, None).opens():
        pytest.skip("this GPU opens NVENC")
    with Fleet((), tmp_path) as fleet:
        given = {"RIGFLOW_ENCODER": "gpu", "RIGFLOW_CACHE": str(tmp_path)}
        done = rigflow_process("worker", "--device", "cuda:0", "--nats", fleet.server.url, **given)
    assert done.returncode == ExitCode.USAGE, done.stderr[-2000:]
    output = done.stderr.splitlines()[-1]
    assert output.startswith("rigflow worker: device cuda:0: ")
    assert output.endswith("opens no encoder of H.264 (h264_nvenc): set `encoder` to any or host, see docs/gpus.md")


@pytest.mark.parametrize("encoder", ["any", "gpu"])
def test_an_upscaled_video_of_a_gpu_shows_every_picture(gpu: CudaGpu, tmp_path: Path, encoder: str) -> None:
    opens = GpuEncoder(gpu, None).opens()
    if encoder == "gpu" and not opens:
        pytest.skip("this GPU opens no NVENC")
    shown = []
    for device, given in (("cpu", "host"), ("cuda:0", encoder)):
        with Fleet((ALL_STAGES,), tmp_path / "cache", devices=[device], encoder=given) as fleet:
            (outcome,) = fleet.run(builtin_pipeline("upscale2x"), [real_clip("bikes")], tmp_path / device[:3])
        assert outcome.ok, outcome.error
        with av.open(f"{outcome.target}.mp4") as container:
            shown.append(list(container.decode(video=0)))
    assert [frame.time for frame in shown[0]] == [frame.time for frame in shown[1]]
    for host, mine in zip(*shown, strict=True):
        assert psnr(plane_of(host, 0), plane_of(mine, 0)) > 35


TRAP = """
import sys; from pathlib import Path
from engines.cuda.gpu import CudaGpu
from engines.inference.cuda import CudaSession
from engines.models.catalogue import builtin_model
from schemas.errors import DeviceLost
import numpy as np
gpu = CudaGpu("cuda:0", Path(sys.argv[1]))
spec, model = builtin_model("fingerprint")
session = CudaSession(model, spec, gpu)
pixels = np.zeros((4, 5, 32, 32), np.uint8)
session.run({"pixels": pixels}); session.run({"pixels": pixels})
from engines.cuda.kernels import GATHER
given = np.zeros((), GATHER); given["rows"] = 8; given["out"] = 8; given["row_bytes"] = 64
gpu.kernels.launch("gather", (1, 1), (32, 1, 1), session._runs, given[()])  # reads where nothing is
try:
    for _ in range(3): session.run({"pixels": pixels})
except DeviceLost as error:
    import os; print(error); sys.stdout.flush(); os._exit(error.exit_code)
"""


def test_an_error_of_the_gpu_is_reported_as_a_lost_device(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", TRAP, str(tmp_path)], capture_output=True, text=True, env=os.environ)
    assert done.returncode == ExitCode.DEVICE_LOST, done.stderr[-2000:]
    assert "device cuda:0 failed" in done.stdout
