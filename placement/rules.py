"""Which device runs which stages. Four rules, in this order:

1. A device runs no stage that its settings leave out, no pipeline that it declines, and no models that do not fit into
   its memory together. Where no device can do all stages, several share them by rule 2, over slow links too; where that
   is not possible either, each does those that it can.
2. Every device runs all other stages of the pieces that it takes, unless the fleet does more with some of them apart:
   a piece may move to another rig where its bytes take less time on both network links than the stages that move
   take on the device that gives them away, and less than those before take on the device that gets them. It is moved
   where that gives `WORTH` times the pieces a second. Then each device does what it does most in the best mix of
   routes, and takes pieces only where that mix has it take them. A queue does not enforce this mix: a free
   worker takes any message. Therefore work is moved only if a simulation of some pieces also ends sooner.
3. A device that takes more than `SLOW` times as long for a piece as the fastest one runs none of these stages, as
   long as those left out are together less than `USELESS` of the fleet's rate: its few pieces would end last. It
   still splits and collects.
4. What was decided stays until another placement gives `WORTH` times the pieces, or until a device comes or goes.

The constants were chosen by hand on the random fleets of tests/properties/test_placement.py, seeds 0 to 999; that a
simulation has to agree was added for four fleets of the seeds 3000 to 4999.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import inf

from placement.costs import StageWork, Work, fits
from placement.fleet import Fleet
from placement.groups import Group, Leg, groups, limits
from placement.mix import best_mix
from placement.routes import Placement, Role, Roles, Route, may_run, routes, routes_of
from placement.simulated import Submission
from placement.simulated_machine import WorkerRules
from placement.simulation import simulate

WORTH = 1.3  # times as many pieces a second, so that work is moved to another rig, or the placement changes
USELESS = 0.002  # of the fleet's rate
OFTEN = (1.0, 0.3)  # of the busiest route of a device: what it does less often is left to others; both are tried
TRIED = 30  # pieces for each worker, in simulated time
SLOW = 16  # times as long for a piece as the fastest device
DOES_ALL = "all stages of a segment are done on one device"


def place(fleet: Fleet, work: Work, before: Placement | None = None) -> Placement:
    """The placement of a job's stages on a fleet; `before` is the one that is in force."""
    kinds = groups(fleet, work)
    parts, ways = limits(kinds), routes(work, kinds)
    entire = [way for way in ways if len(way.legs) == 1]
    late = _late({way.legs[0].group: way for way in entire}, parts)
    entire = [way for way in entire if way.legs[0].group not in late]
    new = _all_stages_each(work, kinds, {way.legs[0].group for way in entire}, late, _rate(entire, parts)[0])
    moving = [way for way in ways if len(way.legs) > 1]
    quick = [way for way in moving if not _is_too_slow(way, kinds) and _saves_time(work, way, kinds)]
    several = [*entire, *quick] or moving
    _, rates = _rate(several, parts)
    used = [(way, rate) for way, rate in zip(several, rates, strict=True) if rate > 0.0]
    apart = [_roles_of_mix(work, kinds, used, parts, often) for often in OFTEN]
    better = [each for each in apart if each.rate > WORTH * new.rate]
    if not (entire or better):
        new = _each_what_it_can(work, kinds, parts)
    if before is not None and _still_good(fleet, work, before, max(each.rate for each in (new, *better))):
        return before  # without a simulation
    if better:
        new = min((new, *better) if entire else better, key=lambda each: _simulated_s(fleet, work, each))
    return before if before is not None and _still_good(fleet, work, before, new.rate) else new


def rate_of(fleet: Fleet, work: Work, roles: Roles) -> float:
    """Pieces a second that a fleet does of a job at most, in these roles."""
    kinds = groups(fleet, work, roles)
    return _rate(routes_of(work, kinds, roles), limits(kinds))[0]


def _simulated_s(fleet: Fleet, work: Work, placement: Placement) -> float:
    """Seconds of some pieces for each worker in simulated time; infinite where some never end.

    Queues have no limit in bytes: how much a worker gives away is then limited by nothing but its time.
    """
    pieces = TRIED * sum(device.workers for _, device in fleet.places())
    outcome = simulate(fleet, [Submission(replace(work, pieces=pieces))], [placement], WorkerRules(queue_bytes=inf))
    return inf if outcome.unfinished else outcome.finish_s


def _rate(ways: Sequence[Route], parts: Mapping[str, float]) -> tuple[float, list[float]]:
    return best_mix([way.uses for way in ways], parts)


def _all_stages_each(work: Work, kinds: Sequence[Group], able: set[int], late: set[int], rate: float) -> Placement:
    """Every device that can runs all stages, but for those that would add too little."""
    roles: dict[str, Role] = {}
    why: dict[str, str] = {}
    for number, group in enumerate(kinds):
        role, reason = Role(), "its settings or its memory do not allow all stages"
        if number in late:
            reason = "a segment takes it so long that it would end last, for less than 0.2% of the rate"
        elif number in able:
            role, reason = Role(work.names, work.names), DOES_ALL
        for device in group.devices:
            roles[device.name], why[device.name] = role, reason
    return Placement(work.pipeline, roles, why, rate)


def _each_what_it_can(work: Work, kinds: Sequence[Group], parts: Mapping[str, float]) -> Placement:
    """Each device does the stages that it can: those first that few others have, as long as their models fit together.

    A device without memory for a model runs it only if no other has it.
    """
    runs: list[list[StageWork]] = [[] for _ in kinds]
    for number, group in enumerate(kinds):
        device = group.devices[0]
        may = [stage for stage in work.stages if may_run(work, stage, device)]
        for stage in sorted(may, key=lambda stage: sum(stage in others for others in runs)):
            if fits((*runs[number], stage), device):
                runs[number].append(stage)
    for stage in work.stages:
        if not any(stage in each for each in runs):
            for number, group in enumerate(kinds):
                runs[number] += [stage] if may_run(work, stage, group.devices[0]) else []
    named = [tuple(stage.name for stage in work.stages if stage in each) for each in runs]
    roles = {
        device.name: Role(names, names) for names, group in zip(named, kinds, strict=True) for device in group.devices
    }
    why = dict.fromkeys(roles, "no device can do all stages: each does those that it can")
    return Placement(work.pipeline, roles, why, _rate(routes_of(work, kinds, roles), parts)[0])


def _late(able: Mapping[int, Route], parts: Mapping[str, float]) -> set[int]:
    """Groups that are kept out: much slower than the fastest one, and together a small share of the fleet's rate."""
    if not able:
        return set()
    rates = {number: _rate([way], parts)[0] for number, way in able.items()}
    fastest_s, left = min(way.seconds for way in able.values()), USELESS * sum(rates.values())
    late = set()
    for number in sorted(rates, key=lambda number: (rates[number], number)):
        if able[number].seconds > SLOW * fastest_s and rates[number] < left:
            late.add(number)
            left -= rates[number]
    return late


def _is_too_slow(way: Route, kinds: Sequence[Group]) -> bool:
    """Whether a leg of a route takes its device much longer than the fastest device, so that its pieces end last."""
    return any(kinds[leg.group].seconds(leg) > SLOW * min(group.seconds(leg) for group in kinds) for leg in way.legs)


def _saves_time(work: Work, way: Route, kinds: Sequence[Group]) -> bool:
    """Whether each move to another rig takes less time than it saves the device before it and the one behind it."""
    for giver, taker in pairwise(way.legs):
        nbytes, cut = work.stages[giver.end - 1].gives_bytes, giver.end
        move_s = sum(nbytes / kinds[leg.group].rig.link_bytes_per_s for leg in (giver, taker))
        before = Leg(taker.group, giver.first, cut)
        after = Leg(giver.group, cut, taker.end)
        if move_s > min(kinds[taker.group].seconds(before), kinds[giver.group].seconds(after)):
            return False
    return True


def _roles_of_mix(
    work: Work, kinds: Sequence[Group], used: Sequence[tuple[Route, float]], parts: Mapping[str, float], often: float
) -> Placement:
    """Each device does what it does in the routes of a mix that it is in `often`: by share of its busiest route."""
    roles: dict[str, Role] = {}
    why: dict[str, str] = {}
    for number, group in enumerate(kinds):
        routes_here = [(way, rate) for way, rate in used if any(leg.group == number for leg in way.legs)]
        most = max((rate for _, rate in routes_here), default=0.0)
        kept = [way for way, rate in routes_here if rate >= often * most]
        if often == 1.0:
            kept = kept[:1]
        legs = _legs_here(work, number, group, kept)
        runs = {at for leg in legs for at in range(leg.first, leg.end)}
        takes = sorted({leg.first for leg in legs})
        role = Role(tuple(work.names[at] for at in sorted(runs)), tuple(work.names[at] for at in takes))
        reason = "the fleet does more when others do the rest" if runs else "the fleet does not do more with it"
        for device in group.devices:
            roles[device.name] = role
            why[device.name] = DOES_ALL if role.runs == work.names else reason
    roles = _with_takers(work, _without_dead_ends(work, roles))
    return Placement(work.pipeline, roles, why, _rate(routes_of(work, kinds, roles), parts)[0])


def _legs_here(work: Work, number: int, group: Group, ways: Sequence[Route]) -> set[Leg]:
    """The legs of routes on a group; of the first one alone, or none, where its memory does not hold all models."""
    for some in (ways, ways[:1]):
        legs = {leg for way in some for leg in way.legs if leg.group == number}
        if fits(tuple(work.stages[at] for leg in legs for at in range(leg.first, leg.end)), group.devices[0]):
            return legs
    return set()


def _without_dead_ends(work: Work, roles: Mapping[str, Role]) -> dict[str, Role]:
    """The roles without those that give pieces to a queue that none takes from; such a device does nothing."""
    kept = dict(roles)
    while True:
        taken = {name for role in kept.values() for name in role.takes}
        following = dict(pairwise(work.names))
        ends = {
            device
            for device, role in kept.items()
            if any(following[name] not in {*role.runs, *taken} for name in role.runs if name in following)
        }
        if not ends:
            return kept
        kept |= dict.fromkeys(ends, Role())


def _with_takers(work: Work, roles: Mapping[str, Role]) -> dict[str, Role]:
    """The roles, where all devices that run a stage take from its queue if none did: no piece waits for ever."""
    taken = {name for role in roles.values() for name in role.takes}
    left = set(work.names) - taken
    return {
        device: Role(role.runs, tuple(name for name in role.runs if name in left or name in role.takes))
        for device, role in roles.items()
    }


def _still_good(fleet: Fleet, work: Work, before: Placement, new_rate: float) -> bool:
    """Whether what is in force still covers the fleet, and the new placement does not give much more."""
    same = before.pipeline == work.pipeline and set(before.roles) == {device.name for _, device in fleet.places()}
    if not same or any(set(role.runs) - set(work.names) for role in before.roles.values()):
        return False
    rate = rate_of(fleet, work, before.roles)
    return rate > 0.0 and new_rate <= WORTH * rate
