"""Many large uploads at once, of more bytes than the broker keeps: the gateway's memory stays flat.

They go on for eight minutes, in which the store is full and drained again and again.
"""

import pytest

pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from benchmarks.gateway import run
from schemas.settings import MIB

UPLOADS, MEGABYTES, STORE, SECONDS = 50, 2048, 8192, 480


@pytest.mark.slow
def test_fifty_uploads_of_two_gigabytes_at_once_take_flat_memory() -> None:
    idle, quarters = run(UPLOADS, MEGABYTES, STORE, SECONDS)
    assert max(quarters) < idle + 256 * MIB
    assert quarters[-1] < 1.25 * quarters[1], "it does not grow"
