"""A worker whose device decodes in advance, on several threads, as a GPU does: here on the host's cores."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import engines.device
from engines.encoding import Encoded, Pictures, VideoOptions
from engines.outputs.software import Software
from engines.part import Part, Tick, no_tick
from pipelines.registry import builtin_pipeline
from schemas.errors import MediaError
from schemas.pipeline import parse_pipeline
from schemas.rig import ALL_STAGES
from schemas.settings import Settings
from tests.clips import Clip, make_clip, real_clip
from tests.fleet import Fleet, Killing, Silent
from tests.prefetching import PrefetchingHost
from workers.inputs import JobOutcome
from workers.options import WorkerOptions
from workers.process import start_worker
from workers.stages import LoadedPipeline

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
    with Fleet((ALL_STAGES,), tmp_path / "cache", entry=start_prefetching, ack_wait_s=3.0) as fleet:
        assert_equal(arrays_of(fleet.run(spec, paths, tmp_path / "ahead")), wanted)
        killing = Killing(fleet)
        assert_equal(
            arrays_of(fleet.run(spec.model_copy(update={"segment_s": 1.0}), paths, tmp_path / "k", killing)), wanted
        )


def test_what_a_stuck_decoder_holds_goes_to_another_worker(tmp_path: Path) -> None:
    spec, path = builtin_pipeline("fingerprint"), real_clip("carphone_pristine")
    with Fleet((ALL_STAGES,) * 2, tmp_path / "cache", entry=start_stuck_first, ack_wait_s=3.0) as fleet:
        [outcome] = fleet.run(spec.model_copy(update={"segment_s": 1.0}), [path], tmp_path / "out", Silent())
    assert outcome.ok, outcome.error


class Waiting(Software):
    """Encodes a part of a film only after the next one has begun to be inferred; the last one has none that follows."""

    parts = 5
    begun = threading.Semaphore(0)

    def encode(self, pictures: Pictures, options: VideoOptions, tick: Tick = no_tick) -> Encoded:
        type(self).parts -= 1
        if self.parts and not self.begun.acquire(timeout=20):
            raise MediaError("the next part is not inferred")
        return super().encode(pictures, options, tick)


class EncodingApart(Prefetching):
    host_is_free = True


def start_encoding_apart(options: WorkerOptions, heartbeats: socket.socket | None) -> None:
    engines.device.Host = EncodingApart  # type: ignore[attr-defined, misc]
    start_worker(options, heartbeats)


def start_waiting(options: WorkerOptions, heartbeats: socket.socket | None) -> None:
    operate, first = LoadedPipeline.operate, iter([True])

    def noted(*given: Any) -> Any:
        if not next(first, False):
            Waiting.begun.release()
        return operate(*given)

    LoadedPipeline.operate = noted  # type: ignore[method-assign]
    EncodingApart.encoder = Waiting()
    start_encoding_apart(options, heartbeats)


LARGER = parse_pipeline(
    """
name = "larger"
media = "video"
segment_s = 0.2
[[stage]]
kind = "decode"
[[stage]]
kind = "resize"
layout = "planes"
[[stage]]
kind = "infer"
model = "lanczos2x"
each = ["plane0", "plane1", "plane2"]
max_batch = 5
[[stage]]
kind = "encode"
format = "video"
""",
    "larger.toml",
)


def test_the_next_part_is_inferred_while_one_is_encoded(tmp_path: Path) -> None:
    clip = make_clip(tmp_path, Clip(frames=25, gop=5, b_frames=0))
    with Fleet((ALL_STAGES,), tmp_path / "cache", entry=start_waiting) as fleet:
        [outcome] = fleet.run(LARGER, [clip], tmp_path / "out", Silent())
    assert outcome.ok, outcome.error


def test_films_that_are_encoded_apart_have_the_same_bytes(tmp_path: Path) -> None:
    clips = [make_clip(tmp_path, Clip(frames=60, gop=5, seed=seed)) for seed in range(2)]

    def films(name: str, kill: bool = False, **entry: Any) -> list[bytes]:
        with Fleet((ALL_STAGES,), tmp_path / "cache", ack_wait_s=3.0, **entry) as fleet:
            outcomes = fleet.run(LARGER, clips, tmp_path / name, Killing(fleet) if kill else Silent())
        assert all(outcome.ok for outcome in outcomes), [outcome.error for outcome in outcomes]
        return [Path(f"{outcome.target}.mp4").read_bytes() for outcome in outcomes]

    assert films("killed", kill=True, entry=start_encoding_apart) == films("plain")
