"""Reads the sensors of NVIDIA GPUs through NVML, without a CUDA context: use, memory, power, temperature, clocks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engines.device.nvml import answer_of, open_nvml

PERCENT, MILLI, MEGA, KIB = 0.01, 1e-3, 1e6, 1024
CLOCKS = {"graphics": 0, "sm": 1, "memory": 2, "video": 3}  # NVML's nvmlClockType_t
# bits of nvmlDeviceGetCurrentClocksThrottleReasons; an idle GPU and clocks that a user set are no throttling
THROTTLES = {
    "power-cap": 0x04,
    "hardware-slowdown": 0x08,
    "sync-boost": 0x10,
    "software-thermal": 0x20,
    "hardware-thermal": 0x40,
    "power-brake": 0x80,
}
MEMORY_V2 = 0x02000028  # nvmlMemory_v2_t: its size and its version
PCIE = {"sent": 0, "received": 1}  # nvmlPcieUtilCounter_t: by the GPU


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU at one moment. `values` are by the name of their metric without `rigflow_gpu_`, in base units.

    `clocks` are in Hz, `pcie` in bytes a second over the last 20 ms, `throttled` 1 or 0 by reason. What a GPU does not
    measure is left out.
    """

    index: str
    name: str
    uuid: str
    driver: str
    values: Mapping[str, float] = field(default_factory=dict)
    clocks: Mapping[str, float] = field(default_factory=dict)
    throttled: Mapping[str, float] = field(default_factory=dict)
    pcie: Mapping[str, float] = field(default_factory=dict)


class GpuSensors:
    """The GPUs of this machine: `read`, which takes about 50 ms a GPU; `close` at the end."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml

    @classmethod
    def open(cls) -> "GpuSensors | None":
        """None on a machine without an NVIDIA driver, or without the extra `gpu`."""
        nvml = open_nvml()
        return None if nvml is None else cls(nvml)

    def read(self, links: bool = True) -> Sequence[GpuReading]:
        """Every GPU now. One that is lost is left out. `links`: with the counters of PCIe, which take long."""
        nvml, readings = self._nvml, []
        for index in range(int(self._value(nvml.nvmlDeviceGetCount) or 0)):
            handle = self._value(nvml.nvmlDeviceGetHandleByIndex, index)
            if handle is not None:
                readings.append(self._reading(index, handle, links))
        return readings

    def facts(self, uuid: str) -> dict[str, object]:
        """One GPU now, for a status: its values, `clocks`, and the reasons for which it is `throttled`; empty if lost.

        Without what takes NVML long, the counters of PCIe. Other threads may call it.
        """
        handle = self._value(self._nvml.nvmlDeviceGetHandleByUUID, uuid)
        if handle is None:
            return {}
        clocks, throttled = self._clocks(handle), self._throttled(handle)
        return _known(self._values(handle)) | {
            "clocks": clocks,
            "throttled": [name for name in throttled if throttled[name]],
        }

    def close(self) -> None:
        """Release NVML."""
        self._value(self._nvml.nvmlShutdown)

    def _reading(self, index: int, handle: Any, links: bool) -> GpuReading:
        nvml = self._nvml
        return GpuReading(
            index=str(index),
            name=_text(self._value(nvml.nvmlDeviceGetName, handle)),
            uuid=_text(self._value(nvml.nvmlDeviceGetUUID, handle)),
            driver=_text(self._value(nvml.nvmlSystemGetDriverVersion)),
            values=_known(self._values(handle)),
            clocks=self._clocks(handle),
            throttled=self._throttled(handle),
            pcie=self._each(PCIE, KIB, nvml.nvmlDeviceGetPcieThroughput, handle) if links else {},
        )

    def _clocks(self, handle: Any) -> Mapping[str, float]:
        return self._each(CLOCKS, MEGA, self._nvml.nvmlDeviceGetClockInfo, handle)

    def _throttled(self, handle: Any) -> Mapping[str, float]:
        bits = self._value(self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
        return {} if bits is None else {name: float(bool(bits & bit)) for name, bit in THROTTLES.items()}

    def _values(self, handle: Any) -> dict[str, float | None]:
        nvml = self._nvml
        use = self._value(nvml.nvmlDeviceGetUtilizationRates, handle)
        # version 2 leaves out what the driver reserves, as nvidia-smi does; drivers before 510 know only version 1
        memory = self._value(nvml.nvmlDeviceGetMemoryInfo, handle, MEMORY_V2) or self._value(
            nvml.nvmlDeviceGetMemoryInfo, handle
        )
        decoder = self._value(nvml.nvmlDeviceGetDecoderUtilization, handle)  # percent, and the microseconds it is over
        encoder = self._value(nvml.nvmlDeviceGetEncoderUtilization, handle)
        return {
            "utilization_ratio": None if use is None else use.gpu * PERCENT,
            "memory_utilization_ratio": None if use is None else use.memory * PERCENT,
            "decoder_utilization_ratio": None if decoder is None else decoder[0] * PERCENT,
            "encoder_utilization_ratio": None if encoder is None else encoder[0] * PERCENT,
            "memory_used_bytes": None if memory is None else float(memory.used),
            "memory_total_bytes": None if memory is None else float(memory.total),
            "power_watts": self._scaled(MILLI, nvml.nvmlDeviceGetPowerUsage, handle),
            "power_limit_watts": self._scaled(MILLI, nvml.nvmlDeviceGetEnforcedPowerLimit, handle),
            "energy_joules": self._scaled(MILLI, nvml.nvmlDeviceGetTotalEnergyConsumption, handle),
            "temperature_celsius": self._scaled(1.0, nvml.nvmlDeviceGetTemperature, handle, 0),  # of the chip
            "fan_speed_ratio": self._scaled(PERCENT, nvml.nvmlDeviceGetFanSpeed, handle),
            "pcie_link_generation": self._scaled(1.0, nvml.nvmlDeviceGetCurrPcieLinkGeneration, handle),
            "pcie_link_lanes": self._scaled(1.0, nvml.nvmlDeviceGetCurrPcieLinkWidth, handle),
            "pcie_replays": self._scaled(1.0, nvml.nvmlDeviceGetPcieReplayCounter, handle),
        }

    def _each(
        self, kinds: Mapping[str, int], factor: float, ask: Callable[..., Any], handle: Any
    ) -> Mapping[str, float]:
        return _known({name: self._scaled(factor, ask, handle, kind) for name, kind in kinds.items()})

    def _scaled(self, factor: float, ask: Callable[..., Any], *given: Any) -> float | None:
        value = self._value(ask, *given)
        return None if value is None else value * factor

    def _value(self, ask: Callable[..., Any], *given: Any) -> Any:
        """The answer of NVML; None where this GPU or this driver has none."""
        return answer_of(self._nvml, ask, *given)


def _known(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if value is not None}


def _text(value: Any) -> str:
    """A text of NVML, which older releases give as bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
