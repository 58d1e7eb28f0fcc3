"""Holds the simulation of fleets against real fleets of simulated workers: `python -m benchmarks.simulate [FLEET ...]`.

Every worker is a real process at a real broker; decoder, PCIe link, network and arithmetic of its card pass time
without work (tests/simulated_card.py). Each row is one job: the seconds from the first piece published to the last
result, as the simulation predicts them and as they were measured. A busy machine adds to what is measured; its load is
printed.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.fleet import Run, Trial
from placement.costs import StageWork, Work
from placement.fleet import Device, Fleet, Rig, assumed_card, assumed_cpu
from placement.routes import Placement, Role
from placement.simulated import Simulated, Submission
from placement.simulated_machine import WorkerRules
from placement.simulation import simulate
from schemas.rig import ALL_STAGES
from tests import fleet as real
from tests.simulated_card import Card, cards_entry, shared

PIPELINE = "simulated"
STAGES = ("decode", "resize", "infer", "encode")
PIECE_BYTES = 1000.0
BATCH = 32  # pieces of one frame that a worker computes together, where it has as many
SIZE, CODEC = (32, 32), "h264"


@dataclass(frozen=True)
class Case:
    """A fleet of rigs of cards, and the pieces of its job."""

    name: str
    rigs: tuple[tuple[Card, ...], ...]
    pieces: int

    @property
    def cards(self) -> list[Card]:
        """All of them."""
        return [card for rig in self.rigs for card in rig]


def cases(seconds: float) -> list[Case]:
    """Fleets for jobs of about so many seconds."""
    return [
        Case("even", ((Card(0.4, decoders=2),) * 4,), int(seconds * 10)),
        Case(
            "one to eight", ((Card(0.1, decoders=2), Card(0.1, decoders=2), Card(0.8, decoders=2)),), int(seconds * 21)
        ),
        Case("decoders", ((Card(0.1, decode_s=0.4),) * 4,), int(seconds * 10)),
        Case("x1 links", ((Card(0.1, decode_s=0.05, link_s=0.4),) * 4,), int(seconds * 10)),
        Case("networks", (_behind_one_link(3), _behind_one_link(1)), int(seconds * 7.3)),
        Case("tail", ((*(Card(0.5, decoders=2),) * 3, Card(1.0, decoders=2)),), 41),
        Case("tail of eight decoders", ((*(Card(0.5),) * 3, Card(1.0)),), 41),
        Case("cores", ((Card(0.4, decoders=0),) * 4,), int(seconds * 10)),
        Case("cores, one to eight", ((Card(0.15, decoders=0), Card(1.2, decoders=0)),), int(seconds * 11.25)),
        Case("cores, tail", ((*(Card(0.5, decoders=0),) * 3, Card(1.0, decoders=0)),), 64),
    ]


def _behind_one_link(cards: int) -> tuple[Card, ...]:
    return (Card(0.3, network_s=0.25, decoders=2),) * cards


def predicted(case: Case) -> Simulated:
    """The job of a case in simulated time."""
    work = Work(
        PIPELINE,
        (
            StageWork("decode", "decode", frames=1, width=SIZE[0], height=SIZE[1], codec=CODEC),
            StageWork("resize", "resize", frames=1),
            StageWork("infer", "infer", frames=1, rows=1, model="simulated"),
            StageWork("encode", "encode", frames=1),
        ),
        pieces=case.pieces,
        piece_bytes=PIECE_BYTES,
        frames=1,
    )
    rigs = tuple(_rig(number, cards) for number, cards in enumerate(case.rigs))
    roles = {device.name: Role(STAGES, STAGES) for rig in rigs for device in rig.devices}
    placement = Placement(PIPELINE, roles, {}, 0.0)
    rules = WorkerRules(decoders=case.cards[0].decoders or 1)
    return simulate(Fleet(rigs), [Submission(work, batch=BATCH)], [placement], rules)


def _rig(number: int, cards: Sequence[Card]) -> Rig:
    devices = tuple(_device(f"rig{number}-{index}", card) for index, card in enumerate(cards))
    network_s = max(card.network_s for card in cards)
    return Rig(f"rig{number}", 64, devices, link_bytes_per_s=PIECE_BYTES / network_s if network_s else 1e9)


def _device(name: str, card: Card) -> Device:
    frame_s = {(PIPELINE, "infer"): card.compute_s}
    if not card.decoders:
        return Device(name, assumed_cpu(1), frame_s=frame_s)
    rates = {f"{CODEC} {SIZE[0]}x{SIZE[1]}": 1.0 / (card.decode_s or 1e-4)}
    link = PIECE_BYTES / card.link_s if card.link_s else 1e9
    figures = {"decode_frames_per_s": rates, "to_device_bytes_per_s": link, "from_device_bytes_per_s": link}
    return Device(name, assumed_card().model_copy(update=figures), frame_s=frame_s)


def measured(case: Case, folder: Path) -> Run:
    """The job of a case on a real fleet of simulated workers."""
    networks = [shared(folder / f"network{number}") for number in range(len(case.rigs))]
    cards: dict[str, Card] = {}
    for network, rig in zip(networks, case.rigs, strict=True):
        for card in rig:
            cards[f"test-{len(cards)}"] = replace(card, network=network if card.network_s else "")
    with real.Fleet([ALL_STAGES] * len(cards), folder / "cache", entry=cards_entry(cards)) as fleet:

        async def run() -> Run:
            async with Trial(fleet, folder, warm_up=2) as trial:
                return await trial.run(case.pieces)

        return asyncio.run(run())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fleet", nargs="*", help="names of fleets; all without them")
    parser.add_argument("--seconds", type=float, default=12.0, help="about how long each job shall take")
    parser.add_argument("--times", type=int, default=1, help="runs of each; their median counts")
    options = parser.parse_args()
    print(f"{'fleet':22} {'pieces':>6} {'predicted s':>11} {'measured s':>10} {'ratio':>6} {'load':>5}")
    for case in cases(options.seconds):
        if options.fleet and case.name not in options.fleet:
            continue
        runs = []
        for _ in range(options.times):
            with tempfile.TemporaryDirectory(prefix="rigflow-simulate-") as name:
                runs.append(measured(case, Path(name)).seconds)
        forecast_s, took_s = predicted(case).finish_s, statistics.median(runs)
        load = os.getloadavg()[0]
        print(
            f"{case.name:22} {case.pieces:6} {forecast_s:11.2f} {took_s:10.2f} {took_s / forecast_s:6.3f} {load:5.1f}"
        )


if __name__ == "__main__":
    main()
