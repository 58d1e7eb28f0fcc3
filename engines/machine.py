"""What this machine has to compute with: cores and memory that we may use, and NVIDIA GPUs."""

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

_CGROUP = Path("/sys/fs/cgroup")  # version 2; where a container's limits are
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*, cuda.h
_PCI = Path("/sys/bus/pci/devices")


@dataclass(frozen=True, slots=True)
class Gpu:
    """An NVIDIA GPU as its driver describes it.

    `capability` is CUDA's (major, minor); `uuid` its name wherever it is plugged in, as nvidia-smi has it; `link` the
    PCI Express link as it is now and as it could be, empty where the kernel does not tell.
    """

    name: str
    memory_bytes: int
    capability: tuple[int, int]
    uuid: str = ""
    link: str = ""


class DriverError(Exception):
    """There is a driver, and it says why it cannot be used."""


def cores() -> int:
    """Cores that this process may keep busy: its affinity, and its container's quota rounded up."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read(_CGROUP / "cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        allowed = min(allowed, -(-int(quota) // int(period)))
    return max(1, allowed)


def memory_bytes() -> int:
    """Memory that this process may use: the machine's, or its container's limit; 0 where neither is told."""
    total = 0
    for line in _read(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemTotal:"):
            total = int(line.split()[1]) * 1024
    limit = _read(_CGROUP / "memory.max")
    return min(total, int(limit)) if limit.isdigit() and total else total


def gpus() -> list[Gpu]:
    """The NVIDIA GPUs that the CUDA driver shows us; none without a driver. Raises DriverError when it is broken."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    if not _works(cuda, cuda.cuInit(0)):
        return []
    count = ctypes.c_int()
    _works(cuda, cuda.cuDeviceGetCount(ctypes.byref(count)))
    return [_gpu(cuda, number) for number in range(count.value)]


def gpu_files() -> list[Path]:
    """The kernel's device files of NVIDIA GPUs: there are some when a GPU is there, whether or not we may use it."""
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
    """As in `PCIe 8.0 GT/s x1 of 16.0 GT/s x16`; a GPU that rests shows less than it can."""
    speed, width = _read(device / "current_link_speed"), _read(device / "current_link_width")
    most, widest = _read(device / "max_link_speed"), _read(device / "max_link_width")
    if not speed or not width:
        return ""
    now, best = (f"{rate.removesuffix(' PCIe')} x{lanes}" for rate, lanes in ((speed, width), (most, widest)))
    return f"PCIe {now}" if now == best else f"PCIe {now} of {best}"


def _works(cuda: ctypes.CDLL, result: int) -> bool:
    """Whether a call went well; False when the driver sees no GPU. Raises DriverError with its own words."""
    if result == 100:  # CUDA_ERROR_NO_DEVICE
        return False
    if result != 0:
        text = ctypes.c_char_p()
        cuda.cuGetErrorString(result, ctypes.byref(text))
        raise DriverError((text.value or b"unknown error").decode())
    return True


def _read(path: Path) -> str:
    """A small file of the kernel; empty where there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
