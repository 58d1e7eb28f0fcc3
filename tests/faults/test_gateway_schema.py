"""Requests that schemathesis makes by the gateway's own description: 0 failures. `make test-api` makes more of them."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from onnx import helper

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("schemathesis")

from pipelines.broker import Broker  # noqa: E402
from pipelines.registry import builtin_pipeline  # noqa: E402
from schemas.settings import Settings  # noqa: E402
from tests.clips import real_clip  # noqa: E402
from tests.fleet import ONE_WORKER, Fleet  # noqa: E402
from tests.gateway import Gateway  # noqa: E402
from tests.onnx_graphs import FLOAT, model_of, value  # noqa: E402
from workers.definitions import find_models, register, register_builtin  # noqa: E402

FOLDER = Path(__file__).parent
SAME = helper.make_node("Identity", ["x"], ["y"])
NET = model_of([SAME], [value("x", FLOAT, ["N", 4])], [value("y", FLOAT, ["N", 4])])


@pytest.mark.slow
def test_requests_by_its_description_get_answers_by_its_description(tmp_path: Path) -> None:
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        asyncio.run(_register(fleet.settings, tmp_path))
        with Gateway(fleet.settings) as gateway:
            _make(gateway.url)
            program = (Path(sys.executable).parent / "schemathesis", "--config-file", FOLDER / "schemathesis.toml")
            limits = ("--max-examples", os.environ.get("TEST_EXAMPLES", "10"), "--request-timeout", "60")
            only = ("--include-path-regex", "^/(api/v1/|v1/|v2|livez|readyz)")  # not the page
            phases = ("--phases", "examples,coverage,fuzzing")  # with names that are there
            ran = subprocess.run(
                [*program, "run", f"{gateway.url}/api/v1/openapi.json", *limits, *only, *phases],
                cwd=tmp_path,  # it keeps what failed in its folder
                env=os.environ | {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(FOLDER)},
                capture_output=True,
                text=True,
                timeout=1700,
            )
            print(ran.stdout)
            assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr


async def _register(settings: Settings, folder: Path) -> None:
    """What comes with rigflow, and a model `net` of numbers."""
    await register_builtin(settings)
    (folder / "net.onnx").write_bytes(NET)
    spec = builtin_pipeline("infer").with_model("net")
    async with Broker.connected(settings, "test") as broker:
        await register(broker, settings, spec, find_models(spec, folder), variant=True)


def _make(url: str) -> None:
    """Make what the requests name: a job, an upload, and a dead letter."""
    tus = {"Tus-Resumable": "1.0.0", "Upload-Length": "100", "Idempotency-Key": "known"}
    with httpx.Client(base_url=f"{url}/api/v1", timeout=60) as http:
        http.post(
            "/jobs?pipeline=fingerprint", content=real_clip("bikes").read_bytes(), headers={"Idempotency-Key": "known"}
        )
        http.post("/uploads?pipeline=fingerprint", headers=tus)
        http.post("/jobs?pipeline=fingerprint", content=b"no media")
        while not http.get("/dead-letters").json()["letters"]:
            time.sleep(0.1)
