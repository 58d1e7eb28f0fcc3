"""A worker whose device decodes in advance, on several threads, as a GPU does: here on the host's cores."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import engines.device
from engines.part import Part
from pipelines.registry import builtin_pipeline
from schemas.rig import ALL_STAGES
from schemas.settings import Settings
from tests.clips import real_clip
from tests.fleet import Fleet, Killing, Silent
from tests.prefetching import PrefetchingHost
from workers.inputs import JobOutcome
from workers.options import WorkerOptions
from workers.process import start_worker

CLIPS = ("bikes", "carphone_pristine")


class Prefetching(PrefetchingHost):
    """Four segments at a time."""

    stuck = False

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, 4)

    def _decoded(self, parts: Iterator[Part]) -> Iterator[Part]:
        return _never() if self.stuck else parts


def _never() -> Iterator[Part]:
    while True:
        time.sleep(60)
    yield


def start_prefetching(options: WorkerOptions, heartbeats: socket.socket | None) -> None:
    engines.device.Host = Prefetching  # type: ignore[attr-defined, misc]
    start_worker(options, heartbeats)


def start_stuck_first(options: WorkerOptions, heartbeats: socket.socket | None) -> None:
    Prefetching.stuck = options.name == "test-0"
    start_prefetching(options, heartbeats)


def arrays_of(outcomes: list[JobOutcome]) -> list[dict[str, Any]]:
    assert all(outcome.ok for outcome in outcomes), [outcome.error for outcome in outcomes]
    return [dict(np.load(f"{outcome.target}.npz")) for outcome in outcomes]


def assert_equal(made: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    for one, other in zip(made, wanted, strict=True):
        assert one.keys() == other.keys()
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name])


def test_it_answers_like_one_that_decodes_when_asked(tmp_path: Path) -> None:
    spec, paths = builtin_pipeline("fingerprint"), [real_clip(name) for name in CLIPS]
    with Fleet((ALL_STAGES,), tmp_path / "cache") as fleet:
        wanted = arrays_of(fleet.run(spec, paths, tmp_path / "plain"))
    with Fleet((ALL_STAGES,), tmp_path / "cache", entry=start_prefetching, ack_wait_s=2.0) as fleet:
        assert_equal(arrays_of(fleet.run(spec, paths, tmp_path / "ahead")), wanted)
        killing = Killing(fleet)
        assert_equal(
            arrays_of(fleet.run(spec.model_copy(update={"segment_s": 1.0}), paths, tmp_path / "k", killing)), wanted
        )


def test_what_a_stuck_decoder_holds_goes_to_another_worker(tmp_path: Path) -> None:
    spec, path = builtin_pipeline("fingerprint"), real_clip("carphone_pristine")
    with Fleet((ALL_STAGES,) * 2, tmp_path / "cache", entry=start_stuck_first, ack_wait_s=1.0) as fleet:
        [outcome] = fleet.run(spec.model_copy(update={"segment_s": 1.0}), [path], tmp_path / "out", Silent())
    assert outcome.ok, outcome.error
