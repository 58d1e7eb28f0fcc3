"""A fleet of a file: machines and cards by their stated figures, or by profiles that were measured elsewhere."""

from collections.abc import Iterable

from placement.fleet import Device, Fleet, Rig
from schemas.device_profile import DeviceProfile
from schemas.errors import UsageError
from schemas.fleet_file import SEE, CardEntry, FleetSpec, RigEntry


def imagined_fleet(spec: FleetSpec, profiles: Iterable[DeviceProfile]) -> Fleet:
    """The fleet of a file; `profiles` are those that cards without figures may name. Raises UsageError."""
    known = {profile.name.lower(): profile for profile in profiles}
    rigs = [_rig(entry, number, known) for entry in spec.rig for number in range(entry.count)]
    names = [rig.name for rig in rigs]
    if len(set(names)) < len(names):
        raise UsageError(f"two rigs are called {max(names, key=names.count)}", "give each [[rig]] a name of its own")
    return Fleet(tuple(rigs))


def _rig(entry: RigEntry, number: int, known: dict[str, DeviceProfile]) -> Rig:
    name = entry.name if entry.count == 1 else f"{entry.name}-{number + 1}"
    devices, at = [], 0
    for card in entry.card:
        profile = card.profile if card.tflops else _known(card, known)
        for _ in range(card.count):
            devices.append(Device(f"{name}-gpu{at}", profile, card.memory_bytes))
            at += 1
    works = entry.works if entry.works is not None else not devices
    if works:
        devices.append(Device(f"{name}-cpu", entry.processor, workers=entry.cores))
    return Rig(name, entry.cores, tuple(devices), entry.processor, entry.network_bytes_per_s)


def _known(card: CardEntry, known: dict[str, DeviceProfile]) -> DeviceProfile:
    found = [profile for name, profile in known.items() if card.name.lower() in name]
    if not found:
        there = ", ".join(sorted(profile.name for profile in known.values())) or "none"
        raise UsageError(f"no profile is called {card.name[:100]!a} (there are {there})", f"state its tflops, {SEE}")
    return found[0]
