"""Whole jobs of `fingerprint` over a long film in 720p, beside the bare decoder before and after each."""

import argparse
from typing import Any

from benchmarks.gpu_chain import bare_in, every_frame, on_gpu, timed
from benchmarks.gpu_clips import count, hd
from pipelines.registry import builtin_pipeline

FRAMES = 192_000
ARRANGED = ((1, 8), (1, 10), (4, 4))  # workers or processes, decoders in each


def frames(options: argparse.Namespace) -> dict[str, Any]:
    """Frames a second of all, their share of the bare decoder's, and CPU seconds a thousand frames of both."""
    film, spec = hd(options.folder, FRAMES), builtin_pipeline("fingerprint")
    length, found = count(film), dict[str, Any]()
    before = {alone: bare_in(*alone, film, options) for alone in {_bare(each) for each in ARRANGED}}
    for workers, decoders in ARRANGED:
        alone = _bare((workers, decoders))
        for label, each in {"sampled": spec, "every frame": every_frame(spec)}.items():
            figures = timed(on_gpu(options, workers, decoders=decoders), each, [film], length, options)
            after = bare_in(*alone, film, options)
            pair, before[alone] = (before[alone], after), after
            bare = {name: (pair[0][name] + pair[1][name]) / 2 for name in after}
            for name in ("frames/s", "frames/s without the ends"):
                figures[f"{name}, of the bare decoder's"] = figures[name] / bare["frames/s"]
            name = "CPU s a 1,000 frames"
            figures[f"{name}, of the bare decoder's"] = figures[name] / bare[name]
            found[f"{label} {workers} x {decoders}"] = figures | {f"bare, {name}": bare[name] for name in bare}
    return found


def _bare(arranged: tuple[int, int]) -> tuple[int, int]:
    """One process has eight sessions, however many decoders a worker has."""
    return (1, 8) if arranged[0] == 1 else arranged
