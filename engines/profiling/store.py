"""Profiles that are kept in the cache folder of a machine: of its devices, and of models on them; one file each."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from engines.files import atomic_write
from schemas.device_profile import DeviceProfile
from schemas.model_profile import ModelOnDevice, ModelProfile


def keep_profile(cache: Path, profile: DeviceProfile) -> None:
    """Keep a profile; it replaces the device's last one."""
    atomic_write(_path(cache, profile.device), profile.model_dump_json(indent=1).encode())


def kept_profile(cache: Path, device: str, driver: str = "") -> DeviceProfile | None:
    """The profile of a device; None where there is none for this driver that this version of rigflow can read."""
    profile = last_profile(cache, device)
    return profile if profile is not None and profile.driver == driver else None


def last_profile(cache: Path, device: str) -> DeviceProfile | None:
    """The profile of a device, of any driver; None where there is none that this version of rigflow can read."""
    try:
        profile = DeviceProfile.model_validate_json(_path(cache, device).read_bytes())
    except (OSError, ValidationError):
        return None
    return profile if profile.device == device else None


def keep_model_profile(cache: Path, profile: ModelProfile) -> None:
    """Keep what a model costs on a device; it replaces the last such figures."""
    atomic_write(_model_path(cache, profile.device, profile.what), profile.model_dump_json(indent=1).encode())


def kept_model_profiles(cache: Path, model: str) -> list[ModelProfile]:
    """What the model of this identity costs on this machine's devices, by device and backend."""
    each = (_read(path) for path in sorted((cache / "profiles").glob("*/*.json")))
    found = [profile for profile in each if profile is not None and profile.what.model == model]
    return sorted(found, key=lambda each: (each.device_name, each.device, each.what.backend))


@contextmanager
def one_at_a_time(cache: Path, device: str) -> Iterator[None]:
    """Wait until no other process of this machine tries options on a device; they would measure each other."""
    folder = cache / "profiles" / device
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> ModelProfile | None:
    try:
        return ModelProfile.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _path(cache: Path, device: str) -> Path:
    return cache / "profiles" / f"{device}.json"


def _model_path(cache: Path, device: str, what: ModelOnDevice) -> Path:
    return cache / "profiles" / device / f"{what.key}.json"
