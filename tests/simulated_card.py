"""Workers that imitate GPUs: decoder, link and network take their time without work, as the model `simulated` does.

Each of these serves one piece after the other. A piece reserves its time and sleeps until that is over, so that a busy
machine, which wakes it late, does not make the next one late too.
"""

import fcntl
import os
import socket
import threading
import time
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rigflow_simulated import SimulatedSession

import engines.device
import engines.media.pieces
from engines.part import Array, Part
from schemas.settings import Settings
from tests.prefetching import PrefetchingHost
from tests.simulated import PACE
from workers.forkserver import Entry
from workers.options import WorkerOptions
from workers.process import start_worker


@dataclass(frozen=True)
class Card:
    """Seconds that a frame takes of each part of an imitated GPU. `network` is a file that cards of one rig share.

    `decoders`: segments that it decodes at a time; 0: it is a core, which does all on one thread. `compute` and
    `decoder` are files that several workers of one card share. `part`: frames of a part at most, as of larger pictures.
    `peers`: how many other workers share it.
    """

    compute_s: float
    decode_s: float = 0.0
    link_s: float = 0.0
    network_s: float = 0.0
    network: str = ""
    decoders: int = 8
    compute: str = ""
    decoder: str = ""
    part: int = 128
    peers: int = 0


class Resource:
    """Something that serves one after the other; in a file of `shared`, for several processes."""

    def __init__(self, file: str = "") -> None:
        self._file = file
        self._lock = threading.Lock()
        self._free_s = 0.0

    def serve(self, seconds: float, since_s: float | None = None) -> float:
        """Wait for its turn, and for `seconds` of it, which may have begun at `since_s`; returns when that ended."""
        if not seconds:
            return time.monotonic() if since_s is None else since_s
        end_s = self.reserve(seconds, since_s)
        time.sleep(max(0.0, end_s - time.monotonic()))
        return end_s

    def reserve(self, seconds: float, since_s: float | None = None) -> float:
        """When so many seconds of it, from now or from `since_s` on, will be over."""
        since_s = time.monotonic() if since_s is None else since_s
        if self._file:
            return self._reserve_shared(seconds, since_s)
        with self._lock:
            self._free_s = max(self._free_s, since_s) + seconds
            return self._free_s

    def _reserve_shared(self, seconds: float, since_s: float) -> float:
        with open(self._file, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            free = array("d", file.read())
            first = min(range(len(free)), key=free.__getitem__)
            free[first] = max(free[first], since_s) + seconds
            file.seek(0)
            file.write(free.tobytes())
            return free[first]


def shared(path: Path, count: int = 1) -> str:
    """A file for a `Resource` of several processes, which serves `count` at a time."""
    path.write_bytes(array("d", [0.0] * count).tobytes())
    return str(path)


class SimulatedCard(PrefetchingHost):
    """The host's cores, which decode several segments ahead, each frame as slowly as `card` says."""

    card = Card(0.0)

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, self.card.decoders)
        self._decoder, self._link, self._network = Resource(self.card.decoder), Resource(), Resource(self.card.network)

    def _decoded(self, parts: Iterator[Part]) -> Iterator[Part]:
        for part in parts:
            self._network.serve(self.card.network_s * part.meta.frames)
            self._link.serve(self.card.link_s * part.meta.frames)
            self._decoder.serve(self.card.decode_s * part.meta.frames)
            yield part


def cards_entry(cards: Mapping[str, Card]) -> Entry:
    """What workers run that imitate cards, by the name of the worker."""
    return partial(_start_card, dict(cards))


def _start_card(cards: Mapping[str, Card], options: WorkerOptions, heartbeats: socket.socket | None) -> None:
    card = cards[options.name]
    os.environ[PACE] = str(0.0 if card.compute else 1000 * card.compute_s)
    engines.media.pieces._PICTURES_WINDOWS = (1, card.part)
    if card.compute:
        _compute_together(Resource(card.compute), card.compute_s)
    if card.decoders:
        SimulatedCard.card = card
        engines.device.Host = SimulatedCard  # type: ignore[attr-defined, misc]
    start_worker(options.model_copy(update={"gpu_peers": card.peers}), heartbeats)


def _compute_together(compute: Resource, frame_s: float) -> None:
    """Have the model `simulated` take its time of something that other workers use too."""
    run = SimulatedSession.run

    def run_in_turn(session: SimulatedSession, inputs: Mapping[str, Array]) -> dict[str, Array]:
        answers = run(session, inputs)
        compute.serve(frame_s * len(inputs["pixels"]))
        return answers

    SimulatedSession.run = run_in_turn  # type: ignore[method-assign]
