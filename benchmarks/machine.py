"""Describes the machine and the software of a measurement."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipelines.child import nats_server_binary

_PACKAGES = ["av", "numpy", "onnxruntime", "nats-py", "uvloop", "ray", "mosec", "aiohttp", "faststream"]


def described() -> dict[str, Any]:
    """Processor, memory, system, versions, and how busy the machine is before anything has begun."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
    memory_kb = int(Path("/proc/meminfo").read_text().split()[1])
    output = subprocess.run([nats_server_binary(), "--version"], capture_output=True, text=True, check=True).stdout
    versions = {"Python": platform.python_version(), "nats-server": output.strip().rsplit("v", 1)[-1]}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory_kb / 1e6, 1),
        "system": platform.system(),
        "load": os.getloadavg()[0],
        "versions": versions,
    }
