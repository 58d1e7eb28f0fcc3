"""Models with weights in a file of their own, from `model add` to a worker: answers, memory, and a free event loop.

Short, and with 2.5 GB, which no ONNX file could hold.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engines.models.catalogue import own_model
from pipelines.server import EmbeddedServer
from tests.cli import environment
from tests.event_loop import SLOW_S, slow_callbacks
from tests.fleet import ONE_WORKER, Fleet
from tests.large_models import LAYER_BYTES, large_model, plain_answer
from workers.options import WorkerOptions
from workers.process import Worker

MIB = 1 << 20
PIPELINE = """
name = "large"
media = ["image"]
[[stage]]
kind = "decode"
[[stage]]
kind = "resize"
size = [8, 8]
layout = "gray"
[[stage]]
kind = "infer"
model = "m"
reads = { images = "pixels" }
[[stage]]
kind = "encode"
format = "npz"
"""
# a command, and the most memory that its process used, in bytes
MEASURED = """
import re, sys
from pathlib import Path
from cli.app import answer
code = answer(sys.argv[1:])
print("peak", 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)))
sys.exit(code)
"""


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A broker that takes messages of 1 MiB, as nats-server does by default."""
    monkeypatch.setattr("pipelines.server.MAX_PAYLOAD", MIB)
    server = EmbeddedServer()
    server.start()
    yield server.url
    server.stop()


def watched_worker(options: WorkerOptions, heartbeats: socket.socket | None) -> None:
    """A worker that writes what was slow in its event loop, and the most memory it used, into its cache folder."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    async def work() -> None:
        asyncio.get_running_loop().slow_callback_duration = SLOW_S
        await Worker(options).run()

    with pytest.MonkeyPatch.context() as patch, slow_callbacks(patch) as slow:
        asyncio.run(work(), debug=True)
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    found = {"slow": slow, "peak": 1024 * int(peak.group(1)) if peak else 0}
    (Path(options.settings.cache) / "found.json").write_text(json.dumps(found))
    os._exit(0)


def peak_of(*arguments: object) -> int:
    """Bytes of memory that `rigflow ARGUMENTS` used at most."""
    command = [sys.executable, "-c", MEASURED, *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert ran.returncode == 0, ran.stderr
    return int(re.search(r"^peak (\d+)$", ran.stdout, re.M).group(1))  # type: ignore[union-attr]


@pytest.mark.parametrize("layers", [10, pytest.param(610, marks=(pytest.mark.slow, pytest.mark.timeout(1500)))])
def test_a_large_model_is_in_memory_once_and_blocks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broker: str, layers: int
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RIGFLOW_CACHE", str(tmp_path / "client"))
    path, nbytes = large_model(tmp_path / "m", layers, "m"), layers * LAYER_BYTES
    Image.new("L", (64, 64), 100).save(tmp_path / "grey.png")
    (tmp_path / "large.toml").write_text(PIPELINE)
    small = 400 * MIB  # of Python, ONNX and PyAV
    added = peak_of("model", "add", path, "--yes", "--set", "heads=[]")
    with Fleet(ONE_WORKER, tmp_path / "cache", entry=watched_worker, nats=broker) as fleet:
        published = peak_of("publish", tmp_path / "large.toml", tmp_path / "grey.png", "--job", "j", "--nats", broker)
        peak_of("results", "j", "--follow", "--out", tmp_path / "out", "--nats", broker)
        [worker] = fleet.workers
        worker.send_signal(signal.SIGTERM)
        worker.wait()
    found = json.loads((tmp_path / "cache/found.json").read_text())
    print(f"{nbytes:,} bytes: add {added:,}, publish {published:,}, worker {found['peak']:,}")
    assert found["slow"] == []
    assert max(added, published) < small
    assert found["peak"] < max(small, 1.2 * nbytes)
    [made] = (tmp_path / "out").glob("*.npz")
    with np.load(made) as arrays:
        expected = plain_answer(path, np.full((1, 8, 8), 100, np.uint8))
        np.testing.assert_allclose(arrays["features"], expected, rtol=0, atol=1e-5)
    assert own_model("m")[0].files[0].size == nbytes
    for folder in ("m", "home", "cache"):  # pytest keeps what it made for three runs
        shutil.rmtree(tmp_path / folder)
