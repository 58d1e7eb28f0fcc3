"""Many large uploads at once, of more bytes than the broker keeps: all are done, and no process takes more memory.

The films are worked on by workers, and deleted when they are done, so that the store is full and drained again and
again.
"""

import pytest

pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from benchmarks.gateway import Seen, run
from schemas.settings import MIB

MOST = {"gateway": 160 * MIB, "workers": 700 * MIB}  # more than when idle


def _check(seen: Seen, uploads: int) -> None:
    print(*seen.lines(), sep="\n")
    assert seen.states == {"done": uploads}
    assert len(seen.digests) == 1, "all films are the same"
    assert set(seen.answers) <= {201, 429, 503}
    for kind, most in MOST.items():
        assert max(seen.rss[kind]) < seen.idle[kind] + most, kind


def test_uploads_of_more_bytes_than_the_broker_keeps_are_all_done() -> None:
    _check(run(uploads=8, megabytes=24, store=64, workers=1, seconds=120), uploads=8)


@pytest.mark.slow
def test_fifty_large_uploads_at_once_are_all_done_in_flat_memory() -> None:
    seen = run(uploads=50, megabytes=400, store=2048, workers=2, seconds=1500)
    _check(seen, uploads=50)
    for kind in MOST:
        quarters = seen.quarters(kind)
        assert quarters[-1] < 1.25 * quarters[1] + 64 * MIB, f"memory of the {kind} grows"


@pytest.mark.slow
def test_fifty_uploads_of_two_gigabytes_at_once_take_flat_memory_as_long_as_they_go_on() -> None:
    seen = run(uploads=50, megabytes=2048, store=8192, workers=2, seconds=600)
    print(*seen.lines(), sep="\n")
    assert set(seen.answers) <= {201, 429, 503}
    assert seen.states["done"] == seen.states.total() > 0
    for kind, most in MOST.items():
        assert max(seen.rss[kind]) < seen.idle[kind] + most, kind
