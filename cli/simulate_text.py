"""How `rigflow simulate` shows what happened: as tables and sentences, and as json."""

import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cli.plan_text import count
from cli.text import age, one_line, say_json, say_sentence, stdout, took
from schemas.errors import ExitCode
from schemas.text import rate as number
from schemas.text import size

if TYPE_CHECKING:
    from engines.workload import MediaFacts
    from placement.fleet import Device, Fleet, Rig
    from placement.limiting import Limit
    from placement.simulated import Simulated, Submission

_PARTS = {
    "compute": "the arithmetic",
    "decoder": "the video decoders",
    "encoder": "the video encoders",
    "link": "the PCIe links",
    "link back": "the PCIe links",
    "cores": "the processor cores",
    "network in": "the network links",
    "network out": "the network links",
    "worker": "the computing threads, which wait for one part after the other,",
}

_FLOWING = "while there was work for all (the tables are of the entire time)"


def show(text: str, facts: "MediaFacts", fleet: "Fleet", submission: "Submission", outcome: "Simulated") -> None:
    """Print what happened, for people."""
    from placement.limiting import limit_of, starved

    work, media = submission.work, facts.media
    pixels = f" of {media.codec} {media.width}x{media.height}" if media.width else ""
    say_sentence(
        f"{work.pipeline}, {submission.count:,} x {text}: each {count(work.pieces, 'segment')} of "
        f"{size(work.piece_bytes)}, {facts.frames:,.0f} frames{pixels}"
    )
    stdout().print(_devices(fleet, outcome), _rigs(fleet, outcome), sep="\n\n")
    for queue in outcome.queues:
        most = f"at most {count(queue.messages, 'message')}, {size(queue.nbytes)} of {size(queue.limit)}"
        say_sentence(f"Queue {queue.pipeline} {queue.stage}: {most}.")
    if outcome.unfinished:
        say_sentence(f"{count(outcome.unfinished, 'job')} never end: no device is left that does all stages.")
    if outcome.finish_s:
        say_sentence(_speed(submission, facts, outcome))
    limit = limit_of(outcome, fleet)
    say_sentence(f"Bottleneck: {sentence(limit)}.")
    if limit.kind != "queue" and (cards := starved(outcome, fleet)):
        say_sentence(f"A queue was full, and {', '.join(cards)} waited: a larger queue_bytes gives them work.")
    for gain in _gains(fleet, submission):
        say_sentence(gain)
    if outcome.repeated:
        say_sentence(
            f"{count(outcome.repeated, 'part')} were computed twice: after a fault, or because a worker was late."
        )
    if outcome.grouped > 1:
        say_sentence(f"So many segments are counted in groups of {outcome.grouped}.")
    if any(not device.profile.measured_s for _, device in fleet.places()):
        say_sentence("Figures of cards are published ones, not measured: docs/simulate.md says how far they hold.")


def sentence(limit: "Limit") -> str:
    """What limited the jobs, in words."""
    owners = _named(limit)
    if limit.kind == "tail":
        return f"the end of the jobs, {limit.share:.0%} of the time: some devices have work, others have none"
    if limit.kind == "queue":
        return f"queue {owners} is full, and devices wait: raise the setting queue_bytes"
    if limit.kind == "none":
        busiest = f"no part is full; the busiest is {owners}, {limit.share:.0%} {_FLOWING}"
        return busiest if owners else "nothing was done"
    others = (f"{_PARTS[each.kind]} of {_named(each)}, {each.share:.0%}" for each in limit.others)
    return ", and ".join([f"{_PARTS[limit.kind]} of {owners}, busy {limit.share:.0%}", *others]) + f" {_FLOWING}"


def _named(limit: "Limit") -> str:
    """The first of its owners, and how many more there are."""
    return ", ".join(limit.owners[:3]) + (f" and {len(limit.owners) - 3} more" if len(limit.owners) > 3 else "")


def _speed(submission: "Submission", facts: "MediaFacts", outcome: "Simulated") -> str:
    ends = sorted(job.end_s for job in outcome.jobs if job.end_s < math.inf)
    frames = facts.frames * len(ends) / outcome.finish_s
    first = f", the first job after {took(ends[0])}" if len(ends) > 1 else ""
    return f"Finished after {age(outcome.finish_s)} ({outcome.finish_s:,.1f} s){first}, {number(frames)} frames/s."


def _gains(fleet: "Fleet", submission: "Submission") -> list[str]:
    """What one more of a part would give, by forecast."""
    from placement.forecast import forecast

    predicted = forecast(fleet, submission.work)
    return [f"With {gain.what}: {gain.times:.2f} x, by forecast." for gain in predicted.gains[:3]]


def _devices(fleet: "Fleet", outcome: "Simulated") -> Any:
    """A row for all equal devices of a rig."""
    from cli.tables import list_of

    titles = ("rig", "card", "link", "segments", "busy", "arithmetic", "decoder", "PCIe")
    groups: dict[tuple[str, str, str], list[Device]] = {}
    for rig, device in fleet.places():
        groups.setdefault((rig.name, device.profile.name, device.profile.link), []).append(device)
    shares = _Shares(outcome)
    rows = [_device_row(key, devices, outcome, shares) for key, devices in groups.items()]
    return list_of(titles, rows, left=3, unless={"link": ""}, named=("rig", "card"))


def _device_row(
    key: tuple[str, str, str], devices: "list[Device]", outcome: "Simulated", shares: "_Shares"
) -> list[Any]:
    rig, card, link = key
    names = {device.name for device in devices}
    times = f"{len(devices)} x " if len(devices) > 1 else ""
    return [
        *map(one_line, (rig, f"{times}{card}", link)),
        f"{sum(outcome.pieces[name] for name in names):,}",
        *(shares.mean(kind, names) for kind in ("worker", "compute", "decoder", "link")),
    ]


def _rigs(fleet: "Fleet", outcome: "Simulated") -> Any:
    from cli.tables import list_of

    titles = ("rig", "cores", "cores busy", "network in", "network out")
    shares = _Shares(outcome)
    return list_of(titles, [_rig_row(rig, shares) for rig in fleet.rigs], left=1, named=("rig",))


def _rig_row(rig: "Rig", shares: "_Shares") -> list[Any]:
    kinds = ("cores", "network in", "network out")
    return [one_line(rig.name), f"{rig.cores}", *(shares.mean(kind, {rig.name}) for kind in kinds)]


class _Shares:
    """How busy parts were of the entire time, by kind and owner; workers of the cores of a rig by these."""

    def __init__(self, outcome: "Simulated") -> None:
        self._known: dict[tuple[str, str], list[float]] = {}
        for use in outcome.uses:
            for owner in {use.owner, use.owner.rpartition("-")[0]}:
                self._known.setdefault((use.kind, owner), []).append(use.share)

    def mean(self, kind: str, owners: Iterable[str]) -> str:
        """How busy some were in the mean; empty where there are none."""
        shares = [share for owner in owners for share in self._known.get((kind, owner), ())]
        return f"{sum(shares) / len(shares):.0%}" if shares else ""


def say_answer(fleet: "Fleet", submission: "Submission", outcome: "Simulated") -> None:
    """Print what happened, for programs; `end_s` null: it never ends."""
    from placement.limiting import limit_of, starved

    limit = limit_of(outcome, fleet)
    ends = ({"at_s": job.at_s, "end_s": job.end_s if job.end_s < math.inf else None} for job in outcome.jobs)
    [placement] = outcome.placements
    say_json(
        {
            "pipeline": submission.work.pipeline,
            "jobs": list(ends),
            "segments": submission.work.pieces,
            "parts": submission.parts,
            "finish_s": outcome.finish_s,
            "flow_s": outcome.flow_s,
            "unfinished": outcome.unfinished,
            "repeated": outcome.repeated,
            "grouped": outcome.grouped,
            "rigs": [
                {"rig": rig.name, "cores": rig.cores, "devices": [_device(device, outcome) for device in rig.devices]}
                for rig in fleet.rigs
            ],
            "roles": {name: asdict(role) for name, role in placement.roles.items()},
            "uses": [asdict(use) for use in outcome.uses],
            "queues": [asdict(queue) for queue in outcome.queues],
            "bottleneck": asdict(limit) | {"sentence": sentence(limit)},
            "starved": starved(outcome, fleet),
        }
    )


def _device(device: "Device", outcome: "Simulated") -> dict[str, Any]:
    profile = device.profile
    return {
        "device": device.name,
        "card": profile.name,
        "link": profile.link,
        "measured": bool(profile.measured_s),
        "segments": outcome.pieces[device.name],
    }


def list_cards(as_json: bool) -> ExitCode:
    """Print the cards whose figures are known."""
    from cli.tables import list_of
    from engines.profiling.published import published_cards

    cards = published_cards().values()
    if as_json:
        say_json([card.model_dump() for card in cards])
        return ExitCode.OK
    titles = ("card", "fp32", "memory", "bandwidth", "decoders", "link", "watts")
    rows: list[list[Any]] = [
        [
            one_line(card.name),
            f"{2e-6 * card.cores * card.boost_mhz:.1f} Top/s",
            f"{card.memory_gb:.0f} GB",
            f"{card.memory_gb_per_s:,.0f} GB/s",
            f"{card.decoders}",
            f"{card.pcie}.0 x{card.lanes}",
            f"{card.watts:.0f}",
        ]
        for card in cards
    ]
    stdout().print(list_of(titles, rows, left=1, named=("card",)))
    return ExitCode.OK
