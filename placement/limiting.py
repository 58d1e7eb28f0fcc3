"""What limited a simulated job: the part of the fleet that had no time left, the tail, or a queue that was full."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import fmean

from placement.fleet import Fleet
from placement.simulated import Simulated, Use

FULL = 0.85  # of its time: a part that is as busy limits the others
_AS_BUSY = 0.95  # of the busiest part: one about as busy
_TAIL = 0.7  # of the entire time: if pieces waited for less, the job was mostly its own end
_HELD = 0.9  # of a queue's bytes
_BUSY = 0.8  # a card that is less busy waited for work


@dataclass(frozen=True, slots=True)
class Limit:
    """`kind` of resource as in `Use`, or `tail`, `queue` or `none`; `owners`: names of cards, of rigs or of stages;
    `share`: how busy it was while pieces waited, or of the time that was the tail. `others`: parts about as busy.
    """

    kind: str
    owners: tuple[str, ...]
    share: float
    others: tuple["Limit", ...] = ()


def limit_of(outcome: Simulated, fleet: Fleet) -> Limit:
    """What limited the jobs of a fleet."""
    shares = _shares(outcome.uses, fleet)
    parts = {key: share for key, share in shares.items() if key[0] != "worker"}
    if (full := _largest(parts)) and full.share >= FULL:
        return replace(full, others=_others(parts, full))
    if (worker := _largest(shares)) and worker.share >= FULL:
        return worker
    if outcome.finish_s and outcome.flow_s < _TAIL * outcome.finish_s:
        return Limit("tail", (), 1.0 - outcome.flow_s / outcome.finish_s)
    held = [queue for queue in outcome.queues if queue.nbytes >= _HELD * queue.limit]
    if held:
        return Limit("queue", tuple(f"{queue.pipeline} {queue.stage}" for queue in held), 1.0)
    found = _largest(parts)
    return Limit("none", found.owners if found else (), found.share if found else 0.0)


def starved(outcome: Simulated, fleet: Fleet) -> tuple[str, ...]:
    """Cards that waited while a queue was full: its messages were all in the hands of other workers.

    Nothing of them, of their rig's cores and of its network was nearly full.
    """
    if all(queue.nbytes < _HELD * queue.limit for queue in outcome.queues):
        return ()
    shares = _shares(outcome.uses, fleet)
    found = []
    for rig, device in fleet.places():
        of_rig = max((share for (_, owner), share in shares.items() if owner == rig.name), default=0.0)
        own = max((share for (_, owner), share in shares.items() if owner == device.profile.name), default=0.0)
        if max(of_rig, own) < _BUSY:
            found.append(device.profile.name)
    return tuple(dict.fromkeys(found))


def _others(parts: dict[tuple[str, str], float], full: Limit) -> tuple[Limit, ...]:
    """Parts of other kinds that are about as busy as the busiest."""
    near: dict[str, dict[tuple[str, str], float]] = {}
    for (kind, owner), share in parts.items():
        if kind != full.kind and share >= _AS_BUSY * full.share:
            near.setdefault(kind, {})[kind, owner] = share
    return tuple(found for each in near.values() if (found := _largest(each)))


def _largest(shares: dict[tuple[str, str], float]) -> Limit | None:
    """The busiest kind of part, and all owners that are as busy."""
    if not shares:
        return None
    kind, _ = max(shares, key=lambda key: shares[key])
    most = max(shares.values())
    owners = tuple(owner for (of, owner), share in shares.items() if of == kind and share >= _AS_BUSY * most)
    return Limit(kind, owners, most)


def _shares(uses: Iterable[Use], fleet: Fleet) -> dict[tuple[str, str], float]:
    """How busy each kind of part was while work flowed: the mean of all cards of a name, or that of a rig."""
    cards = {device.name: device.profile.name for _, device in fleet.places()}
    found: dict[tuple[str, str], list[float]] = {}
    for use in uses:
        device = use.owner if use.owner in cards else use.owner.rpartition("-")[0]
        found.setdefault((use.kind, cards.get(device, use.owner)), []).append(use.flowing)
    return {key: fmean(shares) for key, shares in found.items()}
