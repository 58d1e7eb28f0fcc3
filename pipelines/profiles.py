"""Profiles of the fleet's devices, in a bucket of the broker: device id -> DeviceProfile as json."""

from pipelines.broker import Broker
from pipelines.values import decoded
from schemas.device_profile import DeviceProfile


async def share_profile(broker: Broker, profile: DeviceProfile) -> None:
    """Store a profile; it replaces the device's last one. Raises BrokerError."""
    await broker.put(broker.names.profiles, profile.device, profile.model_dump_json().encode())


async def fleet_profiles(broker: Broker) -> list[DeviceProfile]:
    """All profiles by name of the device; those that cannot be read are left out."""
    found = await broker.items(broker.names.profiles)
    each = (decoded(DeviceProfile, body, f"the profile {device}") for device, body in found.items())
    return sorted((profile for profile in each if profile is not None), key=lambda each: (each.name, each.device))
