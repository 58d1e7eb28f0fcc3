"""Faults of NVIDIA GPUs: the Xid errors that the driver reports through NVML, and GPUs that no longer answer."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engines.device.nvml import LOST, NOT_FOUND, RESET_REQUIRED, TIMEOUT, code_of

XID_EVENT = 0x8  # nvmlEventTypeXidCriticalError
FATAL = {  # after these a GPU computes nothing, or nothing that one may trust, until it is reset or exchanged
    46: "it stopped processing",
    48: "a double-bit error of its memory",
    62: "its microcontroller halted",
    64: "a row of its memory could not be remapped",
    79: "it has fallen off the bus",
    95: "an uncontained error of its memory",
    110: "a fault of its security processor",
    119: "its system processor does not answer",
    120: "an error of its system processor",
    140: "an error of its memory that is not corrected",
}
PROGRAMS = (13, 31, 43, 45)  # Xids of the program that computed, not of the card: the worker ends and is started again
_GONE = {
    LOST: "the driver has lost it",
    RESET_REQUIRED: "it needs a reset",
    NOT_FOUND: "the driver does not have it any more",
}


@dataclass(frozen=True, slots=True)
class GpuFault:
    """What happened to the GPU `uuid`. `xid` 0: it does not answer. `fatal`: it is of no use until it is reset."""

    uuid: str
    xid: int
    fatal: bool
    text: str

    @classmethod
    def of_xid(cls, uuid: str, xid: int) -> "GpuFault":
        """The fault of an Xid error, in words."""
        if xid in FATAL:
            return cls(uuid, xid, True, f"Xid {xid}: {FATAL[xid]}")
        whose = "an error of the program on it" if xid in PROGRAMS else "see dmesg, and NVIDIA's list of Xid errors"
        return cls(uuid, xid, False, f"Xid {xid}: {whose}")


class GpuFaults:
    """Faults of some GPUs: `wait` for Xid errors, `lost` asks whether they still answer. `close` at the end.

    `unreported`: UUIDs of GPUs whose Xid errors NVML does not report.
    """

    def __init__(self, nvml: Any, uuids: Sequence[str]) -> None:
        self._nvml = nvml
        self._uuids = uuids
        self._events: Any = None
        self._handles: dict[str, Any] = {}
        self.unreported: list[str] = []

    def open(self) -> None:
        """Begin to listen."""
        nvml = self._nvml
        try:
            self._events = nvml.nvmlEventSetCreate()
        except nvml.NVMLError:
            self.unreported = list(self._uuids)
        for uuid in self._uuids:
            try:
                self._handles[uuid] = nvml.nvmlDeviceGetHandleByUUID(uuid)
                if self._events is not None:
                    nvml.nvmlDeviceRegisterEvents(self._handles[uuid], XID_EVENT, self._events)
            except nvml.NVMLError:
                self.unreported.append(uuid)

    def wait(self, seconds: float) -> GpuFault | None:
        """Wait up to `seconds` for the next Xid error. None: there was none, or NVML reports none here at all."""
        if self._events is None:
            return None
        nvml = self._nvml
        try:
            event = nvml.nvmlEventSetWait(self._events, int(1000 * seconds))
            uuid = nvml.nvmlDeviceGetUUID(event.device)
        except nvml.NVMLError as error:
            if code_of(error) in (TIMEOUT, *_GONE):  # a GPU that is gone is found by `lost`
                return None
            raise
        return GpuFault.of_xid(uuid.decode() if isinstance(uuid, bytes) else uuid, int(event.eventData))

    def lost(self) -> list[GpuFault]:
        """A fault for each GPU that does not answer now."""
        return [fault for uuid in self._uuids if (fault := self._lost(uuid))]

    def _lost(self, uuid: str) -> GpuFault | None:
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
            nvml.nvmlDeviceGetTemperature(handle, 0)  # asks the card itself
        except nvml.NVMLError as error:
            if code_of(error) in _GONE:
                return GpuFault(uuid, 0, True, _GONE[code_of(error)])
        return None

    def close(self) -> None:
        """Listen no more."""
        if self._events is not None:
            with contextlib.suppress(self._nvml.NVMLError):
                self._nvml.nvmlEventSetFree(self._events)
            self._events = None
