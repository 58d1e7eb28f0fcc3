"""Measures models with heads on a GPU, with their outputs copied whole and reduced, in turn."""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from benchmarks.detect import model_in
from engines.cuda.arrays import GpuRow, GpuRows
from engines.cuda.copies import copied
from engines.cuda.gpu import CudaGpu
from engines.inference.batch import infer_parts
from engines.inference.cuda import CudaSession
from engines.inference.heads import Heads
from engines.models.catalogue import load_model
from engines.part import Array, Part, Value
from engines.pictures import HostPictures
from engines.planned import FRAME_SIZE, INDEX, model_picture_name
from schemas.jobs import JobRef, Key
from schemas.media import MediaInfo
from schemas.model import ModelSpec
from schemas.parts import PartMeta
from schemas.pipeline import OperatorStage
from tests.clips import real_clip

SECONDS, ROUNDS, BATCH, PART = 2.0, 3, 16, 8
CANDIDATES = 100  # a picture, of random weights
CARD = """
[[inputs]]
name = "images"
fit = "letterbox"
resize = "bilinear"
pad_value = 114
[[heads]]
"""
DETECT = 'kind = "detect"\ndecoder = "yolov8"\n'
_COLUMNS = (0, 4), (4, 84)  # of a box and of its scores
_BIAS = np.array(5, np.float32)  # most scores are nearly 0
SEGMENT = 'kind = "segment"\nsize = "model"\n'


def outputs(options: argparse.Namespace) -> dict[str, Any]:
    """Of each model: bytes from the GPU, frames a second and CPU of the infer stage, and whether answers are equal."""
    gpu = CudaGpu(options.device, options.folder / "cache")
    found: dict[str, Any] = {"GPU": gpu.facts.name}
    for name, (spec, model) in models(options.folder).items():
        session = CudaSession(model, spec, gpu)
        found[name] = compared(session, gpu, spec, SECONDS)
        session.close()
    gpu.close()
    return found


def models(folder: Path, side: int = 640) -> dict[str, tuple[ModelSpec, bytes]]:
    """NanoDet at 416, a picture a batch; random weights in the shapes of YOLOv8 and of a segmentation."""
    path, about = model_in(folder)
    nanodet, body = load_model(path)
    made = {f"NanoDet, {about}": (nanodet, body)}
    for name, graph, head in (
        ("yolov8", shaped_as_yolov8(side), DETECT),
        ("segmentation", segmentation(side), SEGMENT),
    ):
        (folder / f"{name}.onnx").write_bytes(graph)
        (folder / f"{name}.toml").write_text(CARD + head)
        made[f"{name} of {side}x{side}, random weights"] = load_model(folder / f"{name}.onnx")
    return made


def compared(session: CudaSession, gpu: Any, spec: ModelSpec, seconds: float) -> dict[str, Any]:
    """The infer stage with outputs copied whole, and with what heads need of them."""
    stage = OperatorStage(kind="infer", name="infer", model=spec.name, max_batch=BATCH)
    parts = [parts_of(gpu, spec, number) for number in range(4)]
    spec = with_few_candidates(session, spec, stage, parts[0])
    heads = Heads(spec)
    ways = {"whole": (), "reduced": heads.reductions}
    figures: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
    answers = {}
    for _ in range(ROUNDS):
        for way, reductions in ways.items():
            session.reduce(reductions)
            answers[way] = arrays_of(infer_parts(stage, session, parts, heads=heads))
            figures[way].append(timed(session, gpu, heads, stage, parts, seconds))
    found: dict[str, Any] = {}
    for way, measured in figures.items():
        names = ("bytes from the GPU a frame", "frames/s", "CPU ms a frame")
        found |= {f"{way}: {name}": median(each) for name, each in zip(names, zip(*measured, strict=True), strict=True)}
    rates = zip(figures["reduced"], figures["whole"], strict=True)
    found["frames/s, reduced beside whole"] = median(mine[1] / other[1] for mine, other in rates)
    return found | {"answers are equal, bit for bit": are_equal(answers["whole"], answers["reduced"])}


def timed(
    session: CudaSession, gpu: Any, heads: Heads, stage: OperatorStage, parts: Sequence[Part], seconds: float
) -> tuple[float, float, float]:
    """Bytes from the GPU a frame, frames a second, CPU milliseconds a frame."""
    before, used_s, began_s, done = gpu.counters.from_gpu_bytes, time.process_time(), time.perf_counter(), 0
    while time.perf_counter() - began_s < seconds:
        infer_parts(stage, session, parts, heads=heads)
        done += len(parts) * PART
    took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - used_s
    return (gpu.counters.from_gpu_bytes - before) / done, done / took_s, 1000 * cpu_s / done


def with_few_candidates(session: CudaSession, spec: ModelSpec, stage: OperatorStage, part: Part) -> ModelSpec:
    """The model with a threshold that `CANDIDATES` candidates a picture exceed, where its weights are random."""
    if spec.name != "yolov8":
        return spec
    bare = spec.model_copy(update={"heads": ()})
    (raw,) = infer_parts(stage, session, [part], heads=Heads(bare))
    assert isinstance(raw, Part), raw
    best = np.sort(raw.array("output0")[:, 4:].max(axis=1), axis=None)
    options = {**spec.heads[0].options, "threshold": float(best[-CANDIDATES * PART])}
    return spec.model_copy(update={"heads": (spec.heads[0].model_copy(update={"options": options}),)})


def parts_of(gpu: Any, spec: ModelSpec, number: int) -> Part:
    """`PART` frames of a clip as the model's picture, in the GPU's memory."""
    (tensor,) = spec.inputs
    assert tensor.picture is not None
    picture, rows, sizes = HostPictures({"picture": tensor.picture}), [], []
    with av.open(real_clip("bikes")) as container:
        for at, frame in enumerate(container.decode(video=0)):
            if at // PART == number:
                pixels = picture.convert(frame)["picture"]
                rows.append(GpuRow(gpu, copied(gpu, pixels), pixels.shape))
                sizes.append((frame.height, frame.width))
            if len(rows) == PART:
                break
    arrays: dict[str, Any] = {model_picture_name("infer", tensor.name): GpuRows(rows)}
    arrays |= {INDEX: np.arange(PART, dtype=np.int32)[:, None], FRAME_SIZE: np.array(sizes, np.int32)}
    key = Key(job=JobRef(id="bench", pipeline="bench", revision="0" * 16), segment=number, part=0, last=True)
    media = MediaInfo(kind="video", width=sizes[0][1], height=sizes[0][0])
    return Part(PartMeta(key=key, media=media, pts=tuple(range(PART)), frames=PART), arrays)


def arrays_of(parts: Sequence[Any]) -> list[Mapping[str, Value]]:
    for part in parts:
        assert isinstance(part, Part), part
    return [part.arrays for part in parts]


def are_equal(one: Sequence[Mapping[str, Value]], other: Sequence[Mapping[str, Value]]) -> bool:
    return all(
        _bytes(first[name]) == _bytes(second[name]) for first, second in zip(one, other, strict=True) for name in first
    )


def _bytes(value: Value) -> list[bytes]:
    arrays = [value] if isinstance(value, np.ndarray) else [value.values, value.offsets]
    return [np.asarray(each).tobytes() for each in arrays]


class _Net:
    """A graph in the making: `images [N, 3, side, side]` float32, seeded random weights."""

    def __init__(self, side: int) -> None:
        self._random, self._side = np.random.default_rng(0), side
        self._nodes: list[Any] = []
        self._kept: list[Any] = []

    def op(self, kind: str, *names: str, result: str = "", **attributes: Any) -> str:
        result = result or f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, names, [result], **attributes))
        return result

    def constant(self, values: Array) -> str:
        self._kept.append(numpy_helper.from_array(values, f"c{len(self._kept)}"))
        return str(self._kept[-1].name)

    def conv(self, value: str, into: int, out: int, kernel: int, stride: int = 1) -> str:
        spread = np.sqrt(2 / (into * kernel**2))
        weights = (self._random.standard_normal((out, into, kernel, kernel)) * spread).astype(np.float32)
        return self.op("Conv", value, self.constant(weights), strides=[stride] * 2, pads=[kernel // 2] * 4)

    def levels(self) -> dict[int, tuple[str, int]]:
        """Features by stride, with their number of channels."""
        value, width, found = "images", 3, {}
        for level, wide in enumerate((16, 32, 64, 128, 256)):
            value = self.op("Relu", self.conv(value, width, wide, 3, 2))
            value, width = self.op("Relu", self.conv(value, wide, wide, 3)), wide
            found[2 << level] = value, width
        return found

    def finish(self, shape: Sequence[int]) -> bytes:
        images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, self._side, self._side])
        output = helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["N", *shape])
        graph = helper.make_graph(self._nodes, "net", [images], [output], self._kept)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return bytes(model.SerializeToString())


def shaped_as_yolov8(side: int) -> bytes:
    """`output0 [N, 84, A]`: boxes of 32 pixels around each cell of three strides, and scores of 80 classes."""
    net, parts, count = _Net(side), [], 0
    levels = net.levels()
    for stride in (8, 16, 32):
        cells = side // stride
        rows, columns = np.divmod(np.arange(cells * cells), cells)
        centers = (np.stack([columns, rows]) + 0.5) * stride
        boxes = np.concatenate([centers, np.full((2, cells * cells), 32.0)])[None].astype(np.float32)
        flat = net.op("Reshape", net.conv(*levels[stride], 84, 1), net.constant(np.array([0, 84, -1])))
        moved, logits = (
            net.op("Slice", flat, *(net.constant(np.array([n])) for n in (first, last, 1))) for first, last in _COLUMNS
        )
        box = net.op("Add", net.op("Tanh", moved), net.constant(boxes))
        scores = net.op("Sigmoid", net.op("Sub", logits, net.constant(_BIAS)))
        parts.append(net.op("Concat", box, scores, axis=1))
        count += cells * cells
    net.op("Concat", *parts, result="output0", axis=2)
    return net.finish((84, count))


def segmentation(side: int) -> bytes:
    """`output0 [N, 21, side, side]`: scores of 21 classes, at a quarter of the side and enlarged."""
    net = _Net(side)
    scales = net.constant(np.array([1, 1, 4, 4], np.float32))
    net.op("Resize", net.conv(*net.levels()[4], 21, 1), "", scales, result="output0", mode="nearest")
    return net.finish((21, side, side))
