"""Metrics of a machine's NVIDIA GPUs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import Metric

from engines.device.sensors import GpuReading
from workers.samples import alone, counter, gauge

GPU = ("gpu",)
GAUGES = {
    "utilization_ratio": "Share of the last second or less in which a GPU computed, 0 to 1.",
    "memory_utilization_ratio": "Share of that time in which its memory was read or written, 0 to 1.",
    "decoder_utilization_ratio": "Use of its video decoders, 0 to 1.",
    "encoder_utilization_ratio": "Use of its video encoders, 0 to 1.",
    "memory_used_bytes": "Memory of a GPU in use, by any program.",
    "memory_total_bytes": "Memory of a GPU.",
    "power_watts": "Power that a GPU draws.",
    "power_limit_watts": "Power that a GPU may draw.",
    "temperature_celsius": "Temperature of a GPU's chip.",
    "fan_speed_ratio": "Speed of a GPU's fan, as a share of the highest.",
    "pcie_link_generation": "Generation of a GPU's PCIe link now; idle GPUs lower it.",
    "pcie_link_lanes": "Lanes of a GPU's PCIe link.",
}
COUNTERS = {
    "energy_joules": "Energy that a GPU used since its driver was loaded.",
    "pcie_replays": "Transfers that a GPU's PCIe link repeated: more than a few say that a riser or a slot is bad.",
}


@dataclass(slots=True)
class CareCounts:
    """What a rig knows of its own GPUs beside their sensors: by index, and `xids` by index and Xid."""

    xids: Mapping[tuple[str, str], float] = field(default_factory=dict)
    lost: Mapping[str, float] = field(default_factory=dict)
    uncapped: Mapping[str, float] = field(default_factory=dict)
    joules: float | None = None
    per_kwh: Mapping[str, float] = field(default_factory=dict)


def care_families(care: CareCounts) -> Iterator[Metric]:
    """Every family of the care for GPUs, in the order of docs/metrics.md."""
    text = "Errors that the driver reported of a GPU, by their number (Xid)."
    yield counter("rigflow_gpu_xid_errors", text, (*GPU, "xid"), care.xids.items())
    text = "1 when the rig took a GPU out of work, because of an Xid or because it does not answer."
    yield gauge("rigflow_gpu_lost", text, GPU, alone(care.lost))
    text = "1 when the rig could not set the limit of power that its file has for a GPU."
    yield gauge("rigflow_gpu_uncapped", text, GPU, alone(care.uncapped))
    joules = [] if care.joules is None else [((), care.joules)]
    yield counter("rigflow_energy_joules", "Energy that the rig's GPUs used since the rig was started.", (), joules)
    text = "Work of the last ten minutes by kWh of the rig's GPUs: frames, device-seconds."
    yield gauge("rigflow_work_per_kilowatt_hour", text, ("work",), alone(care.per_kwh))


def gpu_families(gpus: Sequence[GpuReading]) -> Iterator[Metric]:
    """Every family of GPUs, in the order of docs/metrics.md."""
    facts = (((gpu.index, gpu.name, gpu.uuid, gpu.driver), 1.0) for gpu in gpus)
    yield gauge("rigflow_gpu_info", "A GPU of this rig, always 1.", (*GPU, "name", "uuid", "driver"), facts)
    for name, text in GAUGES.items():
        yield gauge(f"rigflow_gpu_{name}", text, GPU, _of(gpus, name))
    for name, text in COUNTERS.items():
        yield counter(f"rigflow_gpu_{name}", text, GPU, _of(gpus, name))
    clocks = _each(gpus, lambda gpu: gpu.clocks)
    yield gauge("rigflow_gpu_clock_hertz", "Clock of a GPU's graphics, sm, memory or video.", (*GPU, "clock"), clocks)
    throttled = _each(gpus, lambda gpu: gpu.throttled)
    yield gauge(
        "rigflow_gpu_throttled", "1 while a GPU lowers its clocks for this reason.", (*GPU, "reason"), throttled
    )
    pcie = _each(gpus, lambda gpu: gpu.pcie)
    text = "Bytes a second that a GPU sent and received over PCIe in 20 ms."
    yield gauge("rigflow_gpu_pcie_bytes_per_second", text, (*GPU, "direction"), pcie)


def _of(gpus: Sequence[GpuReading], name: str) -> Iterator[tuple[tuple[str, ...], float]]:
    return (((gpu.index,), gpu.values[name]) for gpu in gpus if name in gpu.values)


def _each(
    gpus: Sequence[GpuReading], of: Callable[[GpuReading], Mapping[str, float]]
) -> Iterator[tuple[tuple[str, ...], float]]:
    return (((gpu.index, name), value) for gpu in gpus for name, value in of(gpu).items())
