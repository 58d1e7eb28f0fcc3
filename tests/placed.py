"""A reference for tests of placement: fleets drawn at random, and a simulation of their work, event by event.

It shares no code with `placement` but the costs of stages, which are its input.
"""

import heapq
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from placement.costs import StageWork, Work, cost
from placement.fleet import Device, Fleet, Rig, assumed_cpu
from placement.routes import Role
from schemas.device_profile import DeviceProfile

SLOTS = 8  # pieces that a GPU holds at a time, as many as its worker has decoders


def card(name: str, tflops: float, decodes: float, link: float = 2e9) -> DeviceProfile:
    """A GPU of so many TFLOPS that decodes so many frames/s of h264 at 720p; 0: it has no decoder."""
    return DeviceProfile(
        device=name,
        kind="cuda",
        name=name,
        measured_s=1.0,
        seconds=1.0,
        operations_per_s={"fp32": tflops * 1e12},
        memory_bytes_per_s=2e11,
        to_device_bytes_per_s=link,
        from_device_bytes_per_s=link,
        decode_frames_per_s={"h264 1280x720": decodes} if decodes else {},
    )


def random_fleet(chance: random.Random) -> Fleet:
    """One to five rigs, of GPUs that are alike or of cores."""
    rigs = []
    for number in range(chance.randint(1, 5)):
        name, cores = f"rig{number}", chance.choice((1, 2, 4, 8, 16))
        network = chance.choice((1.2e7, 1.2e8, 1.2e9))
        if chance.random() < 0.3:
            devices = (Device(f"{name}-cpu", assumed_cpu(cores), workers=cores),)
        else:
            profile = card(
                f"card{number}",
                chance.choice((1, 2, 4, 8, 16)),
                chance.choice((0, 150, 600, 2400)),
                chance.choice((2e8, 8e9)),
            )
            devices = tuple(Device(f"{name}-{each}", profile) for each in range(chance.randint(1, 6)))
        rigs.append(Rig(name, cores, devices, link_bytes_per_s=network))
    return Fleet(tuple(rigs))


def random_work(chance: random.Random, pieces: int) -> Work:
    """A film through a model, cheap or dear, with results of numbers or of pictures."""
    rows = chance.choice((4, 100))
    pictures = chance.random() < 0.3
    size = 2 if pictures else 1
    return Work(
        "work",
        (
            StageWork("decode", "decode", 100, 1280, 720, "h264", gives_bytes=rows * chance.choice((1.5e5, 2.7e6))),
            StageWork(
                "infer", "infer", model="m", rows=rows, operations=chance.choice((1e8, 4e9, 1e11)), gives_bytes=1e4
            ),
            StageWork(
                "encode",
                "encode",
                rows if pictures else 0,
                1280 * size,
                720 * size,
                "h264" if pictures else "",
                gives_bytes=1e5,
            ),
        ),
        pieces=pieces,
        piece_bytes=1e6,
        frames=100,
    )


@dataclass
class Server:
    """A part of the fleet that serves so many at a time."""

    free: int
    queue: deque["Step"] = field(default_factory=deque)


@dataclass(eq=False)
class Step:
    """The rest of the way of a piece on a device: parts and seconds; then the stage that it is at, -1: done."""

    device: int
    parts: deque[tuple[str, float]]
    then: int


class Simulation:
    """All pieces of a job on a fleet whose devices have a role each; `finish_s` runs it."""

    def __init__(self, fleet: Fleet, work: Work, roles: Mapping[str, Role]) -> None:
        self.work = work
        self.places = fleet.places()
        self.runs = [[stage.name in roles[device.name].runs for stage in work.stages] for _, device in self.places]
        self.takes = [[stage.name in roles[device.name].takes for stage in work.stages] for _, device in self.places]
        self.costs = [[cost(work, stage, rig, device) for stage in work.stages] for rig, device in self.places]
        self.servers: dict[str, Server] = {}
        for number, (rig, device) in enumerate(self.places):
            self.servers[f"cores {rig.name}"] = Server(rig.cores)
            self.servers[f"network {rig.name}"] = Server(1)
            for unit in ("compute", "decoder", "link"):
                self.servers[f"{unit} {number}"] = Server(1)
            self.servers[f"compute {number}"].free = device.workers
        self.slots = [device.workers if device.is_cpu else SLOTS for _, device in self.places]
        self.waiting = [work.pieces, *[0] * (len(work.stages) - 1)]
        self.events: list[tuple[float, int, str, Step]] = []
        self.number, self.now_s, self.done = 0, 0.0, 0
        self.begun = [0] * len(self.places)

    def finish_s(self) -> float:
        """Seconds until all pieces are done. Fails where some never are."""
        self._give()
        while self.events:
            self.now_s, _, part, step = heapq.heappop(self.events)
            self.servers[part].free += 1
            if self.servers[part].queue:
                ahead = min(self.servers[part].queue, key=lambda waits: len(waits.parts))  # later stages first
                self.servers[part].queue.remove(ahead)
                self._serve(part, ahead)
            self._go_on(step)
            self._give()
        assert self.done == self.work.pieces, "some pieces never end"
        return self.now_s

    def _give(self) -> None:
        """Free devices take pieces, later stages first, by turns."""
        for at in reversed(range(len(self.waiting))):
            given = True
            while self.waiting[at] and given:
                given = False
                for number in range(len(self.places)):
                    if self.waiting[at] and self.slots[number] and self.takes[number][at]:
                        self._take(number, at)
                        given = True

    def _take(self, number: int, at: int) -> None:
        self.waiting[at] -= 1
        self.slots[number] -= 1
        self.begun[number] += 1
        rig = self.places[number][0]
        nbytes = self.work.stages[at - 1].gives_bytes if at else self.work.piece_bytes
        parts = deque([(f"network {rig.name}", nbytes / rig.link_bytes_per_s)])
        end = at
        while end < len(self.waiting) and self.runs[number][end]:
            parts += self._parts(number, end)
            end += 1
        given = self.work.stages[end - 1].gives_bytes
        parts.append((f"network {rig.name}", given / rig.link_bytes_per_s))
        self._go_on(Step(number, parts, end if end < len(self.waiting) else -1))

    def _parts(self, number: int, at: int) -> list[tuple[str, float]]:
        """What a stage takes, part by part. A worker has one computing thread, whatever the cores of its rig."""
        (rig, device), each = self.places[number], self.costs[number][at]
        alone = not device.is_cpu and at > 0 and rig.cores >= len(rig.devices)
        cores = f"compute {number}" if alone else f"cores {rig.name}"
        named = [("decoder", each.decoder_s), ("link", each.link_s), ("compute", each.compute_s)]
        parts = [(f"{unit} {number}", seconds) for unit, seconds in named]
        return [(part, seconds) for part, seconds in (*parts, (cores, each.core_s)) if seconds]

    def _go_on(self, step: Step) -> None:
        if step.parts:
            part = step.parts[0][0]
            if self.servers[part].free:
                self._serve(part, step)
            else:
                self.servers[part].queue.append(step)
            return
        self.slots[step.device] += 1
        if step.then < 0:
            self.done += 1
        else:
            self.waiting[step.then] += 1

    def _serve(self, part: str, step: Step) -> None:
        self.servers[part].free -= 1
        self.number += 1
        _, seconds = step.parts.popleft()
        heapq.heappush(self.events, (self.now_s + seconds, self.number, part, step))
