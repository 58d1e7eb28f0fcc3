"""A fleet of a file: machines and cards by their stated figures, or by profiles that were measured elsewhere."""

from collections.abc import Callable
from typing import TypeAlias

from placement.fleet import Device, Fleet, Rig
from schemas.device_profile import DeviceProfile
from schemas.errors import UsageError
from schemas.fleet_file import SEE, CardEntry, FleetSpec, RigEntry

CardNamed: TypeAlias = Callable[[str], tuple[DeviceProfile, int]]
"""The profile and the bytes of memory (0: unknown) of a card by its name. Raises UsageError."""


def no_card(name: str) -> tuple[DeviceProfile, int]:
    """Raise UsageError: nothing is known of any card."""
    raise UsageError(f"nothing is known of a card {name[:60]!a}", f"state its tflops, {SEE}")


def imagined_fleet(spec: FleetSpec, card_named: CardNamed = no_card) -> Fleet:
    """The fleet of a file; `card_named` finds the figures of cards without tflops. Raises UsageError."""
    rigs = [_rig(entry, number, card_named) for entry in spec.rig for number in range(entry.count)]
    names = [rig.name for rig in rigs]
    if len(set(names)) < len(names):
        raise UsageError(f"two rigs are called {max(names, key=names.count)}", "give each [[rig]] a name of its own")
    return Fleet(tuple(rigs))


def _rig(entry: RigEntry, number: int, card_named: CardNamed) -> Rig:
    name = entry.name if entry.count == 1 else f"{entry.name}-{number + 1}"
    devices, at = [], 0
    for card in entry.card:
        profile, memory_bytes = _stated(card, card_named)
        for _ in range(card.count):
            devices.append(Device(f"{name}-gpu{at}", profile, memory_bytes))
            at += 1
    works = entry.works if entry.works is not None else not devices
    if works:
        devices.append(Device(f"{name}-cpu", entry.processor, workers=entry.cores))
    return Rig(name, entry.cores, tuple(devices), entry.processor, entry.network_bytes_per_s)


def _stated(card: CardEntry, card_named: CardNamed) -> tuple[DeviceProfile, int]:
    """What an entry states, or what is known of a card of that name, with what the entry states of it."""
    if card.tflops:
        return card.profile, card.memory_bytes
    profile, memory_bytes = card_named(card.name)
    return card.changed(profile), card.memory_bytes or memory_bytes
