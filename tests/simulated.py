"""The model `simulated` and workers that run it at a pace; `tests/packages` has its backend as an installed package."""

import hashlib
import os
import socket
from functools import partial
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from rigflow_simulated import BODY, CARD
from rigflow_simulated import DEFAULT_MS as DEFAULT_MS
from rigflow_simulated import PACE as PACE

from engines.models.catalogue import builtin_model, save_model
from schemas.model import ModelSpec
from schemas.pipeline import PipelineSpec
from tests.onnx_graphs import INT64, UINT8, model_of, value
from workers.definitions import find_models
from workers.forkserver import Entry
from workers.options import WorkerOptions


def models_of(spec: PipelineSpec, folder: Path | None = None) -> dict[str, tuple[ModelSpec, bytes]]:
    """`workers.definitions.find_models`, where `simulated` is there too."""
    names = spec.model_names.values()
    if CARD.name not in names:
        return find_models(spec, folder)
    return {name: (CARD, BODY) if name == CARD.name else builtin_model(name) for name in names}


def write_model(folder: Path) -> None:
    """Write `simulated` as an ONNX file that a pipeline's file beside it may name; its graph is never run."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["wide"], to=INT64),
        helper.make_node("ReduceSum", ["wide", "axes"], ["sums"], keepdims=0),
        helper.make_node("Cast", ["sums"], ["crc32"], to=TensorProto.UINT32),
    ]
    given, made = value("pixels", UINT8, ["N", "H", "W"]), value("crc32", TensorProto.UINT32, ["N"])
    body = model_of(nodes, [given], [made], (numpy_helper.from_array(np.array([1, 2]), "axes"),))
    save_model(folder, CARD.model_copy(update={"sha256": hashlib.sha256(body).hexdigest()}), body)


def at_pace(entry: Entry, pace_ms: float) -> Entry:
    """What a worker process runs that takes so many milliseconds for a frame."""
    return partial(_start_at_pace, entry, pace_ms)


def _start_at_pace(entry: Entry, pace_ms: float, options: WorkerOptions, heartbeats: socket.socket | None) -> None:
    os.environ[PACE] = str(pace_ms)
    entry(options, heartbeats)
