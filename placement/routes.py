"""The ways that a piece can take through a fleet: on one device from end to end, or by two, with a hop between them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from placement.costs import NOTHING, Cost, Work, cost, fits
from placement.fleet import Device, Fleet, Rig
from schemas.rig import runs_stage

Hosted = Mapping[str, tuple[str, ...]]
"""The stages that each device hosts, by its name."""


@dataclass(frozen=True, slots=True)
class Group:
    """Equal devices of one rig: they cost the same, so that they count as one part with `count` times its seconds."""

    rig: Rig
    devices: tuple[Device, ...]
    costs: tuple[Cost, ...]  # of each stage

    @property
    def name(self) -> str:
        """That of its first device."""
        return self.devices[0].name

    @property
    def count(self) -> int:
        """How many devices it has; the cores of a rig are one."""
        return len(self.devices)


@dataclass(frozen=True, slots=True)
class Leg:
    """Stages `first` to `end` (without it) of a piece on one device of a group."""

    group: int
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Route:
    """The legs of a piece, in order, and the seconds that one piece takes of each part of the fleet."""

    legs: tuple[Leg, ...]
    uses: Mapping[str, float]
    seconds: float


def groups(fleet: Fleet, work: Work) -> list[Group]:
    """The fleet's devices, equal ones of a rig together, in order."""
    found: dict[tuple[object, ...], list[Device]] = {}
    known: dict[tuple[object, ...], tuple[Rig, tuple[Cost, ...]]] = {}
    for rig, device in fleet.places():
        costs = tuple(cost(work, stage, rig, device) for stage in work.stages)
        key = (rig.name, costs, device.memory_bytes, device.hosts, device.name if device.is_cpu else "")
        found.setdefault(key, []).append(device)
        known[key] = rig, costs
    return [Group(known[key][0], tuple(devices), known[key][1]) for key, devices in found.items()]


def limits(fleet: Fleet, kinds: Sequence[Group]) -> dict[str, float]:
    """Seconds a second of each part of the fleet: devices and their links, cores and network links of rigs."""
    parts = {f"{unit} {group.name}": float(group.count) for group in kinds for unit in DEVICE_UNITS}
    parts |= {f"compute {group.name}": float(group.devices[0].workers) for group in kinds if group.devices[0].is_cpu}
    parts |= {f"cores {rig.name}": float(rig.cores) for rig in fleet.rigs}
    return parts | {f"network {rig.name}": 1.0 for rig in fleet.rigs}


DEVICE_UNITS = ("compute", "decoder", "encoder", "link")


def routes(work: Work, kinds: Sequence[Group], hosted: Hosted | None = None) -> list[Route]:
    """All routes: those of one device first, then those with one hop, then back to the first device for the end.

    With `hosted`, only those whose devices host what they are to run; a device that hosts all stages keeps a piece
    that it has begun, unless the next device cannot begin pieces itself.
    """
    stages = len(work.stages)
    cuts = _cuts(work)
    spans = {(first, end) for first in (0, *cuts) for end in (*cuts, stages) if first < end}
    able = {
        (number, span)
        for number, group in enumerate(kinds)
        for span in sorted(spans)
        if _able(work, group, span, hosted)
    }
    found = [_route(work, kinds, (leg,)) for leg in _legs(able, 0, stages)]
    whole = {leg.group for way in found for leg in way.legs} if hosted is not None else set()
    for cut in cuts:
        for first in _legs(able, 0, cut):
            others = (last for last in _legs(able, cut, stages) if _hops(first, last, whole))
            found += [_route(work, kinds, (first, last)) for last in others]
    for begin, end in ((begin, end) for begin in cuts for end in cuts if begin < end):
        for outer in _legs(able, 0, begin):
            if (outer.group, (end, stages)) in able:
                last = Leg(outer.group, end, stages)
                inner = (leg for leg in _legs(able, begin, end) if _hops(outer, leg, whole))
                found += [_route(work, kinds, (outer, leg, last)) for leg in inner]
    return found


def _cuts(work: Work) -> list[int]:
    """Where a piece may go to another rig: behind decode, before encode, and before each further model.

    Decode makes the pictures of models and of resize stages right behind it, so that these travel.
    """
    models = [number for number, stage in enumerate(work.stages) if stage.model]
    cuts = {1, len(work.stages) - 1, *(models[1:])}
    return sorted(cut for cut in cuts if 0 < cut < len(work.stages))


def _able(work: Work, group: Group, span: tuple[int, int], hosted: Hosted | None) -> bool:
    """Whether the devices of a group may and can run these stages."""
    device, stages = group.devices[0], work.stages[span[0] : span[1]]
    if hosted is not None and not all(stage.name in hosted.get(device.name, ()) for stage in stages):
        return False
    allowed = not device.hosts or all(runs_stage(device.hosts, stage.name, stage.kind) for stage in stages)
    return allowed and fits(stages, device)


def _legs(able: Iterable[tuple[int, tuple[int, int]]], first: int, end: int) -> Iterator[Leg]:
    for number, span in sorted(able):
        if span == (first, end):
            yield Leg(number, first, end)


def _hops(giver: Leg, taker: Leg, whole: set[int]) -> bool:
    """Whether a piece moves between two groups, of which those in `whole` host all stages."""
    return giver.group != taker.group and not {giver.group, taker.group} <= whole


def _route(work: Work, kinds: Sequence[Group], legs: tuple[Leg, ...]) -> Route:
    uses: dict[str, float] = {}
    seconds = 0.0

    def use(part: str, taken_s: float) -> None:
        if taken_s > 0.0:
            uses[part] = uses.get(part, 0.0) + taken_s

    for number, leg in enumerate(legs):
        group = kinds[leg.group]
        takes_bytes = work.stages[leg.first - 1].gives_bytes if number else work.piece_bytes
        gives_bytes = work.stages[leg.end - 1].gives_bytes
        network_s = max(takes_bytes, gives_bytes) / group.rig.link_bytes_per_s
        use(f"network {group.rig.name}", network_s)
        total = sum(group.costs[leg.first : leg.end], NOTHING)
        seconds += network_s + total.seconds
        for unit, taken_s in total.units.items():
            use(f"cores {group.rig.name}" if unit == "cores" else f"{unit} {group.name}", taken_s)
            if unit == "cores" and group.devices[0].is_cpu:  # one thread of one worker at a time
                use(f"compute {group.name}", taken_s)
    return Route(legs, uses, seconds)
