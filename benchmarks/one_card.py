"""Measures workers that share cards, which take their time without work: `python -m benchmarks.one_card`.

Each row is one job on a real fleet: workers decode a film of tiny frames, 4 segments at a time, and infer, which is the
bottleneck. All workers of a card share its decoders and its arithmetic. `moved` is the share of the frames that went to
another worker over the broker before they were inferred, and `bytes a frame` what they would be at 640 x 640 pixels;
`busy` is the share of the time that the cards computed, from the first segment at the broker to the last result.
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.gpu_clips import repeat
from pipelines.broker import Broker
from schemas.jobs import Priority
from schemas.parts import PartMeta
from schemas.pipeline import parse_pipeline
from schemas.rig import ALL_STAGES
from tests.clips import Clip, make_clip
from tests.fleet import Fleet, Silent
from tests.simulated import models_of
from tests.simulated_card import Card, cards_entry, shared
from workers.run import run_jobs

PIPELINE = """
name = "one-card"
media = "video"
[[stage]]
kind = "decode"
[[stage]]
kind = "resize"
size = [16, 16]
layout = "gray"
[[stage]]
kind = "infer"
model = "simulated"
max_batch = 16
[[stage]]
kind = "encode"
format = "npz"
"""
FRAME_BYTES = 640 * 640 * 3
ENGINES = 7  # of a card's decoder
GOP, PART = 60, 20  # frames of a part, as of 1080p


@dataclass(frozen=True)
class Case:
    """Workers of each card, frames a second that each card infers, those that it decodes, and frames of the job."""

    name: str
    workers: Sequence[int]
    rates: Sequence[float]
    decoded: float
    frames: int


CASES = (
    Case("eight workers of one card", (8,), (900.0,), 4200.0, 19200),
    Case("the same, its decoder is as slow", (8,), (900.0,), 900.0, 19200),
    Case("the same, its decoder is slower", (8,), (1260.0,), 900.0, 19200),
    Case("two workers of one card, its decoder is as slow", (2,), (900.0,), 900.0, 9600),
    Case("four workers of each of two cards", (4, 4), (450.0, 450.0), 900.0, 19200),
    Case("one worker of each of four cards", (1,) * 4, (225.0,) * 4, 300.0, 19200),
    Case("one worker of a card, one of a slow one", (1, 1), (600.0, 150.0), 800.0, 9600),
    Case("one long segment, one worker of each of two cards", (1, 1), (100.0, 100.0), 1400.0, 960),
)


class Times(Silent):
    """When the first segment of a job was at the broker, and when its last result came."""

    began_s = ended_s = 0.0

    def sent(self, job: str, seconds: float, segments: int) -> None:
        self.began_s = self.began_s or time.monotonic()

    def part(self, job: str, meta: PartMeta) -> None:
        super().part(job, meta)
        self.ended_s = time.monotonic()


@dataclass(frozen=True)
class Row:
    """Seconds of a job from its first segment at the broker to its last result, and its parts, some of them moved."""

    seconds: float
    parts: int
    moved: int


def measured(case: Case, folder: Path) -> Row:
    """A job, after one that warms up."""
    cards: list[Card] = []
    for number, (workers, rate) in enumerate(zip(case.workers, case.rates, strict=True)):
        compute, decoder = shared(folder / f"compute{number}"), shared(folder / f"decoder{number}", ENGINES)
        card = Card(1 / rate, ENGINES / case.decoded, decoders=4, compute=compute, decoder=decoder, part=PART)
        cards += [replace(card, peers=workers - 1)] * workers
    spec = parse_pipeline(PIPELINE, "one-card.toml")
    gop = case.frames if case.frames < 1000 else GOP
    short = make_clip(folder, Clip(frames=gop * (300 // gop or 1), gop=gop, size=(32, 32), b_frames=0, rate=30))
    films = [folder / "warm.mp4", folder / "film.mp4"]
    for film, frames in zip(films, (min(case.frames, 240 * len(cards)), case.frames), strict=True):
        repeat(short, film, frames)
    named = {f"test-{number}": card for number, card in enumerate(cards)}
    with Fleet([ALL_STAGES] * len(cards), folder / "cache", entry=cards_entry(named)) as fleet:

        async def run() -> Row:
            moved = 0
            for film in films:
                before, times = moved, Times()
                out = folder / film.stem
                out.mkdir()
                [done] = await run_jobs(fleet.settings, spec, models_of(spec), [film], out, Priority.BULK, times)
                assert done.ok, done.error
                async with Broker.connected(fleet.settings, name="one-card") as broker:
                    info = await broker.api(f"STREAM.INFO.{broker.names.work_stream(spec.name, 'infer')}")
                moved = int(info["state"]["last_seq"])
            return Row(times.ended_s - times.began_s, times.parts, moved - before)

        return asyncio.run(run())


def line_of(case: Case, row: Row) -> str:
    """A row of the table."""
    share, rate = row.moved / row.parts, case.frames / row.seconds
    return (
        f"{case.name:50} {row.seconds:6.1f} {rate:8.0f} {rate / sum(case.rates):6.0%} {share:6.1%} "
        f"{share * FRAME_BYTES:13,.0f} {os.getloadavg()[0]:5.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", type=int, help="the number of one case, from 0 on")
    parser.add_argument("--share", type=float, default=1.0, help="of the frames of each job")
    options = parser.parse_args()
    print(f"{'fleet':50} {'s':>6} {'frames/s':>8} {'busy':>6} {'moved':>6} {'bytes a frame':>13} {'load':>5}")
    for number, case in enumerate(CASES):
        case = replace(case, frames=int(options.share * case.frames))
        if options.case in (None, number):
            with tempfile.TemporaryDirectory(prefix="rigflow-one-card-") as name:
                print(line_of(case, measured(case, Path(name))), flush=True)


if __name__ == "__main__":
    main()
