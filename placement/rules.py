"""Who hosts what. Four rules, in this order:

1. A device hosts no stage that its settings leave out, and no models that do not fit into its memory together.
2. Every device hosts all other stages, and takes what it can, unless the fleet does more with some of them apart: a
   piece that moves to another rig costs its bytes on both network links, and is moved only where that gives `WORTH`
   times the pieces a second. Then each device hosts what the best mix of routes has it do often.
3. A device that takes more than `SLOW` times as long for a piece as the fastest one hosts none of these stages, as
   long as those left out are together less than `USELESS` of the fleet's rate: its few pieces would end last. It
   still splits and collects.
4. What was decided stays until another placement gives `WORTH` more, or until a device comes or goes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from placement.costs import Work
from placement.fleet import Fleet
from placement.mix import best_mix
from placement.routes import Group, Hosted, Route, groups, limits, routes

WORTH = 1.15  # times as many pieces a second, so that work is moved to another rig, or the placement changes
USELESS = 0.02  # of the fleet's rate
OFTEN = 0.5  # of what a device does most in a mix: stages that it does less often are left to others
SLOW = 16  # times as long for a piece as the fastest device
_NOTHING = 1e-6  # of the rate: a route of the mix below it is an error of arithmetic
WHOLE = "it does all stages of a piece"


@dataclass(frozen=True, slots=True)
class Placement:
    """The stages that each device hosts for one pipeline, and why, by name of the device; pieces a second by forecast.

    `rate` 0: no device can do some stage.
    """

    pipeline: str
    hosted: Hosted
    why: Mapping[str, str]
    rate: float


def place(fleet: Fleet, work: Work, before: Placement | None = None) -> Placement:
    """The placement of a job's stages on a fleet; `before` is the one that is in force."""
    kinds = groups(fleet, work)
    parts, ways = limits(fleet, kinds), routes(work, kinds)
    new = _of_whole(work, kinds, [way for way in ways if len(way.legs) == 1], parts)
    _, rates = _rate(ways, parts)
    apart = _of_mix(work, kinds, ways, rates, parts)
    if apart.rate > WORTH * new.rate:
        new = apart
    return before if before is not None and _still_good(fleet, work, before, new.rate) else new


def rate_of(fleet: Fleet, work: Work, hosted: Hosted | None = None) -> float:
    """Pieces a second that a fleet does of a job at most; with `hosted`, by devices that host these stages."""
    kinds = groups(fleet, work)
    return _rate(routes(work, kinds, hosted), limits(fleet, kinds))[0]


def _rate(ways: Sequence[Route], parts: Mapping[str, float]) -> tuple[float, list[float]]:
    return best_mix([way.uses for way in ways], parts)


def _of_whole(work: Work, kinds: Sequence[Group], ways: Sequence[Route], parts: Mapping[str, float]) -> Placement:
    """Every device that can hosts all stages, but for those that would add too little."""
    able = {way.legs[0].group: way for way in ways}
    late = _late(able, parts)
    hosted: dict[str, tuple[str, ...]] = {}
    why: dict[str, str] = {}
    stages: tuple[str, ...]
    for number, group in enumerate(kinds):
        if number in late:
            stages, reason = (), "a piece takes it so long that it would end last, for less than 2% of the rate"
        elif number in able:
            stages, reason = work.names, WHOLE
        else:
            stages, reason = (), "its settings or its memory do not allow all stages"
        for device in group.devices:
            hosted[device.name], why[device.name] = stages, reason
    kept = [way for way in ways if way.legs[0].group not in late]
    return Placement(work.pipeline, hosted, why, _rate(kept, parts)[0])


def _late(able: Mapping[int, Route], parts: Mapping[str, float]) -> set[int]:
    """Groups that are kept out: much slower than the fastest one, and together a small share of the fleet's rate."""
    if not able:
        return set()
    rates = {number: _rate([way], parts)[0] for number, way in able.items()}
    fastest_s, total, left_out = min(way.seconds for way in able.values()), sum(rates.values()), 0.0
    late = set()
    for number in sorted(rates, key=lambda number: (rates[number], number)):
        left_out += rates[number]
        if left_out >= USELESS * total:
            break
        if able[number].seconds > SLOW * fastest_s:
            late.add(number)
        else:
            left_out -= rates[number]
    return late


def _of_mix(
    work: Work, kinds: Sequence[Group], ways: Sequence[Route], rates: Sequence[float], parts: Mapping[str, float]
) -> Placement:
    """Each device hosts the stages that it does most in the best mix of routes."""
    done = [[0.0] * len(work.stages) for _ in kinds]
    for way, rate in zip(ways, rates, strict=True):
        for leg in way.legs:
            for at in range(leg.first, leg.end):
                done[leg.group][at] += rate
    least = _NOTHING * sum(rates)
    hosted: dict[str, tuple[str, ...]] = {}
    why: dict[str, str] = {}
    for group, shares in zip(kinds, done, strict=True):
        most = max(shares, default=0.0)
        often = (share > least and share >= OFTEN * most for share in shares)
        names = tuple(stage.name for stage, each in zip(work.stages, often, strict=True) if each)
        reason = "the fleet does more when others do the rest" if names else "the fleet does not do more with it"
        for device in group.devices:
            hosted[device.name] = names
            why[device.name] = WHOLE if names == work.names else reason
    kept = routes(work, kinds, hosted)
    return Placement(work.pipeline, hosted, why, _rate(kept, parts)[0])


def _still_good(fleet: Fleet, work: Work, before: Placement, new_rate: float) -> bool:
    """Whether what is in force still covers the fleet, and the new placement does not give much more."""
    same = before.pipeline == work.pipeline and set(before.hosted) == {device.name for _, device in fleet.places()}
    if not same or any(set(stages) - set(work.names) for stages in before.hosted.values()):
        return False
    rate = rate_of(fleet, work, before.hosted)
    return rate > 0.0 and new_rate <= WORTH * rate
