"""Profiles of the fleet's devices and of models on them, in a bucket of the broker, as json."""

from pipelines.broker import Broker
from pipelines.values import decoded
from schemas.device_profile import DeviceProfile
from schemas.model_profile import ModelChoice, ModelOnDevice, ModelProfile

MOST_BYTES = 1 << 16  # of an entry: others are left out


async def share_profile(broker: Broker, profile: DeviceProfile) -> None:
    """Store a profile; it replaces the device's last one. Raises BrokerError."""
    await broker.put(broker.names.profiles, profile.device, profile.model_dump_json().encode())


async def device_profile(broker: Broker, device: str) -> DeviceProfile | None:
    """The profile of a device; None where there is none that can be read. Raises BrokerError."""
    body = await broker.get(broker.names.profiles, device)
    found = None if body is None else decoded(DeviceProfile, body[:MOST_BYTES], f"the profile {device}")
    return found if found is not None and found.device == device else None


async def fleet_profiles(broker: Broker) -> list[DeviceProfile]:
    """All profiles by name of the device; those that cannot be read are left out."""
    found = await broker.items(broker.names.profiles, "*")
    each = (decoded(DeviceProfile, body, f"the profile {device}") for device, body in found.items())
    return sorted((profile for profile in each if profile is not None), key=lambda each: (each.name, each.device))


async def share_model_profile(broker: Broker, profile: ModelProfile) -> None:
    """Store what a model costs on a device; it replaces the last such figures. Raises BrokerError."""
    await broker.put(broker.names.profiles, profile.key, profile.model_dump_json().encode())


async def model_profile(broker: Broker, device: str, what: ModelOnDevice) -> ModelProfile | None:
    """What a model costs on a device; None where it is unknown. Raises BrokerError."""
    key = f"model.{device}.{what.key}"
    body = await broker.get(broker.names.profiles, key)
    return None if body is None else _profile(key, body)


async def model_profiles(broker: Broker, model: str = "") -> list[ModelProfile]:
    """What models cost on the fleet's devices, or the model of this identity; by name of the model and the device.

    Entries that cannot be read are left out. Raises BrokerError.
    """
    found = await broker.items(broker.names.profiles, "model.*.*")
    each = (_profile(key, body) for key, body in found.items())
    known = [profile for profile in each if profile is not None and model in ("", profile.what.model)]
    return sorted(known, key=lambda each: (each.name, each.device_name, each.device, each.what.key))


async def agreed_choice(broker: Broker, choice: ModelChoice, again: bool = False) -> ModelChoice:
    """The options of this kind of device: those that another device stored before, or `choice`, which is stored now.

    With `again`, `choice` replaces them. Raises BrokerError.
    """
    body = choice.model_dump_json().encode()
    if again:
        await broker.put(broker.names.profiles, choice.key, body)
        return choice
    while True:
        entry = await broker.last(f"KV_{broker.names.profiles}", f"$KV.{broker.names.profiles}.{choice.key}")
        known = None if entry is None else _choice(choice.key, entry.body)
        if known is not None:
            return known
        if await broker.replace(broker.names.profiles, choice.key, body, 0 if entry is None else entry.sequence):
            return choice


async def known_choice(broker: Broker, key: str) -> ModelChoice | None:
    """The options that a kind of device computes a model with; None where none has tried them. Raises BrokerError."""
    body = await broker.get(broker.names.profiles, key)
    return None if body is None else _choice(key, body)


def _profile(key: str, body: bytes) -> ModelProfile | None:
    made = decoded(ModelProfile, body[:MOST_BYTES], f"the profile {key}")
    return made if made is not None and made.key == key else None


def _choice(key: str, body: bytes) -> ModelChoice | None:
    made = decoded(ModelChoice, body[:MOST_BYTES], f"the options {key}") if body else None
    return made if made is not None and made.key == key else None
