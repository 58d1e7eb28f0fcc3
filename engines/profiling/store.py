"""Profiles of this machine's devices, kept in its cache folder: one file each, by the device's id."""

from pathlib import Path

from pydantic import ValidationError

from engines.files import atomic_write
from schemas.device_profile import DeviceProfile


def keep_profile(cache: Path, profile: DeviceProfile) -> None:
    """Keep a profile; it replaces the device's last one."""
    atomic_write(_path(cache, profile.device), profile.model_dump_json(indent=1).encode())


def kept_profile(cache: Path, device: str, driver: str = "") -> DeviceProfile | None:
    """The profile of a device; None where there is none for this driver that this version of rigflow can read."""
    try:
        profile = DeviceProfile.model_validate_json(_path(cache, device).read_bytes())
    except (OSError, ValidationError):
        return None
    return profile if profile.device == device and profile.driver == driver else None


def _path(cache: Path, device: str) -> Path:
    return cache / "profiles" / f"{device}.json"
