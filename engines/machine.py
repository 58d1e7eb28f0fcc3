"""The resources of this machine: cores and memory that this process may use, and NVIDIA GPUs."""

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from schemas.errors import UsageError

_CGROUP = Path("/sys/fs/cgroup")  # version 2; where a container's limits are
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*, cuda.h
_PCI = Path("/sys/bus/pci/devices")


@dataclass(frozen=True, slots=True)
class Gpu:
    """An NVIDIA GPU as its driver describes it.

    `capability` is CUDA's (major, minor); `uuid` stays the same in any slot and is the one of nvidia-smi; `link` is the
    current PCI Express link and the best possible one, empty if the kernel does not report them.
    """

    name: str
    memory_bytes: int
    capability: tuple[int, int]
    uuid: str = ""
    link: str = ""


class DriverError(Exception):
    """The driver is installed but does not work; the text is the driver's own."""


def cores() -> int:
    """Return the number of cores that this process may use: its affinity, limited by the quota of its container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read(_CGROUP / "cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        allowed = min(allowed, -(-int(quota) // int(period)))
    return max(1, allowed)


def memory_bytes() -> int:
    """Return the memory that this process may use: that of the machine or its container's limit; 0 if unknown."""
    total = 0
    for line in _read(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemTotal:"):
            total = int(line.split()[1]) * 1024
    limit = _read(_CGROUP / "memory.max")
    return min(total, int(limit)) if limit.isdigit() and total else total


def gpus() -> list[Gpu]:
    """Return the NVIDIA GPUs of the CUDA driver; empty without a driver. Raises DriverError if it does not work."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    if not _works(cuda, cuda.cuInit(0)):
        return []
    count = ctypes.c_int()
    _works(cuda, cuda.cuDeviceGetCount(ctypes.byref(count)))
    return [_gpu(cuda, number) for number in range(count.value)]


def find_gpu(name: str) -> tuple[int, Gpu]:
    """Return the number of the visible GPU `cuda:<index>` or `cuda:<UUID>`, and its properties. Raises UsageError."""
    wanted = name.removeprefix("cuda:")
    try:
        found = gpus()
    except DriverError as error:
        raise UsageError(f"device {name}: the NVIDIA driver does not work ({error})", "see nvidia-smi") from error
    for number, gpu in enumerate(found):
        if wanted in (str(number), gpu.uuid):
            return number, gpu
    there = ", ".join(f"cuda:{gpu.uuid}" for gpu in found)
    what = f"there is only {there}" if there else "there is no GPU here"
    raise UsageError(f"device {name}: {what}", "see `rigflow doctor` and CUDA_VISIBLE_DEVICES")


def driver_version() -> str:
    """Return the version of the NVIDIA driver; empty where the kernel does not report one."""
    return _read(Path("/sys/module/nvidia/version"))


def gpu_files() -> list[Path]:
    """Return the device files of NVIDIA GPUs, also of GPUs that this process may not use."""
    return sorted(Path("/dev").glob("nvidia[0-9]*"))


def _gpu(cuda: ctypes.CDLL, number: int) -> Gpu:
    name = ctypes.create_string_buffer(128)
    memory = ctypes.c_size_t()
    major, minor = ctypes.c_int(), ctypes.c_int()
    uuid, bus = (ctypes.c_ubyte * 16)(), ctypes.create_string_buffer(32)
    for result in (
        cuda.cuDeviceGetName(name, len(name), number),
        cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), number),
        cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, number),
        cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, number),
        cuda.cuDeviceGetUuid(uuid, number),
        cuda.cuDeviceGetPCIBusId(bus, len(bus), number),
    ):
        _works(cuda, result)
    return Gpu(
        name=name.value.decode(),
        memory_bytes=memory.value,
        capability=(major.value, minor.value),
        uuid=f"GPU-{UUID(bytes=bytes(uuid))}",
        link=_link(_PCI / bus.value.decode().lower()),
    )


def _link(device: Path) -> str:
    """Return, for example, `PCIe 8.0 GT/s x1 of 16.0 GT/s x16`; an idle GPU has a slower link."""
    speed, width = _read(device / "current_link_speed"), _read(device / "current_link_width")
    most, widest = _read(device / "max_link_speed"), _read(device / "max_link_width")
    if not speed or not width:
        return ""
    now, best = (f"{rate.removesuffix(' PCIe')} x{lanes}" for rate, lanes in ((speed, width), (most, widest)))
    return f"PCIe {now}" if now == best else f"PCIe {now} of {best}"


def _works(cuda: ctypes.CDLL, result: int) -> bool:
    """Return whether a call succeeded, False if the driver finds no GPU. Raises DriverError for other failures."""
    if result == 100:  # CUDA_ERROR_NO_DEVICE
        return False
    if result != 0:
        text = ctypes.c_char_p()
        cuda.cuGetErrorString(result, ctypes.byref(text))
        raise DriverError((text.value or b"unknown error").decode())
    return True


def _read(path: Path) -> str:
    """Read a small file of the kernel; empty if it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
