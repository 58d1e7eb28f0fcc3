"""The frame path of a GPU's worker without a broker and a model, beside the bare decoder, in one process by turns."""

import argparse
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import av

from benchmarks.gpu_chain import every_frame
from benchmarks.gpu_clips import hd
from engines.cuda.nvdec import open_decoder
from engines.device.cuda import CudaDevice
from engines.media.split import Splitter
from engines.part import Part
from engines.plan import plan_pipeline
from engines.planned import DecodePlan
from engines.prefetched import PrefetchedParts
from pipelines.registry import builtin_pipeline
from schemas.jobs import JobRef, Key
from schemas.messages import decode
from schemas.pipeline import PipelineSpec
from schemas.segments import Segment
from schemas.settings import Settings
from workers.definitions import find_models

FRAMES, WARM_S, SECONDS, ROUNDS = 12_000, 0.7, 2.5, 2
SESSIONS, DRAINED = (8, 10), (600, 132)  # packets of a segment of that clip, and more
AHEAD = 2  # segments that wait for a decoder


def path(options: argparse.Namespace) -> dict[str, Any]:
    """Frames a second, and CPU seconds a thousand frames, of the bare decoder and of the frame path."""
    film, spec = hd(options.folder, FRAMES), builtin_pipeline("fingerprint")
    cards = {name: card for name, (card, _) in find_models(spec, None).items()}
    plans = {"sampled": spec, "every frame": every_frame(spec)}
    bodies = bodies_of(film, spec)
    found: dict[str, Any] = {}
    for sessions in SESSIONS:
        settings = Settings(decoders=sessions)
        device = CudaDevice(options.device, settings, options.folder / "cache")
        for turn in range(1, ROUNDS + 1):
            for packets in DRAINED:
                name = f"bare, drained every {packets} packets"
                found[f"{sessions} sessions, {name}, {turn}"] = bare(device, film, sessions, packets)
            for name, each in plans.items():
                plan = plan_pipeline(each, cards).decode
                found[f"{sessions} sessions, frame path, {name}, {turn}"] = frame_path(device, bodies, plan, sessions)
        device.close()
    return found


def bodies_of(film: Path, spec: PipelineSpec) -> list[bytes]:
    """The segments of a film as messages."""
    job = JobRef(id="path", pipeline="path", revision="0" * 16)
    with Splitter(film, spec.grid, spec.segment_s, sound=None) as splitter:
        return [
            bytes(each.segment(Key(job=job, segment=number)).pieces(each.content))
            for number, each in enumerate(splitter.segments())
        ]


def bare(device: CudaDevice, film: Path, sessions: int, packets: int) -> dict[str, float]:
    """Sessions that decode the first packets of a film again and again, drained each time."""
    counts, over = [0] * sessions, threading.Event()

    def run(number: int) -> None:
        device.gpu.enter()
        with av.open(film) as container:
            stream = container.streams.video[0]
            decoder = open_decoder(device.gpu.number, stream.codec_context)
            assert decoder is not None
            given = list(itertools.islice((each for each in container.demux(stream) if each.size), packets))
            while not over.is_set():
                for packet in (*given, None):
                    counts[number] += len(decoder.decode(packet))
                decoder.flush_buffers()
        device.gpu.leave()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(sessions)]
    for thread in threads:
        thread.start()
    time.sleep(WARM_S)
    figures = _measured(lambda: sum(counts), time.sleep)
    over.set()
    for thread in threads:
        thread.join()
    return figures


def decoded_parts(device: CudaDevice, bodies: Sequence[bytes], plan: DecodePlan, sessions: int) -> Iterator[Part]:
    """The parts of the segments, again and again and in any order, as the threads of a worker's device make them."""
    ready, turn = threading.Event(), itertools.cycle(bodies)
    preprocess = device.preprocess(plan.pictures)

    def begun() -> PrefetchedParts:
        segment, buffers = decode(next(turn))
        parts = device.decode(cast(Segment, segment), buffers, plan, preprocess)
        assert isinstance(parts, PrefetchedParts)
        parts.begin(ready.set)
        return parts

    active = [begun() for _ in range(sessions + AHEAD)]
    while True:
        ready.wait(0.5)
        ready.clear()
        for number, parts in enumerate(active):
            while parts.ready:
                part = next(cast(Iterator[Part], parts), None)
                if part is None:
                    active[number] = begun()
                    break
                yield part


def frame_path(device: CudaDevice, bodies: Sequence[bytes], plan: DecodePlan, sessions: int) -> dict[str, float]:
    """Segments that are read, decoded, converted and made into parts, which are dropped."""
    parts, frames = decoded_parts(device, bodies, plan, sessions), 0

    def work(seconds: float) -> None:
        nonlocal frames
        end_s = time.perf_counter() + seconds
        while time.perf_counter() < end_s:
            frames += next(parts).meta.frames

    work(WARM_S)
    return _measured(lambda: frames, work)


def _measured(count: Callable[[], int], work: Callable[[float], None]) -> dict[str, float]:
    before, used_s, began_s = count(), time.process_time(), time.perf_counter()
    work(SECONDS)
    took_s, used_s, done = time.perf_counter() - began_s, time.process_time() - used_s, count() - before
    return {"frames/s": done / took_s, "CPU s a 1,000 frames": 1000 * used_s / max(1, done)}
