"""What a fleet will do with a job: pieces a second, seconds, the bottleneck, and what one more of a part would give."""

import heapq
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from placement.costs import Cost, Work
from placement.fleet import Fleet, Rig, scaled
from placement.groups import Group, costs_of, groups, limits, named_parts
from placement.mix import best_mix
from placement.routes import Placement, Role, Route, routes_of
from placement.rules import place

_FULL = 0.999  # of a part's time: it limits the rate
_WORTH_TELLING = 1.01  # times sooner, so that one more of a part is worth a line
_COUNTED = 20_000  # pieces that are given out one by one; more take as long as they do at the full rate
_MOST_GAINS = 5
_MOST_RIGS = 8  # kinds of rigs that get one more of something, those with a part that limits the rate first


@dataclass(frozen=True, slots=True)
class StageForecast:
    """One stage on one device: what a piece costs there, and the share of all pieces that the forecast has it do."""

    stage: str
    device: str
    rig: str
    cost: Cost
    share: float


@dataclass(frozen=True, slots=True)
class Gain:
    """What one more of a part gives: `what` in words, and how many times sooner the job ends."""

    what: str
    times: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """The forecast of a job.

    `rate`: pieces a second once all are busy; `first_s`: until the first piece is done, `finish_s`: until all are.
    `busy`: the share of its time that each part of the fleet works; `bottleneck`: the parts with no time left. `moved`:
    the share of the pieces that move to another rig. `estimated`: some figure was not measured.
    """

    placement: Placement
    stages: tuple[StageForecast, ...]
    rate: float
    first_s: float
    finish_s: float
    busy: Mapping[str, float]
    bottleneck: tuple[str, ...]
    moved: float
    gains: tuple[Gain, ...]
    estimated: bool


def forecast(fleet: Fleet, work: Work, placement: Placement | None = None, with_gains: bool = True) -> Forecast:
    """The forecast of a job on a fleet, as it is placed or as the rules would place it.

    `rate` 0: some stage has no device, and nothing would ever finish.
    """
    placement = placement or place(fleet, work)
    kinds = groups(fleet, work, placement.roles)
    parts, ways = limits(kinds), routes_of(work, kinds, placement.roles)
    rate, rates = best_mix([way.uses for way in ways], parts)
    used = [(way, each) for way, each in zip(ways, rates, strict=True) if each > 0.0]
    busy = {
        named: sum(way.uses.get(part, 0.0) * each for way, each in used) / most
        for part, most in parts.items()
        for named in named_parts(fleet, kinds, part)
    }
    stages = _stages(fleet, work, kinds, placement, used, rate)
    return Forecast(
        placement=placement,
        stages=stages,
        rate=rate,
        first_s=min((way.seconds for way, _ in used), default=0.0),
        finish_s=_finish_s(kinds, used, work.pieces),
        busy={part: share for part, share in sorted(busy.items()) if share > 0.0},
        bottleneck=tuple(part for part, share in sorted(busy.items()) if share >= _FULL),
        moved=sum(each for way, each in used if len(way.legs) > 1) / rate if rate else 0.0,
        gains=_gains(fleet, work) if with_gains and rate else (),
        estimated=any(each.cost.estimated for each in stages),
    )


def _stages(
    fleet: Fleet,
    work: Work,
    kinds: Sequence[Group],
    placement: Placement,
    used: Sequence[tuple[Route, float]],
    rate: float,
) -> tuple[StageForecast, ...]:
    costs = costs_of(fleet, work)
    shares: dict[tuple[str, int], float] = {}
    for way, each in used:
        for leg in way.legs:
            group = kinds[leg.group]
            for at in range(leg.first, leg.end):
                for device in group.devices:
                    shares[device.name, at] = shares.get((device.name, at), 0.0) + each / rate / group.count
    return tuple(
        StageForecast(stage.name, device.name, rig.name, costs[device.name][at], shares.get((device.name, at), 0.0))
        for at, stage in enumerate(work.stages)
        for rig, device in fleet.places()
        if stage.name in placement.roles.get(device.name, Role()).runs
    )


def _finish_s(kinds: Sequence[Group], used: Sequence[tuple[Route, float]], pieces: int) -> float:
    """Seconds until all pieces are done, when each piece goes to the device that ends it first."""
    rate = sum(each for _, each in used)
    if not rate or not pieces:
        return 0.0
    if pieces > _COUNTED:
        return pieces / rate + max(way.seconds for way, _ in used)
    ends: list[tuple[float, float]] = []
    for way, each in used:
        servers = max(kinds[leg.group].count * kinds[leg.group].devices[0].workers for leg in way.legs)
        every_s = servers / each
        ends += [(max(way.seconds, (number + 1) / each), every_s) for number in range(servers)]
    heapq.heapify(ends)
    last_s = 0.0
    for _ in range(pieces):
        end_s, every_s = ends[0]
        last_s = max(last_s, end_s)
        heapq.heapreplace(ends, (end_s + every_s, every_s))
    return last_s


def _gains(fleet: Fleet, work: Work) -> tuple[Gain, ...]:
    """What one more card, core or link gives, the best first. Each is a fleet of its own, placed anew."""
    now = forecast(fleet, work, with_gains=False)
    found: dict[str, float] = {}
    for what, other in _with_one_more(fleet, {part.partition(" ")[2] for part in now.bottleneck}):
        then_s = forecast(other, work, with_gains=False).finish_s
        found[what] = max(found.get(what, 0.0), now.finish_s / then_s if then_s else 0.0)
    worth = sorted((-times, what) for what, times in found.items() if times >= _WORTH_TELLING)
    return tuple(Gain(what, -times) for times, what in worth[:_MOST_GAINS])


def _with_one_more(fleet: Fleet, full: Set[str]) -> Iterator[tuple[str, Fleet]]:
    """Fleets with one more of something, and what it is in words. Of rigs that are alike the first one is asked.

    `full`: the names of rigs and devices with a part that limits the rate.
    """
    kinds: dict[tuple[object, ...], int] = {}
    for number, rig in enumerate(fleet.rigs):
        alike = (rig.cores, rig.link_bytes_per_s, tuple(device.profile.name for device in rig.devices))
        kinds.setdefault(alike, number)
    idle = [full.isdisjoint((rig.name, *(device.name for device in rig.devices))) for rig in fleet.rigs]
    for number in sorted(kinds.values(), key=lambda number: (idle[number], number))[:_MOST_RIGS]:
        for what, other in _rigs_with_one_more(fleet.rigs[number]):
            yield what, Fleet((*fleet.rigs[:number], other, *fleet.rigs[number + 1 :]))


def _rigs_with_one_more(rig: Rig) -> Iterator[tuple[str, Rig]]:
    cards = {device.profile.name: device for device in rig.devices if not device.is_cpu}
    for name, device in sorted(cards.items()):
        more = replace(device, name=f"{device.name}-more")
        yield f"one more {name} in {rig.name}", replace(rig, devices=(*rig.devices, more))
    yield f"one more core in {rig.name}", _with_core(rig)
    link = 2 * rig.link_bytes_per_s
    yield f"one more network link for {rig.name}", replace(rig, link_bytes_per_s=link)
    for name, device in sorted(cards.items()):
        if device.profile.to_device_bytes_per_s:
            twice = {
                "to_device_bytes_per_s": 2 * device.profile.to_device_bytes_per_s,
                "from_device_bytes_per_s": 2 * device.profile.from_device_bytes_per_s,
            }
            faster = [
                replace(each, profile=each.profile.model_copy(update=twice)) if each.profile.name == name else each
                for each in rig.devices
            ]
            yield f"twice the PCIe lanes for each {name} in {rig.name}", replace(rig, devices=tuple(faster))


def _with_core(rig: Rig) -> Rig:
    times = (rig.cores + 1) / rig.cores
    devices = [
        replace(each, profile=scaled(each.profile, times), workers=each.workers + 1) if each.is_cpu else each
        for each in rig.devices
    ]
    host = scaled(rig.host, times) if rig.host else None
    return replace(rig, cores=rig.cores + 1, devices=tuple(devices), host=host)
