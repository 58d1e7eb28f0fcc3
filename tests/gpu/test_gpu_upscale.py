"""Pictures that are resized, cut into tiles, upscaled and made planes on a GPU have the bytes of the host's."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from engines.backends.onnxruntime import OnnxRuntime
from engines.cuda.arrays import GpuRows
from engines.cuda.gpu import CudaGpu
from engines.cuda.resampling import resized_rows
from engines.geometry import Middle
from engines.models.reading import travelling_form
from engines.operators.scale import Scale
from engines.outputs.colour import picture_planes
from engines.part import Part
from engines.planned import SOURCE_SIZE, model_picture_name
from engines.resizing import filtered
from schemas.model import InputCard, ModelCard, ModelSpec
from schemas.picture import PictureSpec
from schemas.pipeline import OperatorStage, parse_pipeline
from schemas.rig import ALL_STAGES
from schemas.settings import Settings
from tests.clips import real_clip
from tests.convolutions import convolutions, whole
from tests.fleet import Fleet
from tests.host_gpu import on_gpu
from tests.integration.test_upscale import on_twos, pipeline
from tests.reducing import copied_back
from tests.unit.test_cuda import FILTERS
from tests.unit.test_outputs_video import plane_of, psnr
from tests.unit.test_tiles import HEAD, Array, inferred, noise, part_of

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]
INPUT = model_picture_name("infer", "input")


def frame_of(clip: str) -> Array:
    with av.open(real_clip(clip)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


@pytest.mark.parametrize(("resize", "antialias"), FILTERS)
@pytest.mark.parametrize("size", [(91, 161), (640, 640), (1440, 300), (13, 900)])
def test_its_filters_give_the_hosts_bytes(gpu: CudaGpu, resize: str, antialias: bool, size: tuple[int, int]) -> None:
    gpu.enter()
    frame = frame_of("bigbuckbunny")
    spec = PictureSpec(resize=resize, antialias=antialias)
    for pixels in (frame, frame // 128 * 255, np.ascontiguousarray(frame[..., 0])):
        [made] = resized_rows(on_gpu(gpu, pixels[None]), size, resize, antialias).on_host()
        np.testing.assert_array_equal(made, filtered(pixels, size, Middle((0, 0), size), spec))


@pytest.mark.parametrize("factor", [0, 0.5, 1.5])
@pytest.mark.parametrize("size", [(360, 640), (144, 176)])
def test_its_scaled_pictures_and_planes_are_the_hosts(gpu: CudaGpu, size: tuple[int, int], factor: float) -> None:
    gpu.enter()
    pixels = noise(7, 3, 2 * size[0], 2 * size[1], 3)
    host = part_of([np.zeros((*size, 3), np.uint8)] * 3)
    arrays = {
        "image": pixels,
        SOURCE_SIZE: np.array([size] * 3, np.int32),
        "index": host.array("index"),
        model_picture_name("scale", "alpha"): np.full((3, *size), 255, np.uint8),
    }
    host, mine = host.with_arrays(arrays), host.with_arrays({**arrays, "image": on_gpu(gpu, pixels)})  # type: ignore[dict-item]
    scale = Scale(OperatorStage(kind="scale", name="scale", options={"factor": factor}), None)
    planes: list[Any] = []
    with copied_back(gpu) as copied:
        for part in (host, mine):
            [scaled] = scale.run([part], None, lambda: None)
            assert isinstance(scaled, Part)
            planes.append(picture_planes(scaled.with_arrays({"pixels": scaled.array("image")})))
    assert copied == [0]
    for one, other in zip(planes[0][0], planes[1][0], strict=True):
        assert isinstance(other, GpuRows)
        np.testing.assert_array_equal(np.asarray(other), np.asarray(one))


def opened(gpu: CudaGpu, graph: bytes, tile: tuple[int, int], overlap: int, **more: Any) -> tuple[ModelSpec, Any]:
    card = InputCard.model_validate({"name": "input", "tile": tile, "overlap": overlap, **more})
    spec, body = travelling_form(graph, "m", ModelCard.model_validate({"name": "m", "inputs": (card,), "heads": HEAD}))
    device: Any = SimpleNamespace(gpu=gpu, encoder=SimpleNamespace(on_gpu=False))
    session = OnnxRuntime(Settings()).open(body, spec, device)
    session.warm_up()
    return spec, session


@pytest.mark.parametrize("border", ["reflect", "edge"])
@pytest.mark.parametrize("size", [(52, 60), (24, 20), (3, 40), (1, 1), (240, 320)])
def test_its_tiles_are_those_of_the_host(gpu: CudaGpu, size: tuple[int, int], border: str) -> None:
    """The same session answers for pictures of the host, which are cut and put together there: equal bytes.

    Float32 convolutions of a GPU round otherwise than the host's: a level of 255 where a value lies between two bytes.
    """
    graph = convolutions(3)
    spec, session = opened(gpu, graph, (24, 20), 3, border=border)
    frames = [noise(number, *size, 3) for number in (0, 0, 1, 2)]
    part = part_of(frames)
    there = part.with_arrays({**part.arrays, INPUT: on_gpu(gpu, part.array(INPUT))})  # type: ignore[dict-item]
    [host] = inferred(spec, session, [part])
    [mine] = inferred(spec, session, [there])
    assert isinstance(mine.array("image"), GpuRows)
    assert mine.meta.held == host.meta.held > 0
    np.testing.assert_array_equal(np.asarray(mine.array("image")), np.asarray(host.array("image")))
    if border == "reflect" and min(size) >= 24:
        for frame, image in zip(frames, np.asarray(mine.array("image")), strict=True):
            gap = np.abs(whole(graph, frame).astype(np.int32) - image)
            assert gap.max() <= 1
            assert (gap > 0).mean() < 0.01
    session.close()


def test_nothing_is_allocated_for_the_parts_that_follow(gpu: CudaGpu) -> None:
    spec, session = opened(gpu, convolutions(3), (24, 20), 3)
    part = part_of([noise(number, 52, 60, 3) for number in range(4)])
    there = part.with_arrays({**part.arrays, INPUT: on_gpu(gpu, part.array(INPUT))})  # type: ignore[dict-item]
    for _ in range(3):
        inferred(spec, session, [there])
    before = gpu.counters.allocations
    for _ in range(10):
        inferred(spec, session, [there])
    assert gpu.counters.allocations == before
    session.close()


def test_a_film_upscaled_on_it_is_that_of_the_host(tmp_path: Path) -> None:
    clip, spec = on_twos(tmp_path), parse_pipeline(pipeline(tmp_path).read_text(), "up.toml")
    films = []
    for device in ("cpu", "cuda:0"):
        with Fleet((ALL_STAGES,), tmp_path / "cache", devices=[device]) as fleet:
            [outcome] = fleet.run(spec, [clip], tmp_path / device[:3], folder=tmp_path)
        assert outcome.ok, outcome.error
        with av.open(f"{outcome.target}.mp4") as container:
            films.append(list(container.decode(video=0)))
    for host, mine in zip(*films, strict=True):
        assert psnr(plane_of(host, 0), plane_of(mine, 0)) > 45
