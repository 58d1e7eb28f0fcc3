"""The broker and the workers have sessions of their own, with the nice value of the session that started them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli import environment

AUTOGROUP = Path("/proc/self/autogroup")
STARTED = """
from pathlib import Path
from pipelines.server import EmbeddedServer
from schemas.settings import Settings
from workers.forkserver import WorkerProcess
from workers.options import WorkerOptions
from workers.process import start_worker

Path("/proc/self/autogroup").write_text("5")
server = EmbeddedServer()
server.start()
worker = WorkerProcess(WorkerOptions(settings=Settings(nats=server.url), stages=("decode",), name="one"), start_worker)
worker.start_now()
for pid in ("self", server.pid, worker.pid):
    print(Path(f"/proc/{pid}/autogroup").read_text().strip())
server.stop()
"""


@pytest.mark.skipif(not AUTOGROUP.exists() or not AUTOGROUP.read_text(), reason="this kernel has no autogroups")
@pytest.mark.skipif(os.geteuid() != 0, reason="of others the kernel takes ten changes a second in all")
def test_the_broker_and_the_workers_keep_the_nice_value_of_the_session() -> None:
    words = [sys.executable, "-c", STARTED]
    done = subprocess.run(
        words, capture_output=True, text=True, env=environment(), timeout=120, check=False, start_new_session=True
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[-1] for line in lines] == ["5", "5", "5"], done.stderr
    assert len({line[0] for line in lines}) == 3, "each has a session of its own"
