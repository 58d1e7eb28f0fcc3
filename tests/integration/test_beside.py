"""Steps of the host beside a device that infers, as for sound on a GPU: here the device is a stand-in on the host."""

import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import engines.device
import workers.beside
from engines.operators.transcribe import Transcribe
from engines.part import Part
from schemas.errors import MediaError, RigflowError
from schemas.pipeline import parse_pipeline
from schemas.settings import Settings
from tests.fleet import ONE_WORKER, Fleet, Killing, Silent
from tests.listeners import PIPELINE, RATE, add_listeners, sound
from tests.prefetching import PrefetchingHost
from tests.sounds import file_of
from workers.options import WorkerOptions
from workers.process import start_worker

PARTS = 5  # one a segment of 20 s
SPEC = parse_pipeline(PIPELINE, "dictate.toml")


@pytest.fixture(scope="module", autouse=True)
def _models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder / "home"))
        add_listeners(folder)
        yield


class Device(PrefetchingHost):
    """Decodes ahead, and infers beside the host."""

    host_is_free = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, 2)


def start_beside(options: WorkerOptions, heartbeats: socket.socket | None) -> None:
    engines.device.Host = Device  # type: ignore[attr-defined, misc]
    start_worker(options, heartbeats)


def start_on_host(options: WorkerOptions, heartbeats: socket.socket | None) -> None:
    """The whole stage is a step of the host."""
    Transcribe.on_host = True  # type: ignore[attr-defined]
    start_beside(options, heartbeats)


def start_ahead(options: WorkerOptions, heartbeats: socket.socket | None) -> None:
    """The device begins a part only after the next one has been prepared; of the last part none follows."""
    prepare, run = Transcribe.prepare, Transcribe.run
    prepared, ran, parts = threading.Semaphore(0), 0, 0

    def counted(self: Transcribe, part: Part) -> Part:
        made = prepare(self, part)
        prepared.release()
        return made

    def waiting(self: Transcribe, given: Sequence[Part], *rest: Any) -> list[Part | RigflowError]:
        nonlocal ran, parts
        parts += len(given)
        while ran < min(parts + 1, PARTS):
            if not prepared.acquire(timeout=30):
                raise MediaError("the next part is not prepared")
            ran += 1
        return run(self, given, *rest)

    Transcribe.prepare, Transcribe.run = counted, waiting  # type: ignore[method-assign]
    start_beside(options, heartbeats)


def start_wide(options: WorkerOptions, heartbeats: socket.socket | None) -> None:
    """The first two steps of the host wait for each other: on a machine with many cores several run at a time."""
    run, meeting, met = Transcribe.run, threading.Barrier(2), threading.Event()

    def waiting(self: Transcribe, *given: Any) -> list[Part | RigflowError]:
        if not met.is_set():
            try:
                meeting.wait(30)
            except threading.BrokenBarrierError:
                raise MediaError("no other step of the host runs") from None
            met.set()
        return run(self, *given)

    workers.beside.cores = lambda: 8  # type: ignore[attr-defined]
    Transcribe.run = waiting  # type: ignore[method-assign]
    start_on_host(options, heartbeats)


def talk(folder: Path) -> Path:
    path = folder / "talk.wav"
    path.write_bytes(file_of(sound(20 * PARTS - 5)[None], RATE))
    return path


def files(fleet: Fleet, talk: Path, out: Path, listener: Silent | None = None) -> dict[str, bytes]:
    [outcome] = fleet.run(SPEC, [talk], out, listener)
    assert outcome.ok, outcome.error or outcome.done
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.is_file()}


def test_files_are_those_of_one_thread_also_after_a_kill(tmp_path: Path) -> None:
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        wanted = files(fleet, talk(tmp_path), tmp_path / "one")
    assert wanted["talk.dictate.srt"].count(b" --> ") > PARTS
    with Fleet(ONE_WORKER, tmp_path / "cache", entry=start_on_host, ack_wait_s=5.0) as fleet:
        assert files(fleet, talk(tmp_path), tmp_path / "beside", Killing(fleet)) == wanted
    with Fleet(ONE_WORKER, tmp_path / "cache", entry=start_wide) as fleet:
        assert files(fleet, talk(tmp_path), tmp_path / "wide") == wanted
    with Fleet(ONE_WORKER, tmp_path / "cache", entry=start_ahead) as fleet:
        listener = Silent()
        assert files(fleet, talk(tmp_path), tmp_path / "out", listener) == wanted
    assert listener.parts == PARTS
