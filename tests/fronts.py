"""Models as they were exported, read with a card and run, beside plain ONNX Runtime on the original graph."""

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper

from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.models.catalogue import read_files, save_model
from engines.models.reading import travelling_form
from schemas.model import ModelCard, ModelSpec
from tests.onnx_graphs import model_of, value

Array = npt.NDArray[Any]
f32 = np.float32
H, W = 6, 10
NANODET = 'colours = "bgr"\nmean = [103.53, 116.28, 123.675]\nstd = [57.375, 57.12, 58.395]'


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def through(dtype: int, shape: list[int | str], opset: int = 17) -> bytes:
    """`x` -> `y`, the same: what a front makes of a picture, to be seen."""
    return model_of([node("Identity", "x", "y")], [value("x", dtype, shape)], [value("y", dtype, shape)], opset=opset)


def read(body: bytes, card: str = "") -> tuple[ModelSpec, bytes]:
    """The model that travels, made in this process."""
    return travelling_form(body, "m.onnx", ModelCard.model_validate({"name": "m", **tomllib.loads(card)}))


def run(model: tuple[ModelSpec, bytes], **inputs: Array) -> dict[str, Array]:
    return OnnxRuntimeSession(model[1], model[0]).run(inputs)


def plainly(body: bytes, **inputs: Array) -> dict[str, Array]:
    """The original graph's answers."""
    session = onnxruntime.InferenceSession(body, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def frames(rows: int = 2, height: int = H, width: int = W) -> Array:
    """Frames that have each byte somewhere."""
    made = np.random.default_rng(7).integers(0, 256, (rows, height, width, 3), dtype=np.uint8)
    made.reshape(-1)[:256] = np.arange(256)[: made.size]
    return made


def planes(x: Array) -> Array:
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def kept(folder: Path, card: ModelCard | ModelSpec, body: bytes) -> tuple[ModelSpec, bytes]:
    """A model that was saved and is read again."""
    path = save_model(folder, card, body)
    declared, same = read_files(path)
    return travelling_form(same, str(path), declared)
