"""The fleet that `rigflow simulate --rigs` describes: `3 x P106 x 8, 1 x T4`."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.errors import UsageError

if TYPE_CHECKING:
    from placement.fleet import Device, Fleet, Rig

SEE = "as in --rigs '3 x P106 x 8, 1 x T4'; see docs/simulate.md"
MOST_CARDS, MOST_RIGS, MOST_CORES = 64, 1000, 1024
MINING_CORES, USUAL_CORES = 2, 8
USUAL_NETWORK = 1e9  # bits a second
BITS = 8
_TIMES = re.compile(r"\s*(?:(\d{1,5})\s*[x×]\s+)?(.+?)(?:\s+[x×]\s*(\d{1,5}))?\s*")
_LINK = re.compile(r"(?:(?:pcie\s*)?([1-5])(?:\.0)?\s*)?x(1|2|4|8|16)")


@dataclass(frozen=True, slots=True)
class RigOptions:
    """What holds for all rigs: cores (0: by their cards), bits a second of their network, and the cards' link."""

    cores: int = 0
    network: float = USUAL_NETWORK
    link: str = ""  # empty: one lane for cards for mining, their own link for others


def fleet_of(text: str, options: RigOptions) -> "Fleet":
    """The fleet that a text describes. Raises UsageError."""
    from placement.fleet import Fleet

    rigs: list[Rig] = []
    for entry in text.split(","):
        head, *tail = entry.split("+")
        count, cards, first = _numbers(head)
        groups = [(cards, first), *((name, times) for _, name, times in map(_numbers, tail))]
        if len(rigs) + count > MOST_RIGS:
            raise UsageError(f"more than {MOST_RIGS:,} rigs", SEE)
        rigs += [_rig(f"rig{len(rigs) + number + 1}", groups, options) for number in range(count)]
    return Fleet(tuple(rigs))


def _numbers(text: str) -> tuple[int, str, int]:
    """`3 x P106 x 8` as 3, P106 and 8. Raises UsageError."""
    found = _TIMES.fullmatch(text)
    if found is None or not text.strip():
        raise UsageError(f"--rigs has {text.strip()[:60]!a}, which is no rig", SEE)
    count, name, cards = int(found[1] or 1), found[2], int(found[3] or 1)
    if not (0 < count <= MOST_RIGS and 0 < cards <= max(MOST_CARDS, MOST_CORES)):
        raise UsageError(f"--rigs has {text.strip()[:60]!a}: too many, or none", SEE)
    return count, name, cards


def _rig(name: str, groups: list[tuple[str, int]], options: RigOptions) -> "Rig":
    from placement.fleet import Device, Rig, assumed_cpu
    from schemas.fleet_file import CARRIED

    cores = options.cores
    if [group[0].lower() for group in groups] == ["cpu"]:
        cores = cores or groups[0][1]
        devices: tuple[Device, ...] = (Device(f"{name}-cpu", assumed_cpu(cores), workers=cores),)
    else:
        devices, mining = _cards(name, groups, options)
        cores = cores or (MINING_CORES if mining else USUAL_CORES)
    return Rig(name, cores, devices, link_bytes_per_s=options.network / BITS * CARRIED)


def _cards(rig: str, groups: list[tuple[str, int]], options: RigOptions) -> "tuple[tuple[Device, ...], bool]":
    """The cards of a rig, and whether one of them was made for mining."""
    from engines.profiling.published import published_card
    from placement.fleet import Device

    devices: list[Device] = []
    mining = False
    if sum(times for _, times in groups) > MOST_CARDS:
        raise UsageError(f"a rig with more than {MOST_CARDS} cards", SEE)
    for name, times in groups:
        card = published_card(name.strip())
        mining = mining or card.mining
        pcie, lanes = link_of(options.link) if options.link else card.usual_link
        profile = card.profile(min(pcie, card.pcie) if pcie else 0, lanes)
        devices += [Device(f"{rig}-gpu{len(devices) + number}", profile, card.memory_bytes) for number in range(times)]
    return tuple(devices), mining


def link_of(text: str) -> tuple[int, int]:
    """`x1`, `1.0 x4` or `own` as generation and lanes; 0: as the card has it. Raises UsageError."""
    if text.lower() == "own":
        return 0, 0
    found = _LINK.fullmatch(text.strip().lower())
    if found is None:
        raise UsageError(f"--link {text[:60]!a} is no link", "use x1, x4, x8, x16, '3.0 x16', or own")
    return int(found[1] or 5), int(found[2])
