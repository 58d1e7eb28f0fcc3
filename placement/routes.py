"""The routes of a piece through a fleet: on one device from end to end, or on two, with a move between them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from placement.costs import StageWork, Work, fits
from placement.fleet import Device
from placement.groups import Group, Leg
from schemas.rig import runs_stage


@dataclass(frozen=True, slots=True)
class Role:
    """What a device does for a pipeline: the stages that it runs, and those whose queues it takes pieces from."""

    runs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()


Roles = Mapping[str, Role]
"""The role of each device, by its name."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The role of each device for one pipeline, and why, by name of the device; pieces a second by forecast.

    `rate` 0: no device can do some stage.
    """

    pipeline: str
    roles: Roles
    why: Mapping[str, str]
    rate: float


@dataclass(frozen=True, slots=True)
class Route:
    """The legs of a piece, in order, and the seconds that one piece takes of each part of the fleet."""

    legs: tuple[Leg, ...]
    uses: Mapping[str, float]
    seconds: float


def routes(work: Work, kinds: Sequence[Group]) -> list[Route]:
    """All routes: those of one device first, then those with one move, then back to the first device for the end."""
    stages, cuts = len(work.stages), _cuts(work)
    spans = {(first, end) for first in (0, *cuts) for end in (*cuts, stages) if first < end}
    able = [
        Leg(number, *span)
        for number, group in enumerate(kinds)
        for span in sorted(spans)
        if _able(work, group.devices[0], span)
    ]
    found = [_route(work, kinds, (leg,)) for leg in _legs(able, 0, stages)]
    for cut in cuts:
        for first in _legs(able, 0, cut):
            others = (last for last in _legs(able, cut, stages) if last.group != first.group)
            found += [_route(work, kinds, (first, last)) for last in others]
    for begin, end in ((begin, end) for begin in cuts for end in cuts if begin < end):
        for outer in _legs(able, 0, begin):
            last = Leg(outer.group, end, stages)
            inner = (leg for leg in _legs(able, begin, end) if leg.group != outer.group)
            found += [_route(work, kinds, (outer, leg, last)) for leg in inner if last in able]
    return found


def routes_of(work: Work, kinds: Sequence[Group], roles: Roles) -> list[Route]:
    """The routes that pieces take where devices have these roles: each goes on with a piece for as long as it can.

    A role does not have a device do what it may not do.
    """
    begins: dict[int, list[Leg]] = {}
    for number, group in enumerate(kinds):
        role = roles.get(group.name, Role())
        may = [stage.name in role.runs and may_run(work, stage, group.devices[0]) for stage in work.stages]
        for first, stage in enumerate(work.stages):
            if may[first] and stage.name in role.takes:
                end = may.index(False, first) if False in may[first:] else len(may)
                begins.setdefault(first, []).append(Leg(number, first, end))
    found: list[Route] = []
    open_legs: list[tuple[Leg, ...]] = [(leg,) for leg in begins.get(0, ())]
    while open_legs:
        found += [_route(work, kinds, legs) for legs in open_legs if legs[-1].end == len(work.stages)]
        going_on = [legs for legs in open_legs if legs[-1].end < len(work.stages)]
        open_legs = [(*legs, leg) for legs in going_on for leg in begins.get(legs[-1].end, ()) if leg.end > leg.first]
    return found


def _cuts(work: Work) -> list[int]:
    """Where a piece may go to another rig: behind decode, before encode, and before each further model.

    Decode makes the pictures of models and of resize stages behind it in one step, so that these travel.
    """
    models = [number for number, stage in enumerate(work.stages) if stage.model]
    decoded = next((at for at, stage in enumerate(work.stages) if at and not stage.of_decode), 1)
    cuts = {decoded, len(work.stages) - 1, *(models[1:])}
    return sorted(cut for cut in cuts if 0 < cut < len(work.stages))


def may_run(work: Work, stage: StageWork, device: Device) -> bool:
    """Whether the settings of a device allow a stage, and it does not decline the pipeline."""
    allowed = not device.hosts or runs_stage(device.hosts, stage.name, stage.kind)
    return allowed and work.pipeline not in device.declines


def _able(work: Work, device: Device, span: tuple[int, int]) -> bool:
    """Whether a device may and can run these stages."""
    stages = work.stages[span[0] : span[1]]
    return all(may_run(work, stage, device) for stage in stages) and fits(stages, device)


def _legs(able: Iterable[Leg], first: int, end: int) -> list[Leg]:
    return [leg for leg in able if (leg.first, leg.end) == (first, end)]


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
        seconds += network_s
        use(f"pieces {group.name}", group.seconds(leg))
        for stage, each in zip(work.stages[leg.first : leg.end], group.costs[leg.first : leg.end], strict=True):
            seconds += each.seconds
            for unit, taken_s in each.units.items():
                use(f"cores {group.rig.name}" if unit == "cores" else f"{unit} {group.name}", taken_s)
            if group.devices[0].is_cpu or stage.kind != "decode":  # one after the other on a worker's computing thread
                use(f"thread {group.name}", each.seconds)
    return Route(legs, uses, seconds)
