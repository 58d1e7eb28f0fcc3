"""The profile of a model on a device, and the options that devices of its kind agree on, made of what was measured."""

import time
from collections.abc import Mapping
from typing import NamedTuple

from engines.machine import driver_version
from engines.ports import Device
from engines.profiling.host_name import host_id, processor
from engines.profiling.tuning import Allowed, Tuned
from schemas.model import ModelSpec
from schemas.model_profile import ModelChoice, ModelOnDevice, ModelProfile


class DeviceName(NamedTuple):
    """What a device is called: its id, and the kind that it shares with others."""

    id: str
    kind: str
    driver: str


def device_name(device: Device) -> DeviceName:
    """The GPU's UUID and name with the driver's version, or the id of this machine's processor and its name."""
    if device.gpu is None:
        return DeviceName(host_id(), processor(), "")
    return DeviceName(device.gpu.facts.uuid, device.gpu.facts.name, driver_version())


def model_on(card: ModelSpec, backend: str, shapes: Mapping[str, tuple[int, ...]]) -> ModelOnDevice:
    """What the cost of a model depends on, besides the device."""
    return ModelOnDevice(model=card.identity, backend=backend, shapes=dict(shapes))


def profile_of(tuned: Tuned, card: ModelSpec, what: ModelOnDevice, name: DeviceName, library: str) -> ModelProfile:
    """What was measured of a model on a device."""
    return ModelProfile(
        device=name.id,
        device_name=name.kind,
        what=what,
        name=f"{card.name}@{card.version}",
        driver=name.driver,
        library=library,
        batch_s=tuned.batch_s,
        chosen=tuned.chosen,
        tried=tuple(tuned.tried),
        measured_s=time.time(),
        seconds=tuned.seconds,
    )


def choice_of(tuned: Tuned, what: ModelOnDevice, name: DeviceName, library: str, allowed: Allowed) -> ModelChoice:
    """The options that this kind of device shall compute a model with."""
    return ModelChoice(
        kind=name.kind,
        what=what,
        library=library,
        allowed=str(allowed),
        options=tuned.chosen,
        measured_s=time.time(),
    )
