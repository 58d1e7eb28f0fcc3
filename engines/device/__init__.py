"""Opens the device that a worker computes on: the host's cores, or one GPU. Other modules do not distinguish them."""

from pathlib import Path

from engines.device.host import Host
from engines.extras import install_extra
from engines.ports import Device
from schemas.errors import UsageError
from schemas.settings import Settings


def open_device(name: str, settings: Settings, cache: Path) -> Device:
    """Open the device called `cpu`, `cuda:<index>` or `cuda:<UUID>`. Raises UsageError, DeviceLost."""
    if name == "cpu":
        return Host(settings)
    from engines.device.cuda import CudaDevice

    try:
        return CudaDevice(name, settings, cache)
    except ImportError as error:
        raise UsageError(f"device {name}: {error}", f"{install_extra('gpu')}, built for this driver") from error
