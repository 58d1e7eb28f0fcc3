"""What this machine's processor is called."""

import hashlib
import platform
from pathlib import Path

from engines.machine import cores


def host_id() -> str:
    """The id of this machine's processor: it changes with the machine, the model and the number of cores."""
    text = f"{platform.node()} {_machine_id()} {processor()} {cores()}"
    return f"cpu-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def processor() -> str:
    """The processor's name."""
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def processor_flags() -> str:
    """A hash of what instructions the processor has, as far as the system says."""
    lines = _read(Path("/proc/cpuinfo")).splitlines()
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(flags.encode()).hexdigest()[:16]


def _machine_id() -> str:
    return _read(Path("/etc/machine-id"))


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
