"""Tensors through a fleet: npz in and out, by any model, any cut and any batch, with the bytes of one plain session."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from pipelines.broker import Broker
from pipelines.models import load_card
from pipelines.registry import builtin_pipeline, load_pipeline
from pipelines.variants import variant
from schemas.model import ModelSpec
from schemas.pipeline import PipelineSpec
from tests.fleet import ONE_STAGE_EACH, ONE_WORKER, Fleet
from tests.onnx_graphs import FLOAT, INT64, model_of, value
from tests.simulated import models_of
from workers.definitions import register

Arrays = dict[str, np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models: `net` of two inputs, `one` that takes a row at a time, `plain` without a batch."""
    made = tmp_path_factory.mktemp("models")
    weights = np.random.default_rng(1).standard_normal((64, 48)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Softmax", ["product"], ["y"]),
        helper.make_node("ReduceSum", ["ids", "axes"], ["sum"], keepdims=0),
    ]
    constants = (numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.array([1]), "axes"))
    inputs = [value("x", FLOAT, ["N", 64]), value("ids", INT64, ["N", "s"])]
    outputs = [value("y", FLOAT, ["N", 48]), value("sum", INT64, ["N"])]
    (made / "net.onnx").write_bytes(model_of(nodes, inputs, outputs, constants))
    body = [helper.make_node("NonZero", ["x"], ["places"]), helper.make_node("Transpose", ["places"], ["found"])]
    found = helper.make_node("Unsqueeze", ["found", "axis"], ["y"])
    axis = (numpy_helper.from_array(np.array([0]), "axis"),)
    one = model_of([*body, found], [value("x", FLOAT, [1, 8])], [value("y", INT64, [1, "M", 2])], axis)
    (made / "one.onnx").write_bytes(one)
    negated = [helper.make_node("Neg", ["x"], ["y"])]
    (made / "plain.onnx").write_bytes(model_of(negated, [value("x", FLOAT, [3, 2])], [value("y", FLOAT, [3, 2])]))
    (made / "plain.toml").write_text('batch = "none"\n')
    return made


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet((*ONE_WORKER, *ONE_STAGE_EACH), tmp_path_factory.mktemp("cache")) as started:
        yield started


def infer(model: str, **fields: Any) -> PipelineSpec:
    return builtin_pipeline("infer").with_model(model).with_fields({f"{name}": value for name, value in fields.items()})


def given(rows: int, width: int = 2) -> Arrays:
    random = np.random.default_rng(rows)
    return {"x": random.standard_normal((rows, 64)).astype(np.float32), "ids": random.integers(0, 9, (rows, width))}


def test_the_answer_is_that_of_one_session_for_any_cut_and_batch(fleet: Fleet, folder: Path, tmp_path: Path) -> None:
    files = {"long": given(300), "short": given(3), "wide": given(70, 5), "bad": {"x": given(1)["x"]}}
    for name, arrays in files.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
    paths = [tmp_path / f"{name}.npz" for name in files]
    session = onnxruntime.InferenceSession(folder / "net.onnx")
    for out, fields in {"a": {}, "b": {"decode.rows": 7, "infer.max_batch": 5}}.items():
        [outcome] = fleet.run(infer("net", **fields), paths, tmp_path / out, folder=folder)
        assert outcome.done is not None
        wants = "give `x` float32 [N, 64], `ids` int64 [N, s]"
        assert outcome.done.failures == (f"bad.npz: it has no input `ids`, only `x`: {wants}",)
        assert {path.name for path in (tmp_path / out).rglob("*.npz")} == {"long.npz", "short.npz", "wide.npz"}
        for path in (tmp_path / out).rglob("*.npz"):
            found = np.load(path)
            for name, right in zip(("y", "sum"), session.run(["y", "sum"], files[path.stem]), strict=True):
                assert found[name].dtype == right.dtype
                assert found[name].tobytes() == right.tobytes()
                assert found[name].shape == right.shape


def test_models_that_take_a_row_at_a_time(fleet: Fleet, folder: Path, tmp_path: Path) -> None:
    rows = np.array([[0, 1, 0, 0, 0, 0, 2, 0], [0] * 8, [3] + [0] * 7], np.float32)
    np.savez(tmp_path / "x.npz", x=rows)
    [outcome] = fleet.run(infer("one"), [tmp_path / "x.npz"], tmp_path / "out", folder=folder)
    assert outcome.ok
    found = np.load(tmp_path / "out" / "x.infer.npz")
    assert found["y_offsets"].tolist() == [0, 2, 2, 3]
    assert found["y"].tolist() == [[0, 1], [0, 6], [0, 0]]
    pictures = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    np.savez(tmp_path / "p.npz", x=pictures)
    [outcome] = fleet.run(infer("plain"), [tmp_path / "p.npz"], tmp_path / "out", folder=folder)
    assert outcome.ok
    assert np.array_equal(np.load(tmp_path / "out" / "p.infer.npz")["y"], -pictures)


def test_a_job_may_have_another_model_with_other_inputs(fleet: Fleet, folder: Path) -> None:
    async def varied() -> tuple[PipelineSpec, PipelineSpec, ModelSpec]:
        async with Broker.connected(fleet.settings, "test") as broker:
            first, other = infer("net"), infer("one")
            await register(broker, fleet.settings, other, models_of(other, folder), variant=True)
            known = await register(broker, fleet.settings, first, models_of(first, folder))
            made = await variant(broker, await load_pipeline(broker, "infer"), {}, "one")
            return known, made, await load_card(broker, made.models["one"])

    known, made, card = asyncio.run(varied())
    assert known.decode.options["inputs"] == {"x": "float32 [N, 64]", "ids": "int64 [N, s]"}
    assert made.decode.options["inputs"] == {"x": "float32 [N, 8]"}
    assert card == card.of_graph()
