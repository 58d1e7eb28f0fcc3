"""What this machine has to compute with: cores and memory that we may use, and NVIDIA cards."""

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")  # version 2; where a container's limits are
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*, cuda.h


@dataclass(frozen=True, slots=True)
class Card:
    """An NVIDIA card as its driver describes it; `capability` is CUDA's (major, minor)."""

    name: str
    memory_bytes: int
    capability: tuple[int, int]


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


def cards() -> list[Card]:
    """The NVIDIA cards that the CUDA driver shows us; none without a driver. Raises DriverError when it is broken."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    if not _works(cuda, cuda.cuInit(0)):
        return []
    count = ctypes.c_int()
    _works(cuda, cuda.cuDeviceGetCount(ctypes.byref(count)))
    return [_card(cuda, number) for number in range(count.value)]


def card_files() -> list[Path]:
    """The kernel's device files of NVIDIA cards: there are some when a card is there, whether or not we may use it."""
    return sorted(Path("/dev").glob("nvidia[0-9]*"))


def _card(cuda: ctypes.CDLL, number: int) -> Card:
    name = ctypes.create_string_buffer(128)
    memory = ctypes.c_size_t()
    major, minor = ctypes.c_int(), ctypes.c_int()
    for result in (
        cuda.cuDeviceGetName(name, len(name), number),
        cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), number),
        cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, number),
        cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, number),
    ):
        _works(cuda, result)
    return Card(name.value.decode(), memory.value, (major.value, minor.value))


def _works(cuda: ctypes.CDLL, result: int) -> bool:
    """Whether a call went well; False when the driver sees no card. Raises DriverError with its own words."""
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
