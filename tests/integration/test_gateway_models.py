"""Models by HTTP: added, updated while jobs run, and removed."""

import asyncio
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from engines.models.catalogue import load_model  # noqa: E402
from pipelines.broker import Broker  # noqa: E402
from schemas.pipeline import parse_pipeline  # noqa: E402
from schemas.settings import Settings  # noqa: E402
from tests.clips import real_clip  # noqa: E402
from tests.fleet import ONE_WORKER, Fleet  # noqa: E402
from tests.gateway import Gateway  # noqa: E402
from tests.onnx_graphs import FLOAT, model_of, value  # noqa: E402
from workers.definitions import register  # noqa: E402

PIPELINE = """
name = "p"
media = "video"
[[stage]]
kind = "decode"
fps = 2
[[stage]]
kind = "resize"
size = [32, 32]
layout = "rgb"
[[stage]]
kind = "infer"
model = "m"
[[stage]]
kind = "encode"
format = "npz"
"""


def reducing(operation: str) -> bytes:
    """`images [N, 3, 32, 32]` -> `out [N, 3]`."""
    node = helper.make_node(operation, ["images"], ["out"], axes=[2, 3], keepdims=0)
    return model_of([node], [value("images", FLOAT, ["N", 3, 32, 32])], [value("out", FLOAT, ["N", 3])])


def of_numbers() -> bytes:
    """A model that takes no pictures."""
    node = helper.make_node("Relu", ["numbers"], ["out"])
    return model_of([node], [value("numbers", FLOAT, ["N", 7])], [value("out", FLOAT, ["N", 7])])


async def _register(settings: Settings, model: Path) -> None:
    async with Broker.connected(settings, "test") as broker:
        await register(broker, settings, parse_pipeline(PIPELINE, "p.toml"), {"m": load_model(model)})


def _answer(http: Any, job: str) -> Any:
    """What a job answered, once it is over."""
    with http.stream("GET", f"/jobs/{job}/events") as stream:
        assert '"state": "done"' in list(stream.iter_lines())[-2]
    [file] = http.get(f"/jobs/{job}/results").json()["files"]
    arrays = np.load(io.BytesIO(http.get(f"/jobs/{job}/results/{file['name']}").content))
    [values] = [arrays[name] for name in arrays.files if arrays[name].shape[1:] == (3,)]  # a card may name it
    return values


def test_a_model_is_updated_while_its_pipeline_serves(tmp_path: Path) -> None:
    body, clip = reducing("ReduceMean"), real_clip("bikes").read_bytes()
    (tmp_path / "m.onnx").write_bytes(body)
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        asyncio.run(_register(fleet.settings, tmp_path / "m.onnx"))
        with Gateway(fleet.settings) as gateway, httpx.Client(base_url=f"{gateway.url}/api/v1", timeout=60) as http:
            [listed] = http.get("/models").json()["models"]
            assert (listed["name"], listed["pipelines"]) == ("m", ["p"])
            while not (ready := http.get("/models/m/readiness").json())["workers"]:
                time.sleep(0.05)  # the worker starts
            assert ready["engines"] == []
            assert [(each["worker"], each["device"], each["pipeline"]) for each in ready["workers"]] == [
                ("test-0", "cpu", "p")
            ]
            first = _answer(http, http.post("/jobs?pipeline=p", content=clip).json()["id"])
            for wrong in (b"no model", of_numbers()):
                assert http.post("/models?name=m", content=wrong).status_code == 422
            assert http.get("/models/m").json()["identity"] == listed["identity"]
            made = http.post("/models?name=m&set=heads.0.kind=raw", content=reducing("ReduceMax"))
            assert (made.status_code, made.json()["pipelines"]) == (201, ["p"])
            second = _answer(http, http.post("/jobs?pipeline=p", content=clip).json()["id"])
            assert first.shape == second.shape
            assert (first < second).all()
            assert http.delete("/models/m").status_code == 409
            other = http.post("/models?name=other&set=heads.0.kind=raw", content=reducing("ReduceMin"))
            assert other.json()["pipelines"] == []
            chosen = http.post("/jobs?pipeline=p&model=other", content=clip).json()["id"]
            assert (_answer(http, chosen) < first).all()
            assert http.delete("/models/other").status_code == 204
            assert http.get("/models/other").status_code == 404
