"""How soon long films begin: `python -m benchmarks.long_films FOLDER [--frames 96000] [--films 4]`.

For each container, by turns: seconds and CPU seconds of a publisher until the first segment of a film is cut, and until
the last one. Then one film and several at a time through `fingerprint` and a worker: until the first segment is sent,
and until the first part comes; the jobs end there.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av

from benchmarks.workloads import looped, named
from engines.media.split import Splitter
from pipelines.registry import builtin_pipeline
from schemas.grid import Grid
from schemas.jobs import Priority
from schemas.parts import PartMeta
from schemas.rig import ALL_STAGES
from tests.clips import real_clip
from tests.fleet import Fleet, Silent
from workers.definitions import find_models
from workers.run import run_jobs

RATE = 30
ROUNDS = 2
CONTAINERS = {"mp4": "mp4", "mkv": "matroska", "ts": "mpegts"}
FINGERPRINT = Grid(Fraction(2))


class Since:
    """Seconds and CPU seconds of this process since it was made."""

    def __init__(self) -> None:
        self._begun = time.perf_counter(), time.process_time()

    def __str__(self) -> str:
        wall_s, cpu_s = time.perf_counter() - self._begun[0], time.process_time() - self._begun[1]
        return f"{wall_s:.2f} s (CPU {cpu_s:.2f})"


class FirstTimes(Silent):
    """When the first segment was sent, and when the first part came."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self._label = label
        self._since = Since()
        self.sent_first = ""
        self.came = asyncio.Event()

    def sent(self, job: str, seconds: float, segments: int) -> None:
        self.sent_first = self.sent_first or str(self._since)

    def part(self, job: str, meta: PartMeta) -> None:
        super().part(job, meta)
        if self._label and not self.came.is_set():
            print(
                f"{self._label}: first segment sent after {self.sent_first}, first part after {self._since}", flush=True
            )
        self.came.set()


def film(folder: Path, frames: int, container: str) -> Path:
    """A film of 176x144 in that container, remuxed from mp4."""
    source = looped(folder / f"film-{frames}.mp4", frames / RATE, "carphone_pristine")
    path = source.with_suffix(f".{container}")
    if path.exists():
        return path
    with av.open(source) as given, av.open(path, "w", format=CONTAINERS[container]) as out:
        stream = given.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in given.demux(stream):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
    return path


def cut(path: Path) -> str:
    """What it takes to cut a film as a publisher does."""
    since = Since()
    with Splitter(path, FINGERPRINT, builtin_pipeline("fingerprint").segment_s, sound=None) as splitter:
        segments = splitter.segments()
        next(segments)
        first = str(since)
        count = 1 + sum(1 for _ in segments)
    return f"{path.suffix}: first segment after {first}, all {count} after {since}"


async def begin(fleet: Fleet, paths: Sequence[Path], out: Path, label: str) -> None:
    """Run films until the first part comes, and print when, if there is a `label`."""
    spec, times = builtin_pipeline("fingerprint"), FirstTimes(label)
    models = find_models(spec, None)
    job = asyncio.create_task(run_jobs(fleet.settings, spec, models, paths, out, Priority.BULK, times))
    came = asyncio.create_task(times.came.wait())
    await asyncio.wait([job, came], return_when=asyncio.FIRST_COMPLETED)
    for task in (job, came):
        task.cancel()
    await asyncio.gather(job, came, return_exceptions=True)


def main() -> None:
    """Make the films, and print what they take."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=96_000)
    parser.add_argument("--films", type=int, default=4)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    paths = [film(options.folder, options.frames, container) for container in CONTAINERS]
    for _ in range(ROUNDS):
        for path in paths:
            print(cut(path), flush=True)
    for path in paths:
        for count in (1, options.films):
            several = named(path.with_stem(f"{path.stem}-{count}"), [path], count)
            with Fleet((ALL_STAGES,), options.folder / "cache", ack_wait_s=60.0) as fleet:
                out = options.folder / f"out-{time.time_ns()}"
                out.mkdir()
                asyncio.run(begin(fleet, [real_clip("carphone_pristine")], out, ""))  # the worker starts
                asyncio.run(begin(fleet, several, out, f"{path.suffix}, {count} at a time"))


if __name__ == "__main__":
    main()
