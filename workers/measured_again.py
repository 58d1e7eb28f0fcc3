"""Measures a worker's GPU again when its profile is of another driver, before the worker takes work."""

import asyncio
import logging
from contextlib import ExitStack

from engines.ports import Device
from engines.profiling.apart import measure_apart
from engines.profiling.models import DeviceName, device_name
from engines.profiling.store import keep_profile, last_profile, one_at_a_time
from pipelines.broker import Broker
from pipelines.profiles import device_profile, share_profile
from schemas.device_profile import DeviceProfile
from schemas.errors import RigflowError
from workers.telemetry import Event, log_event

SECONDS = 30.0  # as `rigflow profile DEVICE --sustained 0`


async def measure_again(broker: Broker, device: Device) -> None:
    """Replace the profiles of a GPU that are of another driver, in the cache folder and at the broker.

    A GPU without a profile, one that was measured with this driver, and one whose driver is unknown are not measured;
    none is where `tuning_s` is 0. A failure is logged: the worker works without a profile then.
    """
    if device.gpu is None or not broker.settings.tuning_s:
        return
    name = await asyncio.to_thread(device_name, device)
    if not name.driver:
        return
    try:
        if not await _outdated(broker, name):
            return
        with ExitStack() as stack:
            lock = one_at_a_time(broker.settings.cache_folder, name.id)
            await asyncio.to_thread(stack.enter_context, lock)
            if outdated := await _outdated(broker, name):  # another worker of this GPU may have been first
                await _replace(broker, device, name, outdated)
    except (RigflowError, OSError) as error:
        facts = {"device": device.name}
        log_event(Event("profile_failed", f"{name.kind} has no profile of its driver: {error}", facts=facts))


async def _outdated(broker: Broker, name: DeviceName) -> list[DeviceProfile]:
    """The profiles that are kept of a GPU, if one of them is of another driver."""
    cached = await asyncio.to_thread(last_profile, broker.settings.cache_folder, name.id)
    found = [each for each in (cached, await device_profile(broker, name.id)) if each is not None]
    return found if any(each.driver != name.driver for each in found) else []


async def _replace(broker: Broker, device: Device, name: DeviceName, known: list[DeviceProfile]) -> None:
    """Keep and share a profile of this driver: the latest that is `known`, or one that is measured now."""
    current = [each for each in known if each.driver == name.driver]
    profile = (
        max(current, key=lambda each: each.measured_s) if current else await _measured(broker, device, name, known)
    )
    await asyncio.to_thread(keep_profile, broker.settings.cache_folder, profile)
    await share_profile(broker, profile)


async def _measured(broker: Broker, device: Device, name: DeviceName, known: list[DeviceProfile]) -> DeviceProfile:
    facts = {"device": device.name, "driver": name.driver}

    def report(line: str) -> None:
        log_event(Event("profile", f"{name.kind}: {line}", logging.DEBUG, facts))

    before = " and ".join(dict.fromkeys(each.driver or "an unknown one" for each in known))
    text = f"{name.kind} is measured again: its driver is {name.driver}, its profile is of {before}"
    log_event(Event("profile", text, logging.INFO, facts))
    profile = await asyncio.to_thread(measure_apart, device.name, broker.settings, SECONDS, report)
    log_event(Event("profile", f"{name.kind}: {profile.summary}", logging.INFO, facts))
    return profile
