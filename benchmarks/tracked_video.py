"""What the numbers of tracks in a film cost: `python -m benchmarks.tracked_video [--frames 96]`.

It draws eight moving boxes on 720p frames of a real clip, with and without `track`, and prints for both the processor
time of the workers' part and of the writer's part, and the bytes between them, each for a frame; for the file the PSNR
of a film of the same frames without boxes, encoded once and twice.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from engines.encoding import Format
from engines.outputs.format import load_format
from engines.outputs.pictures import plane_view
from engines.part import Part
from engines.ragged import Ragged
from schemas.jobs import JobRef, Key
from schemas.media import MediaInfo
from schemas.parts import PartMeta
from schemas.pipeline import EncodeStage
from tests.clips import real_clip

BOXES, PART = 8, 24  # boxes a frame, frames a part
LABELS = {"classes": tuple(f"class {number}" for number in range(80))}
JOB = JobRef(id="job", pipeline="benchmark", revision="0")


def planes_of(frames: int) -> list[Any]:
    """The planes `[frames, h, w]` of a clip's first frames."""
    with av.open(str(real_clip("bigbuckbunny"))) as container:
        shown = [frame for _, frame in zip(range(frames), container.decode(video=0), strict=False)]
    return [
        np.stack([plane_view(frame.planes[n])[: frame.planes[n].height, : frame.planes[n].width] for frame in shown])
        for n in range(3)
    ]


def parts_of(planes: list[Any], boxes: int) -> Iterator[Part]:
    count, height, width = planes[0].shape
    media = MediaInfo(kind="video", width=width, height=height, frame_rate=(25, 1), time_base=(1, 25))
    for number, start in enumerate(range(0, count, PART)):
        held: dict[str, Any] = {f"plane{n}": plane[start : start + PART] for n, plane in enumerate(planes)}
        times = range(start, min(start + PART, count))
        left = [np.arange(boxes) * 140 + time for time in times]
        corners = [np.stack([x, x // 3 + 40, x + 130, x // 3 + 280], -1).astype(np.float32) for x in left]
        held |= {
            "boxes": Ragged.of(corners),
            "scores": Ragged.of([np.linspace(0.9, 0.5, boxes, dtype=np.float32)] * len(times)),
            "classes": Ragged.of([np.arange(boxes, dtype=np.int32)] * len(times)),
        }
        key = Key(job=JOB, segment=0, part=number, last=times[-1] == count - 1, final=True)
        yield Part(PartMeta(key=key, media=media, pts=tuple(times)), held)


def measured(output: Format, planes: list[Any], boxes: int, folder: Path) -> tuple[dict[str, float], Path]:
    """The costs of a frame, and the film."""
    frames, began = len(planes[0]), time.process_time()
    encoded = [(part.meta, output.encode(part)) for part in parts_of(planes, boxes)]
    between = time.process_time()
    assembler = output.assemble(folder / "film", encoded[0][0].media)
    for meta, each in encoded:
        assembler.add(meta, each.arrays, each.facts)
    (path,) = assembler.close()
    ended = time.process_time()
    sent = sum(array.nbytes for _, each in encoded for array in each.arrays.values())
    costs = {"worker_ms": 1000 * (between - began), "writer_ms": 1000 * (ended - between), "bytes": sent}
    return {name: round(value / frames, 1) for name, value in costs.items()}, path


def psnr(path: Path, planes: list[Any]) -> float:
    """Of the luma of all frames."""
    with av.open(str(path)) as container:
        shown = [plane_view(frame.planes[0])[:, : frame.width] for frame in container.decode(video=0)]
    away = np.mean([np.square(mine.astype(float) - given).mean() for mine, given in zip(shown, planes[0], strict=True)])
    return round(float(10 * np.log10(255**2 / away)), 2)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=96)
    planes = planes_of(parser.parse_args(arguments).frames)
    for track in (False, True):
        output = load_format(EncodeStage(kind="encode", format="annotated", options={"track": track}), labels=LABELS)
        with tempfile.TemporaryDirectory(prefix="rigflow-tracked-") as name:
            costs, _ = measured(output, planes, BOXES, Path(name))
            _, plain = measured(output, planes, 0, Path(name))
            print(json.dumps({"track": track, **costs, "psnr": psnr(plain, planes)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
