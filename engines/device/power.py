"""Limits of the power of NVIDIA GPUs: set while a rig runs, and put back at its end."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engines.device.nvml import NO_PERMISSION, code_of
from engines.files import atomic_write
from schemas.errors import UsageError

MILLI = 1000


class PowerCaps:
    """Sets the limit of power of GPUs; `restore` puts back what was before.

    `file` keeps the limits from before, so that the rig that follows a killed one can put them back.
    """

    def __init__(self, nvml: Any, file: Path) -> None:
        self._nvml = nvml
        self._file = file
        self._before: dict[str, int] = _read(file)  # milliwatts by UUID

    def apply(self, watts: Mapping[str, int]) -> dict[str, str]:
        """Limit GPUs by UUID to so many watts; why it was not possible, by UUID.

        A limit outside of what the GPU accepts raises UsageError, and nothing is changed then.
        """
        self.restore()
        refused: dict[str, str] = {}
        handles = {}
        for uuid, cap in watts.items():
            try:
                handles[uuid] = self._nvml.nvmlDeviceGetHandleByUUID(uuid)
                least, most = self._nvml.nvmlDeviceGetPowerManagementLimitConstraints(handles[uuid])
            except self._nvml.NVMLError as error:
                handles.pop(uuid, None)
                refused[uuid] = f"its limit of power cannot be set: {error}"
                continue
            if not least <= cap * MILLI <= most:
                range_ = f"{-(-least // MILLI)} to {most // MILLI}"
                raise UsageError(f"power_watts = {cap} of GPU {uuid}: it accepts {range_} W", "change the rig's file")
        for uuid, handle in handles.items():
            if reason := self._cap(uuid, handle, watts[uuid]):
                refused[uuid] = reason
        return refused

    def _cap(self, uuid: str, handle: Any, watts: int) -> str:
        """Set one limit; why it is not possible, or empty."""
        nvml = self._nvml
        known = uuid in self._before  # from an earlier rig, and it could not be put back
        try:
            self._before.setdefault(uuid, int(nvml.nvmlDeviceGetPowerManagementLimit(handle)))
            self._write()  # before the change: a rig that is killed now has left a note of it
            nvml.nvmlDeviceSetPowerManagementLimit(handle, watts * MILLI)
        except nvml.NVMLError as error:
            if not known:
                self._before.pop(uuid, None)
                self._write()
            if code_of(error) == NO_PERMISSION:
                as_root = f"sudo nvidia-smi -i {uuid} -pl {watts}"
                return f"only root may set its limit of power: run the rig as root, or `{as_root}`"
            return f"its limit of power cannot be set: {error}"
        return ""

    def restore(self) -> dict[str, str]:
        """Put back the limits from before; why it was not possible, by UUID."""
        failed: dict[str, str] = {}
        for uuid, limit in list(self._before.items()):
            try:
                handle = self._nvml.nvmlDeviceGetHandleByUUID(uuid)
                self._nvml.nvmlDeviceSetPowerManagementLimit(handle, limit)
            except self._nvml.NVMLError as error:
                failed[uuid] = f"its limit of {limit // MILLI} W cannot be put back: {error}"
            else:
                del self._before[uuid]
        self._write()
        return failed

    def _write(self) -> None:
        """Keep the limits that are to be put back; no file where there are none. Raises OSError."""
        if self._before:
            atomic_write(self._file, json.dumps(self._before).encode())
        else:
            self._file.unlink(missing_ok=True)


def _read(file: Path) -> dict[str, int]:
    try:
        known = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {str(uuid): limit for uuid, limit in known.items() if isinstance(limit, int)}
