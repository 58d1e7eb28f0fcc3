"""Measures the CPU of one worker around its decoder: `python -m benchmarks.around_decoder [--frames 66000] [--every]`.

The worker takes the segments of a long real film from a real broker and decodes eight at a time, by decoders that take
their time and no CPU. Each row is one job after one that warms up: CPU milliseconds a segment of each kind of thread.
"""

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path

from benchmarks.free_decoder import start_free
from benchmarks.gpu_chain import every_frame
from benchmarks.gpu_clips import hd
from pipelines.registry import builtin_pipeline
from schemas.jobs import Priority
from schemas.pipeline import PipelineSpec
from schemas.rig import ALL_STAGES
from tests.fleet import Fleet, Silent
from workers.definitions import find_models
from workers.run import run_jobs

WARM_FRAMES = 132 * 40  # of segments of 132 frames


class Sent(Silent):
    """Counts segments."""

    segments = 0

    def sent(self, job: str, seconds: float, segments: int) -> None:
        self.segments = segments


def threads(pid: int) -> dict[str, float]:
    """CPU milliseconds of the threads of a process, those of one name together."""
    used: dict[str, float] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        name, runtime = (task / "comm").read_text().strip(), (task / "schedstat").read_text().split()[0]
        name = "event loop" if int(task.name) == pid else name.partition("-")[0].partition("_")[0]
        used[name] = used.get(name, 0.0) + int(runtime) / 1e6
    return used


def measured(spec: PipelineSpec, folder: Path, frames: int, rounds: int) -> None:
    films = [hd(folder, WARM_FRAMES), hd(folder, frames)]
    with Fleet([ALL_STAGES], folder / "cache", entry=start_free) as fleet:
        [worker] = fleet.workers

        async def job(film: Path, out: Path) -> tuple[int, int]:
            listener = Sent()
            out.mkdir()
            [done] = await run_jobs(fleet.settings, spec, find_models(spec, None), [film], out, Priority.BULK, listener)
            assert done.ok, done.error
            return listener.segments, listener.parts

        asyncio.run(job(films[0], folder / f"warm-{time.time_ns()}"))
        print(f"the worker is process {worker.pid}", flush=True)
        for _ in range(rounds):
            before, began_s = threads(worker.pid), time.monotonic()
            segments, parts = asyncio.run(job(films[1], folder / f"out-{time.time_ns()}"))
            took_s, after = time.monotonic() - began_s, threads(worker.pid)
            used = {name: (after[name] - before.get(name, 0.0)) / segments for name in after}
            row = ", ".join(f"{name} {ms:.2f}" for name, ms in sorted(used.items()) if ms >= 0.01)
            load = os.getloadavg()[0]
            print(
                f"{segments} segments, {parts} parts, {frames / took_s:.0f} frames/s, load {load:.1f}: {row}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=39600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--every", action="store_true", help="every frame, and not five a second")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    spec = builtin_pipeline("fingerprint")
    spec = every_frame(spec) if options.every else spec
    with tempfile.TemporaryDirectory(prefix="rigflow-around-") as name:
        folder = options.folder or Path(name)
        folder.mkdir(exist_ok=True)
        measured(spec, folder, options.frames, options.rounds)


if __name__ == "__main__":
    main()
