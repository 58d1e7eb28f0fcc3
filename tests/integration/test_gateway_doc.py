"""The examples of docs/gateway.md, run by curl in their order against a real gateway."""

import asyncio
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from tests.clips import real_clip
from tests.fleet import ONE_WORKER, Fleet
from tests.gateway import Gateway
from workers.definitions import register_builtin

PAGE = Path(__file__).parents[2] / "docs" / "gateway.md"
COMMANDS = [line[2:] for block in re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
            for line in block.splitlines() if line.startswith("$ ")]  # fmt: skip


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_examples_work(tmp_path: Path) -> None:
    shutil.copy(real_clip("bikes"), tmp_path / "clip.mp4")
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        asyncio.run(register_builtin(fleet.settings))
        with Gateway(fleet.settings) as gateway:
            for command in COMMANDS:
                ran = subprocess.run(
                    ["sh", "-ec", command],
                    cwd=tmp_path,
                    env=os.environ | {"GATEWAY": gateway.url, "WORKER": "test-0"},
                    capture_output=True,
                    text=True,
                    timeout=100,
                )
                assert ran.returncode == 0, (command, ran.stdout, ran.stderr)
                assert '"urn:rigflow:error' not in ran.stdout, (command, ran.stdout)
    assert (tmp_path / "clip.fingerprint.npz").stat().st_size > 1000
