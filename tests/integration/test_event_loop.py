"""Nothing of ours keeps a worker's event loop from its other work: asyncio's own log of slow callbacks stays empty."""

import asyncio
import hashlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipelines.broker import Broker
from pipelines.registry import builtin_pipeline
from pipelines.status import fleet_status
from schemas.jobs import Priority
from schemas.model import ModelSpec, TensorSpec
from schemas.pipeline import PipelineSpec
from tests.clips import Clip, make_clip
from tests.event_loop import SLOW_S, slow_callbacks
from tests.fleet import Fleet, Silent
from workers.definitions import find_models, register
from workers.options import WorkerOptions
from workers.process import Worker
from workers.run import run_jobs

MODEL_MB = 60
WITHOUT_INFER = ("split", "decode", "resize", "encode", "collect")


def big_model(megabytes: int) -> tuple[ModelSpec, bytes]:
    """A mean over pixels, with weights that do nothing but weigh."""
    weights = np.random.default_rng(0).integers(0, 255, megabytes << 18, np.uint32).view(np.float32)
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["means"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Gather", ["weights", "zero"], ["weight"]),
        helper.make_node("Mul", ["weight", "none"], ["nothing"]),
        helper.make_node("Add", ["means", "nothing"], ["mean"]),
    ]
    graph = helper.make_graph(
        nodes,
        "big",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 32, 32, 3])],
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["N"])],
        [
            numpy_helper.from_array(np.nan_to_num(weights), "weights"),
            numpy_helper.from_array(np.array([0], np.int64), "zero"),
            numpy_helper.from_array(np.array([0], np.float32), "none"),
        ],
    )
    body = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    card = ModelSpec(
        name="big",
        inputs=(TensorSpec(name="pixels", dtype="uint8", shape=("N", 32, 32, 3)),),
        outputs=(TensorSpec(name="mean", dtype="float32", shape=("N",)),),
        sha256=hashlib.sha256(body).hexdigest(),
    )
    return card, body


BIG = PipelineSpec.model_validate(
    {
        "name": "big",
        "media": "video",
        "stage": [
            {"kind": "decode", "fps": 5},
            {"kind": "resize", "size": [32, 32]},
            {"kind": "infer", "name": "weigh", "model": "big"},
            {"kind": "encode", "format": "npz"},
        ],
    }
)


def test_a_worker_blocks_its_event_loop_with_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large parts go from stage to stage through the broker, and a large model is loaded."""
    clip = make_clip(tmp_path, Clip(frames=8, size=(480, 864)))
    out = tmp_path / "out"
    out.mkdir()
    upscale = builtin_pipeline("upscale2x")
    big = big_model(MODEL_MB)

    async def until(fleet: Fleet, holds: Callable[[dict[str, Any]], bool]) -> None:
        broker = await Broker.connect(fleet.settings)
        while not any(holds(worker) for worker in (await fleet_status(broker)).workers):
            await asyncio.sleep(0.1)
        await broker.close()

    def jobs(fleet: Fleet) -> list[Any]:
        """What a publisher does, in a loop and a thread of its own."""

        async def publish() -> list[Any]:
            broker = await Broker.connect(fleet.settings)
            await register(broker, fleet.settings, BIG, {"big": big})
            await broker.close()
            await until(fleet, lambda worker: worker["worker"] == "watched" and worker["ready"])
            done = []
            for spec, models in ((upscale, find_models(upscale, None)), (BIG, {"big": big})):
                done += await run_jobs(fleet.settings, spec, models, [clip], out, Priority.BULK, Silent())
            return done

        return asyncio.run(publish())

    async def watched(fleet: Fleet) -> list[Any]:
        asyncio.get_running_loop().slow_callback_duration = SLOW_S
        stages = (*WITHOUT_INFER, "weigh")
        worker = asyncio.create_task(
            Worker(WorkerOptions(settings=fleet.settings, stages=stages, name="watched")).run()
        )
        outcomes = await asyncio.to_thread(jobs, fleet)
        os.kill(os.getpid(), signal.SIGTERM)
        await worker
        return outcomes

    with Fleet((("infer",),), tmp_path / "cache", ack_wait_s=60.0) as fleet, slow_callbacks(monkeypatch) as slow:
        outcomes = asyncio.run(watched(fleet), debug=True)
    assert all(outcome.ok for outcome in outcomes), [
        (outcome.error, outcome.done and outcome.done.failures) for outcome in outcomes
    ]
    assert not slow
