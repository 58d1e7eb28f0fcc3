"""Energy that the GPUs of a rig used, and the work that was done with it."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from engines.device.sensors import GpuReading
from workers.slot import Slot, Stages, add_counts
from workers.telemetry import StageCounts

WINDOW_S = 600.0  # work by energy is that of so much recent time
JOULES_PER_KWH = 3.6e6


@dataclass(slots=True)
class WorkDone:
    """What a rig has done since its start: frames by pipeline, as its busiest stage of that counted them, and seconds
    that its GPUs' workers computed.
    """

    frames: int = 0
    device_s: float = 0.0

    @classmethod
    def of(cls, slots: list[Slot]) -> "WorkDone":
        """What the workers of these slots have done, earlier processes included."""
        total: dict[tuple[str, str], StageCounts] = {}
        device_s = 0.0
        for slot in slots:
            for stages in (slot.retired, slot.heartbeat.stages if slot.heartbeat else {}):
                add_counts(total, stages)
                if slot.options.device.startswith("cuda"):
                    device_s += sum(counts.seconds for counts in stages.values())
        return cls(sum(_frames(total).values()), device_s)


def _frames(total: Stages) -> dict[str, int]:
    frames: dict[str, int] = {}
    for (pipeline, _), counts in total.items():
        frames[pipeline] = max(frames.get(pipeline, 0), counts.frames)
    return frames


@dataclass(slots=True)
class EnergyMeter:
    """Adds up the energy of GPUs from their readings: by their own counters, or else by the power that they draw.

    GPUs before Volta, which mining cards of the generation Pascal are, have no counter.
    """

    joules: float = 0.0
    _last: dict[str, tuple[float, float | None, float | None]] = field(default_factory=dict)  # by UUID
    _past: deque[tuple[float, float, WorkDone]] = field(default_factory=deque)  # time, joules, work

    def add(self, now_s: float, readings: list[GpuReading], work: WorkDone) -> None:
        """Take in one reading of each GPU; a GPU that is missing uses nothing until it is back."""
        last, self._last = self._last, {}
        for gpu in readings:
            counter, watts = gpu.values.get("energy_joules"), gpu.values.get("power_watts")
            self._last[gpu.uuid] = now_s, counter, watts
            if gpu.uuid in last:
                self.joules += _used(last[gpu.uuid], (now_s, counter, watts))
        self._past.append((now_s, self.joules, work))
        while now_s - self._past[0][0] > WINDOW_S:
            self._past.popleft()

    def per_kwh(self) -> Mapping[str, float]:
        """Work by kWh of the last `WINDOW_S`: `frames` and `device-seconds`; empty while no energy is known."""
        if not self._past:
            return {}
        (_, before_j, before), (_, now_j, now) = self._past[0], self._past[-1]
        if now_j <= before_j:
            return {}
        kwh = (now_j - before_j) / JOULES_PER_KWH
        return {
            "frames": max(0, now.frames - before.frames) / kwh,
            "device-seconds": max(0.0, now.device_s - before.device_s) / kwh,
        }


def _used(before: tuple[float, float | None, float | None], now: tuple[float, float | None, float | None]) -> float:
    """Joules between two readings of one GPU."""
    (before_s, before_j, before_w), (now_s, now_j, now_w) = before, now
    if before_j is not None and now_j is not None and now_j >= before_j:  # a driver that was loaded anew counts from 0
        return now_j - before_j
    if before_w is None or now_w is None:
        return 0.0
    return (now_s - before_s) * (before_w + now_w) / 2
