"""Measures the chain through JetStream on a GPU beside its decoder alone."""

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import av

from benchmarks import measure
from benchmarks.gpu_clips import count, full_hd, hd
from benchmarks.workloads import named
from engines.cuda.gpu import CudaGpu
from engines.cuda.nvdec import open_decoder
from pipelines.broker import Broker
from pipelines.registry import builtin_pipeline
from schemas.jobs import Priority
from schemas.parts import PartMeta
from schemas.pipeline import PipelineSpec
from schemas.rig import ALL_STAGES
from tests.fleet import Fleet, Silent
from workers.definitions import find_models
from workers.inputs import JobOutcome
from workers.run import ProgressListener, run_jobs

BARE = ((1, 8), (1, 16), (4, 4), (4, 8))  # processes, threads in each
BARE_S, START_S = 3.0, 8.0
FILMS = 8
UNWATCHED = nullcontext()
CHAIN = ((1, 8), (2, 8), (4, 4), (4, 8))  # workers, decoders in each
FRAMES = {"1080p": 24000, "720p": 96000}
MAKES = {"1080p": full_hd, "720p": hd}


def bare(path: Path, threads: int, begin_s: float, device: str, cache: Path) -> dict[str, float]:
    """Frames that `threads` decoders give in `BARE_S` seconds from `begin_s` on, and the CPU seconds they take."""
    gpu = CudaGpu(device, cache)
    counts = [0] * threads

    def decode(number: int) -> None:
        gpu.enter()
        with av.open(path) as container:
            stream = container.streams.video[0]
            decoder = open_decoder(gpu.number, stream.codec_context)
            assert decoder is not None
            packets = list(itertools.islice((packet for packet in container.demux(stream) if packet.size), 600))
            decoder.decode(packets[0])
            time.sleep(max(0.0, begin_s - time.time()))
            while True:
                for packet in packets:
                    counts[number] += len(decoder.decode(packet))
                    if time.time() > begin_s + BARE_S:
                        gpu.leave()
                        return
                decoder.decode(None)
                decoder.flush_buffers()

    workers = [threading.Thread(target=decode, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    time.sleep(max(0.0, begin_s - time.time()))
    used_s = time.process_time()
    for worker in workers:
        worker.join()
    used_s = time.process_time() - used_s
    gpu.close()
    return {"frames": sum(counts), "cpu_s": used_s, "rss": measure.rss_bytes([os.getpid()])}


def nvdec(options: argparse.Namespace) -> dict[str, Any]:
    """The bare decoder at several arrangements: frames a second, and CPU seconds a thousand frames."""
    return {
        f"{name} {processes} x {threads}": bare_in(processes, threads, path, options)
        for name, path in clips(options.folder).items()
        for processes, threads in BARE
    }


def bare_in(processes: int, threads: int, path: Path, options: argparse.Namespace) -> dict[str, float]:
    """What `bare` measures in several processes at a time."""
    code = "import os, sys, json; from pathlib import Path as P; from benchmarks.gpu_chain import bare\n"
    code += "a = sys.argv\nprint(json.dumps(bare(P(a[1]), int(a[2]), float(a[3]), a[4], P(a[5]))), flush=True)\n"
    code += "os._exit(0)"
    given = [path, threads, time.time() + START_S, options.device, options.folder / "cache"]
    running = [
        subprocess.Popen([sys.executable, "-c", code, *map(str, given)], stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    measured = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    frames = sum(each["frames"] for each in measured)
    return {
        "frames/s": frames / BARE_S,
        "CPU s a 1,000 frames": 1000 * sum(each["cpu_s"] for each in measured) / max(1, frames),
        "resident MB a process": max(each["rss"] for each in measured) / 1e6,
    }


def clips(folder: Path) -> dict[str, Path]:
    return {name: make(folder, FRAMES[name]) for name, make in MAKES.items()}


def every_frame(spec: PipelineSpec) -> PipelineSpec:
    """The pipeline without sampling: no frame may be left out."""
    window = spec.decode.window.model_copy(update={"stride": 1, "frames": 1})
    decode = spec.decode.model_copy(update={"fps": None, "window": window})
    return spec.model_copy(update={"name": "every-frame", "stage": (decode, *spec.stage[1:])})


def chain(options: argparse.Namespace) -> dict[str, Any]:
    """`fingerprint` with everything on the GPU, sampled and with every frame, at several arrangements."""
    found: dict[str, Any] = {}
    spec = builtin_pipeline("fingerprint")
    for name, path in clips(options.folder).items():
        frames = count(path)
        for workers, decoders in CHAIN:
            for label, each in {"sampled": spec, "every frame": every_frame(spec)}.items():
                if label == "every frame" and (workers, decoders) not in ((1, 8), (4, 4)):
                    continue
                fleet = on_gpu(options, workers, decoders=decoders)
                found[f"{name} {label} {workers} x {decoders}"] = timed(fleet, each, [path], frames, options)
        short = MAKES[name](options.folder, FRAMES[name] // FILMS)
        several = named(short, [short], FILMS)
        frames = FILMS * count(several[0])
        for workers, decoders in CHAIN[-2:]:
            fleet = on_gpu(options, workers, decoders=decoders)
            label = f"{name} sampled, {FILMS} films, {workers} x {decoders}"
            found[label] = timed(fleet, spec, several, frames, options)
    return found


def on_gpu(options: argparse.Namespace, workers: int, ack_wait_s: float = 20.0, **settings: Any) -> Fleet:
    """A fleet of workers on one GPU."""
    settings = {"tuning_s": 0.0, "ack_wait_s": ack_wait_s, **settings}  # its broker knows no options
    return Fleet((ALL_STAGES,) * workers, options.folder / "cache", devices=[options.device], **settings)


def timed(
    fleet: Fleet,
    spec: PipelineSpec,
    paths: Sequence[Path],
    frames: int,
    options: argparse.Namespace,
    watch: AbstractContextManager[Any] = UNWATCHED,
    warm: Sequence[Path] = (),
) -> dict[str, Any]:
    """Jobs after one that warms up: frames a second from the first byte read to the last Done, and what they cost.

    `watch` is entered for these jobs alone. `warm`: the films to warm up with, by default one of each size.
    """
    with fleet:
        asyncio.run(warmed(fleet, spec, options, warm))
        pids = [worker.pid for worker in fleet.workers]
        before, used, own_s = asyncio.run(counters(fleet)), measure.cpu_s(pids), time.process_time()
        began_s = time.perf_counter()
        parts = PartTimes()
        with watch:
            outcomes = run(fleet, spec, paths, options, parts)
        took_s = time.perf_counter() - began_s
        after_s, own_s = measure.cpu_s(pids), time.process_time() - own_s
        assert all(outcome.ok for outcome in outcomes), [str(outcome.error) for outcome in outcomes]
        after = asyncio.run(counters(fleet))
        cpu_s = sum(after_s[pid] - used[pid] for pid in pids)
        return {
            "frames/s": frames / took_s,
            "frames/s without the ends": frames * parts.middle_rate(),
            "seconds until the first part": parts.at_s[0] - began_s,
            "CPU s a 1,000 frames": 1000 * cpu_s / frames,
            "CPU s a 1,000 frames, publisher": 1000 * own_s / frames,
            "resident MB a worker": max(measure.rss_bytes([pid]) for pid in pids) / 1e6,
            **{f"{key}, of the job": after[key] - before[key] for key in after},
        }


class PartTimes(Silent):
    """Notes when parts are done."""

    def __init__(self) -> None:
        super().__init__()
        self.at_s: list[float] = []

    def part(self, job: str, meta: PartMeta) -> None:
        self.at_s.append(time.perf_counter())

    def middle_rate(self) -> float:
        """Shares of the work a second, without the first and the last eighth of the parts."""
        eighth = len(self.at_s) // 8
        middle = self.at_s[eighth : len(self.at_s) - eighth]
        return (len(middle) - 1) / len(self.at_s) / (middle[-1] - middle[0])


def run(
    fleet: Fleet,
    spec: PipelineSpec,
    paths: Sequence[Path],
    options: argparse.Namespace,
    listener: ProgressListener | None = None,
) -> list[JobOutcome]:
    """Run a pipeline over files into a new folder."""
    out = options.folder / f"out-{time.time_ns()}"
    out.mkdir()
    models = find_models(spec, options.model.parent if options.model else None)
    return asyncio.run(run_jobs(fleet.settings, spec, models, paths, out, Priority.BULK, listener or Silent()))


async def warmed(fleet: Fleet, spec: PipelineSpec, options: argparse.Namespace, films: Sequence[Path] = ()) -> None:
    """Until every worker has done a job of the same kind."""
    out = options.folder / f"warm-{time.time_ns()}"
    out.mkdir()
    models = find_models(spec, options.model.parent if options.model else None)
    films = films or [hd(options.folder, 1500), full_hd(options.folder, 1200)]
    await run_jobs(fleet.settings, spec, models, films, out, Priority.BULK, Silent())


async def counters(fleet: Fleet) -> dict[str, int]:
    """What the workers' GPUs did, summed; waits until each has reported it."""
    names = (
        "allocations",
        "to_gpu_bytes",
        "from_gpu_bytes",
        "on_gpu_segments",
        "on_host_segments",
        "irregular_segments",
    )
    await asyncio.sleep(2.5)
    broker = await Broker.connect(fleet.settings, name="counters")
    try:
        measured = [json.loads(body) for body in (await broker.items(broker.names.rigs)).values()]
    finally:
        await broker.close()
    return {name: sum(int(each["gpu"][name]) for each in measured if each.get("gpu")) for name in names}
