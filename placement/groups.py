"""Devices that are alike, on rigs that are alike: they count as one part of a fleet, with so many times its seconds.

Where no two devices are quite alike, as measured paces never are, those within `ALIKE` are; with more than `MOST_KINDS`
kinds those within more than that, so that a placement of many machines does not take minutes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean

from placement.costs import Cost, Work, cost, fits
from placement.fleet import Device, Fleet, Rig

ALIKE, WIDER = 1.25, 1.5  # times as long for each part of a machine; and times that as long as there are too many kinds
MOST_KINDS = 24
MOST_WIDTH = 1e3  # beyond this, what differs is not how long they take
SMALL = 0.01  # of a piece's seconds: a part of a machine that takes less may differ
SHARED = 4  # groups for each model, of devices that have no memory for all models
NETWORK_SHARE = 0.7  # of what a network link could carry: messages come unevenly, and acknowledgements take their time
DEVICE_UNITS = ("compute", "decoder", "encoder", "link")
Costs = tuple[Cost, ...]  # of each stage


@dataclass(frozen=True, slots=True)
class Leg:
    """Stages `first` to `end` (without it) of a piece on one device of a group."""

    group: int
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Group:
    """Devices that are alike, of `rigs` that are alike; `costs` of each stage are their mean."""

    rigs: tuple[Rig, ...]
    devices: tuple[Device, ...]
    costs: Costs

    @property
    def rig(self) -> Rig:
        """The first of its rigs, which names what its rigs have."""
        return self.rigs[0]

    @property
    def name(self) -> str:
        """That of its first device."""
        return self.devices[0].name

    @property
    def count(self) -> int:
        """How many devices it has; the cores of a rig are one."""
        return len(self.devices)

    def seconds(self, leg: Leg) -> float:
        """Seconds of one piece for the stages of a leg, whatever group it names."""
        return sum(each.seconds for each in self.costs[leg.first : leg.end])


@dataclass(slots=True)
class _Alike:
    """Devices of rigs that are alike. `facts` are equal, and costs within a range of those of the first one."""

    facts: tuple[object, ...]
    devices: list[Device]
    costs: list[Costs]


@dataclass(slots=True)
class _Rigs:
    """Rigs that are alike, and the kinds of their devices."""

    rigs: list[Rig]
    kinds: list[_Alike]


def groups(fleet: Fleet, work: Work, roles: Mapping[str, object] | None = None) -> list[Group]:
    """The fleet's devices, those that are alike together, in order; with `roles` only those that have equal ones."""
    costs, width = costs_of(fleet, work), ALIKE
    while True:
        alike = _rigs_alike(fleet, work, costs, roles, width)
        if sum(len(rigs.kinds) for rigs in alike) <= MOST_KINDS or width > MOST_WIDTH:
            return [group for rigs in alike for group in _groups(rigs, work, roles)]
        width *= WIDER


def costs_of(fleet: Fleet, work: Work) -> dict[str, Costs]:
    """What each stage costs on each device, by its name; those of a rig with the same figures are computed once."""
    found: dict[str, Costs] = {}
    for rig in fleet.rigs:
        before: Device | None = None
        for device in rig.devices:
            if before is not None and replace(before, name=device.name) == device:
                found[device.name] = found[before.name]
            else:
                found[device.name] = tuple(cost(work, stage, rig, device) for stage in work.stages)
            before = device
    return found


def limits(kinds: Sequence[Group]) -> dict[str, float]:
    """Seconds a second of each part of the fleet: devices, pieces in their hands, cores and network links of rigs."""
    parts = {f"{unit} {group.name}": float(group.count) for group in kinds for unit in DEVICE_UNITS}
    parts |= {f"thread {group.name}": float(group.count * group.devices[0].workers) for group in kinds}
    parts |= {f"pieces {group.name}": float(group.count * group.devices[0].pieces(group.rig.cores)) for group in kinds}
    parts |= {f"cores {group.rig.name}": float(group.rig.cores * len(group.rigs)) for group in kinds}
    return parts | {f"network {group.rig.name}": NETWORK_SHARE * len(group.rigs) for group in kinds}


def named_parts(fleet: Fleet, kinds: Sequence[Group], part: str) -> list[str]:
    """The parts of all rigs of a group, of which `part` is the first: a device of each rig, or what the rig has."""
    unit, _, owner = part.partition(" ")
    rig_of = {device.name: rig.name for rig, device in fleet.places()}
    for group in kinds:
        if unit in ("cores", "network") and group.rig.name == owner:
            return [f"{unit} {rig.name}" for rig in group.rigs]
        if group.name == owner:
            firsts = {rig_of[device.name]: device.name for device in reversed(group.devices)}
            return [f"{unit} {name}" for name in sorted(firsts.values())]
    return [part]


def _rigs_alike(
    fleet: Fleet, work: Work, costs: Mapping[str, Costs], roles: Mapping[str, object] | None, width: float
) -> list[_Rigs]:
    found: list[_Rigs] = []
    for rig in fleet.rigs:
        kinds = _kinds(rig, work, costs, roles, width)
        same = next((each for each in found if _are_alike(each, rig, kinds, width)), None)
        if same is None:
            found.append(_Rigs([rig], kinds))
            continue
        same.rigs.append(rig)
        for all_of, more in zip(same.kinds, kinds, strict=True):
            all_of.devices += more.devices
            all_of.costs += more.costs
    return found


def _kinds(
    rig: Rig, work: Work, costs: Mapping[str, Costs], roles: Mapping[str, object] | None, width: float
) -> list[_Alike]:
    """The devices of a rig, those that are alike together."""
    found: list[_Alike] = []
    for device in rig.devices:
        facts = (
            *(device.profile.kind, device.workers, device.pieces(rig.cores), device.memory_bytes, device.hosts),
            *(work.pipeline in device.declines, roles.get(device.name) if roles is not None else None),
        )
        alike = (each for each in found if each.facts == facts and _near(each.costs[0], costs[device.name], width))
        same = None if device.is_cpu else next(alike, None)
        if same is None:
            found.append(_Alike(facts, [device], [costs[device.name]]))
        else:
            same.devices.append(device)
            same.costs.append(costs[device.name])
    return found


def _are_alike(known: _Rigs, rig: Rig, kinds: Sequence[_Alike], width: float) -> bool:
    first = known.rigs[0]
    same = first.cores == rig.cores and first.link_bytes_per_s == rig.link_bytes_per_s
    return (
        same
        and len(known.kinds) == len(kinds)
        and all(
            a.facts == b.facts
            and len(a.devices) == len(b.devices) * len(known.rigs)
            and _near(a.costs[0], b.costs[0], width)
            for a, b in zip(known.kinds, kinds, strict=True)
        )
    )


def _near(first: Costs, other: Costs, width: float) -> bool:
    """Whether each part of a machine takes about as long for each stage, but for those that take next to nothing."""
    if first == other:
        return True
    least_s = SMALL * max(sum(each.seconds for each in costs) for costs in (first, other))
    for a, b in zip(first, other, strict=True):
        for unit in a.units.keys() | b.units.keys():
            low_s, high_s = sorted((a.units.get(unit, 0.0), b.units.get(unit, 0.0)))
            if high_s > least_s and high_s > width * low_s:
                return False
    return True


def _groups(alike: _Rigs, work: Work, roles: Mapping[str, object] | None) -> Iterator[Group]:
    """The groups of rigs that are alike. Devices without memory for all models are several: they share the stages."""
    models = len({stage.model for stage in work.stages if stage.model})
    for kind in alike.kinds:
        entire = roles is not None or fits(work.stages, kind.devices[0])
        shares = 1 if entire else min(len(kind.devices), SHARED * models)
        for first in range(shares):
            costs = kind.costs[first::shares]
            mean = costs[0] if all(each == costs[0] for each in costs) else tuple(map(_mean, zip(*costs, strict=True)))
            yield Group(tuple(alike.rigs), tuple(kind.devices[first::shares]), mean)


def _mean(costs: Sequence[Cost]) -> Cost:
    names = [each.name for each in fields(Cost) if each.name != "estimated"]
    return Cost(
        **{name: fmean(getattr(each, name) for each in costs) for name in names},
        estimated=any(each.estimated for each in costs),
    )
