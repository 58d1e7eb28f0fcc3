"""What a GPU's kernels leave of outputs, and what a session on it copies back: as their twin and the host have it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import onnx
import pytest
from onnxruntime.transformers.float16 import convert_float_to_float16

from engines.backends.onnxruntime import OnnxRuntime
from engines.cuda.gpu import CudaGpu
from engines.heads.reductions import Selected, Selection
from engines.heads.view import view_of
from engines.inference.cuda import CudaSession
from engines.inference.heads import Heads
from engines.models.catalogue import load_model
from engines.pictures import HostPictures
from engines.registry import load
from schemas.model import ModelSpec
from schemas.picture import PictureSpec
from schemas.settings import Settings
from tests.clips import real_clip
from tests.reducing import by_kernels, by_twin, check_equal, copied_back, detector
from tests.unit.detector_cases import CASES, VIEWS
from tests.unit.head_reference import described
from tests.unit.test_cuda_outputs import CARD, COUNT, DETECT, RECORD, above, answers, boxes, instances, pixels, planes
from tests.unit.test_reductions import PLANES, SELECTING, STRANGE, head_of
from tests.weights import weights

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore::RuntimeWarning")]
PICTURE = PictureSpec(size=(6, 8))


def session_of(gpu: CudaGpu, spec: ModelSpec, model: bytes) -> CudaSession:
    """A session as a worker opens it."""
    device: Any = SimpleNamespace(gpu=gpu, encoder=SimpleNamespace(on_gpu=False))
    opened = OnnxRuntime(Settings()).open(model, spec, device)
    assert isinstance(opened, CudaSession)
    return opened


def with_strange(array: np.ndarray, seed: int, dtype: Any) -> np.ndarray:
    array, random = array.astype(dtype), np.random.default_rng(seed)
    places = random.integers(0, array.size, 40)
    with np.errstate(over="ignore"):
        array.reshape(-1)[places] = np.array(STRANGE)[random.integers(0, len(STRANGE), 40)]
    return array


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("name", SELECTING)
def test_its_selection_is_that_of_the_twin(gpu: CudaGpu, name: str, dtype: Any) -> None:
    case = SELECTING[name]
    for seed, threshold in enumerate((0.0, case.threshold, 0.25, 0.5, 1.0)):
        outputs = {
            name: with_strange(value, seed, dtype) if value.dtype.kind == "f" else value
            for name, value in case.outputs.items()
        }
        head = head_of(case, threshold=threshold)
        found = by_kernels(gpu, head.reductions, outputs)
        if not any(isinstance(each, Selection) and each.softmax for each in head.reductions):
            check_equal(found, by_twin(head.reductions, outputs))
        check_equal(head.decode(found, VIEWS), head.decode(outputs, VIEWS))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("name", PLANES)
def test_its_bytes_are_those_of_the_twin(gpu: CudaGpu, name: str, dtype: Any) -> None:
    kind, shape, options = PLANES[name]
    halves = np.resize((np.arange(256) + 0.5) / 255, (3, *shape))
    noise = np.random.default_rng(0).uniform(-0.2, 1.2, (3, *shape))
    for seed, values in enumerate((halves, noise, noise * 100)):
        outputs = {"o": with_strange(values, seed, dtype)}
        reductions = load("heads", kind)(options, described(outputs), PICTURE).reductions
        check_equal(by_kernels(gpu, reductions, outputs), by_twin(reductions, outputs))


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.52, 1.0])
def test_candidates_alone_come_back(gpu: CudaGpu, tmp_path: Path, threshold: float) -> None:
    spec, model = boxes(tmp_path, threshold)
    session, plain = session_of(gpu, spec, model), CudaSession(model, spec, gpu)
    session.warm_up()
    plain.warm_up()
    for rows in (1, 5, 16):
        whole = plain.run({"images": pixels(rows)})
        with copied_back(gpu) as copied:
            found = session.run({"images": pixels(rows)})
        assert isinstance(found["output0"], Selected)
        near = int((whole["output0"][:, 4:].max(axis=1) > np.float32(threshold * 0.98)).sum())
        assert copied == [COUNT + near * RECORD]
        check_equal(answers(spec, found, rows), answers(spec, whole, rows))
    session.close()
    plain.close()


def test_batches_in_flight_do_not_disturb_each_other_and_allocate_nothing(gpu: CudaGpu, tmp_path: Path) -> None:
    spec, model = boxes(tmp_path, 0.5)
    session = session_of(gpu, spec, model)
    session.warm_up()
    expected = [answers(spec, session.run({"images": pixels(16, seed)}), 16) for seed in range(8)]
    started = [session.start({"images": pixels(16, seed)}) for seed in range(2)]
    for seed in range(2, 34):
        before = gpu.counters.allocations if seed > 8 else None
        check_equal(answers(spec, started.pop(0)(), 16), expected[(seed - 2) % 8])
        started.append(session.start({"images": pixels(16, seed % 8)}))
        assert before in (None, gpu.counters.allocations)
    for finish in started:
        finish()
    session.close()


def test_outputs_in_float16_are_selected_too(gpu: CudaGpu, tmp_path: Path) -> None:
    detector(tmp_path / "wide.onnx")
    half = convert_float_to_float16(onnx.load(tmp_path / "wide.onnx"))
    onnx.save(half, tmp_path / "boxes.onnx")
    (tmp_path / "boxes.toml").write_text(CARD.format(head=DETECT.format(threshold=0.5)))
    spec, model = load_model(tmp_path / "boxes.onnx")
    assert spec.outputs[0].dtype == "float16"
    session, plain = session_of(gpu, spec, model), CudaSession(model, spec, gpu)
    for _ in range(2):
        found, whole = (each.run({"images": pixels(9)}) for each in (session, plain))
        check_equal(answers(spec, found, 9), answers(spec, whole, 9))
    assert isinstance(found["output0"], Selected)
    session.close()
    plain.close()


@pytest.mark.parametrize(("kind", "channels", "options"), [("segment", 21, {}), ("image", 3, {}), ("matte", 1, {})])
def test_a_picture_comes_back_as_bytes_at_any_size_or_stays(
    gpu: CudaGpu, kind: str, channels: int, options: dict[str, Any]
) -> None:
    spec, model = planes(kind, channels, **options)
    session, plain = session_of(gpu, spec, model), CudaSession(model, spec, gpu)
    for height, width in ((20, 30), (33, 17), (720, 1280), (20, 30)):
        given = np.random.default_rng(1).integers(0, 256, (3, height, width, 3), np.uint8)
        for _ in range(2):
            whole = plain.run({"pixels": given})
            with copied_back(gpu) as copied:
                found = session.run({"pixels": given})
        check_equal(found, by_twin(Heads(spec).reductions, whole))
        assert copied == [0 if kind == "image" else 3 * height * width]
    session.close()
    plain.close()


def test_an_output_whose_size_depends_on_what_is_seen_comes_back_whole(gpu: CudaGpu) -> None:
    spec, model = above([1, "K", 6])
    session = session_of(gpu, spec, model)
    for row in ([0, 200, 0, 0, 0, 0, 0, 0], [200, 150, 220, 0, 0, 0, 0, 0], [0] * 8, [101] * 8, [200] + [0] * 7):
        found: Any = answers(spec, session.run({"x": np.array([row], np.uint8)}), 1)
        assert sorted(found["scores"].values.tolist()) == sorted(each for each in row if each > 100)
    session.close()


def test_a_model_exported_for_one_row_runs_one_row_at_a_time(gpu: CudaGpu, tmp_path: Path) -> None:
    detector(tmp_path / "boxes.onnx", batch=1)
    (tmp_path / "boxes.toml").write_text(CARD.format(head=DETECT.format(threshold=0.5)))
    spec, model = load_model(tmp_path / "boxes.onnx")
    session, plain = session_of(gpu, spec, model), CudaSession(model, spec, gpu)
    for seed in range(3):
        found, whole = (each.run({"images": pixels(1, seed)}) for each in (session, plain))
        check_equal(answers(spec, found, 1), answers(spec, whole, 1))
    session.close()
    plain.close()


def test_prototypes_come_back_for_pictures_with_boxes_alone(gpu: CudaGpu) -> None:
    spec, model = instances(0.5)
    session, plain = session_of(gpu, spec, model), CudaSession(model, spec, gpu)
    given = np.random.default_rng(0).integers(0, 120, (4, 8, 8, 3), np.uint8)
    given[2, 3, 4:6, 2] = 200, 220
    for _ in range(3):
        whole = answers(spec, plain.run({"pixels": given}), 4)
        with copied_back(gpu) as copied:
            found = answers(spec, session.run({"pixels": given}), 4)
        check_equal(found, whole)
    assert copied == [COUNT + 2 * (4 + 4 * 8) + 3 * 8 * 8 * 4]
    session.close()
    plain.close()


def test_every_family_is_among_the_selections() -> None:
    assert {case.decoder for case in CASES.values()} - {case.decoder for case in SELECTING.values()} == {"arrays"}


def test_nanodet_finds_the_same_of_the_candidates_that_come_back(gpu: CudaGpu, tmp_path: Path) -> None:
    from benchmarks.detect import CARD as NANODET

    path = tmp_path / "detector.onnx"
    path.write_bytes(weights("nanodet_g_416.onnx").read_bytes())
    path.with_suffix(".toml").write_text(NANODET)
    spec, model = load_model(path)
    session, plain = session_of(gpu, spec, model), CudaSession(model, spec, gpu)
    (tensor,) = spec.inputs
    assert tensor.picture is not None
    with av.open(real_clip("bikes")) as container:
        frame = next(container.decode(video=0))
    given = {"images": HostPictures({"picture": tensor.picture}).convert(frame)["picture"][None]}
    heads, views = Heads(spec), [view_of((frame.height, frame.width), tensor.picture)]
    for _ in range(2):
        with copied_back(gpu) as copied:
            found = session.run(given)
        boxes_found, boxes_there = (heads(outputs, views, 1) for outputs in (found, plain.run(given)))
        check_equal(boxes_found, boxes_there)
    assert len(boxes_found["scores"].values) > 0  # type: ignore[union-attr]
    assert copied[0] < 20_000
    session.close()
    plain.close()
