"""Compares what a GPU's workers answer with what the host's answer, and with what they answer while one is killed."""

import argparse
import asyncio
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks.gpu_chain import on_gpu, run
from benchmarks.gpu_clips import hd
from engines.part import Array
from pipelines.registry import builtin_pipeline
from schemas.rig import ALL_STAGES
from tests.clips import real_clip
from tests.fleet import Fleet, Silent
from workers.inputs import JobOutcome


def results(options: argparse.Namespace) -> dict[str, Any]:
    """Whole pipelines on real clips: the GPU's answers against the host's."""
    paths = [real_clip(name) for name in ("bigbuckbunny", "bikes", "carphone_pristine")]
    found: dict[str, Any] = {}
    specs = [builtin_pipeline("fingerprint"), builtin_pipeline("upscale2x")]
    specs += [builtin_pipeline("clip-features")] if options.model else []
    host = Fleet((ALL_STAGES,) * 4, options.folder / "cache", ack_wait_s=20.0)
    gpu, hosted = on_gpu(options, 1), on_gpu(options, 1, decoder="host")
    answers: dict[str, dict[str, list[Path]]] = {}
    for label, fleet in {"host": host, "gpu": gpu, "GPU, decoded by the host": hosted}.items():
        with fleet:
            for spec in specs:
                outcomes = run(fleet, spec, paths, options)
                assert all(outcome.ok for outcome in outcomes), [str(outcome.error) for outcome in outcomes]
                answers.setdefault(spec.name, {})[label] = [written(outcome) for outcome in outcomes]
    for name, by in answers.items():
        for label in list(by)[1:]:
            for one, other in zip(by["host"], by[label], strict=True):
                found[f"{name} {one.name.partition('.')[0]}, {label}"] = compared(one, other)
    return found


def written(outcome: JobOutcome) -> Path:
    (path,) = outcome.target.parent.glob(f"{outcome.target.name}.*")
    return path


def compared(one: Path, other: Path) -> str:
    """Least cosine of descriptors, or least PSNR of pictures."""
    if one.suffix == ".npz":
        first, second = np.load(one), np.load(other)
        name = "features" if "features" in first else "descriptor"
        mine, theirs = first[name].astype(np.float64), second[name].astype(np.float64)
        assert mine.shape == theirs.shape
        norms = np.linalg.norm(mine, axis=1) * np.linalg.norm(theirs, axis=1)
        least = ((mine * theirs).sum(1) / norms).min()
        return f"least cosine {least:.6f}, equal times {bool((first['times'] == second['times']).all())}"
    worst = min(_psnr(a, b) for a, b in zip(_frames(one), _frames(other), strict=True))
    return f"least PSNR {worst:.1f} dB"


def _frames(path: Path) -> list[Array]:
    with av.open(path) as container:
        return [frame.to_ndarray(format="gray") for _, frame in zip(range(40), container.decode(video=0), strict=False)]


def _psnr(one: Array, other: Array) -> float:
    error = float(((one.astype(np.float64) - other) ** 2).mean())
    return 99.0 if error == 0 else 10 * np.log10(255**2 / error)


def kill(options: argparse.Namespace) -> dict[str, Any]:
    """kill -9 of the GPU's worker in the middle of a job: the job is complete, and equal to one without a kill."""
    spec, path = builtin_pipeline("fingerprint"), hd(options.folder, 24000)
    with on_gpu(options, 1, ack_wait_s=3.0) as fleet:
        (peace,) = run(fleet, spec, [path], options)
        calm = np.load(written(peace))
    with on_gpu(options, 1, ack_wait_s=3.0) as fleet:
        out = options.folder / "killed"
        out.mkdir()

        async def killed() -> list[JobOutcome]:
            listener = Silent()
            job = asyncio.create_task(fleet.run_async(spec, [path], out, listener))
            while listener.parts < 40 and not job.done():
                await asyncio.sleep(0.005)
            parts = listener.parts
            await asyncio.to_thread(fleet.kill, 0)
            found["parts that were there when it was killed"] = parts
            return await job

        found: dict[str, Any] = {}
        (outcome,) = asyncio.run(killed())
        stormy = np.load(written(outcome))
    found |= {
        "complete": outcome.ok,
        "digest equal": bool(peace.done and outcome.done and peace.done.digest == outcome.done.digest),
    }
    equal = all(calm[name].shape == stormy[name].shape and bool((calm[name] == stormy[name]).all()) for name in calm)
    gaps = [float(np.abs(calm[n] - stormy[n]).max()) for n in calm if calm[n].shape == stormy[n].shape]
    return found | {
        "equal": equal,
        "largest difference": max(gaps),
        "seconds without a kill": peace.seconds,
        "seconds with a kill": outcome.seconds,
    }
