"""Looks after the GPUs of a rig: limits of power, faults, and the energy of its work."""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.device.faults import GpuFault, GpuFaults
from engines.device.nvml import open_nvml
from engines.device.power import PowerCaps
from engines.device.sensors import GpuReading, GpuSensors
from engines.machine import find_gpu
from schemas.errors import UsageError
from schemas.rig import RigSpec
from workers.energy import EnergyMeter, WorkDone
from workers.gpu_metrics import CareCounts
from workers.supervisor import OnEvent, Supervisor
from workers.telemetry import Event, Fact

READ_EVERY_S = 2.0
LISTEN_S = 0.5  # most that one wait for an event takes; the end of a rig waits for it
CUDA = "cuda:"
OnLost = Callable[[str, str], None]  # the GPU's UUID, and why


class RigCare:
    """`async with care.caring():` while workers run. Without NVML it only says that limits of power have no effect.

    `faults` counts the Xid errors of each GPU by (UUID, Xid), `lost` has the GPUs that were taken out of work, with
    the reason.
    """

    def __init__(
        self,
        spec: RigSpec,
        supervisor: Supervisor,
        memory: Path,
        on_event: OnEvent,
        on_lost: OnLost = lambda _uuid, _why: None,
    ) -> None:
        """`memory`: a file for the limits of power from before. `on_lost` is called for a GPU that is of no use."""
        self._on_lost = on_lost
        self._spec = spec
        self._supervisor = supervisor
        self._memory = memory
        self._on_event = on_event
        self._devices: dict[str, list[str]] = {}  # by UUID: the names that the rig's file has for it
        self._index: dict[str, str] = {}  # NVML's, by UUID
        self._nvml: Any = None
        self._caps: PowerCaps | None = None
        self._listener: GpuFaults | None = None
        self._sensors: GpuSensors | None = None
        self.readings: Sequence[GpuReading] = ()
        self.energy = EnergyMeter()
        self.faults: Counter[tuple[str, int]] = Counter()
        self.lost: dict[str, str] = {}
        self.uncapped: dict[str, str] = {}

    def open(self) -> None:
        """Find the GPUs of the rig, and limit their power. Raises UsageError: a limit that a GPU does not accept."""
        self._nvml = open_nvml()
        watts = self._find()
        if self._nvml is None:
            if watts:
                self._on_event(
                    Event("uncapped", "power_watts has no effect: there is no NVML here, see `rigflow doctor`")
                )
                self.uncapped = dict.fromkeys(watts, "there is no NVML here")
            return
        self._caps = PowerCaps(self._nvml, self._memory)
        self.uncapped = self._caps.apply(watts)
        for uuid, reason in self.uncapped.items():
            text = f"GPU {uuid} may draw more than {watts[uuid]} W: {reason}"
            self._on_event(Event("uncapped", text, facts={"gpu": uuid}))
        for uuid in watts.keys() - self.uncapped.keys():
            self._on_event(Event("capped", f"GPU {uuid} may draw {watts[uuid]} W", logging.INFO, {"gpu": uuid}))
        self._sensors = GpuSensors(self._nvml)
        self._listener = GpuFaults(self._nvml, list(self._devices))
        self._listener.open()
        for uuid in self._listener.unreported:
            text = f"NVML reports no Xid errors of GPU {uuid}: its loss is noticed, other faults are in dmesg"
            self._on_event(Event("no-xid-events", text, logging.INFO, {"gpu": uuid}))

    def _find(self) -> dict[str, int]:
        """Fill `_devices`; the limits of power by UUID. A GPU that is not here is left out. Raises UsageError."""
        watts: dict[str, int] = {}
        for group in self._spec.worker:
            if not group.device.startswith(CUDA):
                continue
            uuid = group.device.removeprefix(CUDA)
            if uuid.isdigit():
                try:
                    uuid = find_gpu(group.device)[1].uuid
                except UsageError:
                    continue  # its worker ends with that reason
            self._devices.setdefault(uuid, []).append(group.device)
            if group.power_watts and watts.setdefault(uuid, group.power_watts) != group.power_watts:
                text = f"GPU {uuid} has two limits of power, {watts[uuid]} and {group.power_watts} W"
                raise UsageError(text, "give all workers of a GPU the same power_watts")
        return watts

    @contextlib.asynccontextmanager
    async def caring(self) -> AsyncIterator[None]:
        """Take care meanwhile. Raises UsageError as `open` does."""
        await asyncio.to_thread(self.open)
        task = asyncio.create_task(self._run())
        task.add_done_callback(self._ended)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.to_thread(self.close)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            text = f"the care for GPUs ended with an error, which is a bug: {error!r}"
            self._on_event(Event("unexpected", text, logging.ERROR))

    async def _run(self) -> None:
        """Read the sensors every 2 s, and take a GPU out of work when it has a fault that it cannot go on with."""
        if self._nvml is None:
            return
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read())
            if self._devices:
                tasks.create_task(self._listen())

    async def _read(self) -> None:
        assert self._sensors is not None
        while True:
            self.readings = await asyncio.to_thread(self._sensors.read, links=False)
            self._index |= {gpu.uuid: gpu.index for gpu in self.readings}
            ours = [gpu for gpu in self.readings if gpu.uuid in self._devices]
            self.energy.add(time.monotonic(), ours, WorkDone.of(self._supervisor.slots))
            if self._listener is not None:
                for fault in await asyncio.to_thread(self._listener.lost):
                    await self._take(fault)
            await asyncio.sleep(READ_EVERY_S)

    async def _listen(self) -> None:
        assert self._listener is not None
        while True:
            began_s = time.monotonic()
            try:
                fault = await asyncio.to_thread(self._listener.wait, LISTEN_S)
            except Exception as error:  # NVML's own error: the driver was unloaded, for example
                self._on_event(Event("no-xid-events", f"NVML reports no Xid errors any more: {error}"))
                return
            if fault is not None:
                await self._take(fault)
            elif time.monotonic() - began_s < LISTEN_S / 2:  # it answered at once: a GPU is gone, or no events are
                await asyncio.sleep(LISTEN_S)

    async def _take(self, fault: GpuFault) -> None:
        """Report a fault, and take the GPU out of work if it is of no use any more."""
        if fault.uuid in self.lost:
            return
        facts: dict[str, Fact] = {"gpu": fault.uuid, "xid": fault.xid}
        if fault.xid:
            self.faults[fault.uuid, fault.xid] += 1
        if not fault.fatal:
            self._on_event(Event("gpu-fault", f"GPU {fault.uuid}: {fault.text}", facts=facts))
            return
        self.lost[fault.uuid] = fault.text
        text = f"GPU {fault.uuid} is taken out of work, {fault.text}; reset it or restart the machine, then the rig"
        self._on_event(Event("gpu-lost", f"{text}, then `rigflow cards readmit {fault.uuid}`", logging.ERROR, facts))
        self._on_lost(fault.uuid, fault.text)
        devices = {f"{CUDA}{fault.uuid}", *self._devices.get(fault.uuid, ())}
        await self._supervisor.abandon(devices, f"GPU lost, {fault.text}")

    async def sensors(self) -> Sequence[GpuReading]:
        """All GPUs of the machine now, for metrics."""
        return await asyncio.to_thread(self._sensors.read) if self._sensors else ()

    def counts(self) -> CareCounts:
        """The values of its metrics. A GPU without an index never answered; it goes by its UUID."""
        ours = [self._index.get(uuid, uuid) for uuid in self._devices]
        lost = {self._index.get(uuid, uuid) for uuid in self.lost}
        uncapped = {self._index.get(uuid, uuid) for uuid in self.uncapped}
        known = ours if self._nvml is not None else ()
        return CareCounts(
            xids={(self._index.get(uuid, uuid), str(xid)): float(n) for (uuid, xid), n in self.faults.items()},
            lost={gpu: float(gpu in lost) for gpu in known},
            uncapped={gpu: float(gpu in uncapped) for gpu in ours},
            joules=self.energy.joules if known else None,
            per_kwh=self.energy.per_kwh(),
        )

    def status(self) -> dict[str, object]:
        """What `rigflow status` shows of the rig's GPUs and energy; empty where nothing is known."""
        known: dict[str, object] = {}
        if gpus := [self._describe(gpu) for gpu in self.readings if gpu.uuid in self._devices]:
            known["gpus"] = gpus
        troubles = [f"GPU {uuid} is out of work, {why}" for uuid, why in self.lost.items()]
        troubles += [
            f"GPU {uuid} may draw more power than the rig's file says: {why}" for uuid, why in self.uncapped.items()
        ]
        if troubles:
            known["troubles"] = troubles
        if self.energy.joules:
            known["energy"] = {"joules": self.energy.joules, "per_kwh": dict(self.energy.per_kwh())}
        return known

    def _describe(self, gpu: GpuReading) -> Mapping[str, object]:
        shown = ("temperature_celsius", "power_watts", "power_limit_watts", "fan_speed_ratio")
        xids = {str(xid): count for (uuid, xid), count in self.faults.items() if uuid == gpu.uuid}
        values = {name: gpu.values[name] for name in shown if name in gpu.values}
        return {"gpu": gpu.index, "uuid": gpu.uuid, "name": gpu.name, **values, **({"xids": xids} if xids else {})}

    def close(self) -> None:
        """Put the limits of power back."""
        if self._nvml is None:
            return
        if self._listener is not None:
            self._listener.close()
        if self._caps is not None:
            for uuid, reason in self._caps.restore().items():
                self._on_event(Event("uncapped", f"GPU {uuid}: {reason}", facts={"gpu": uuid}))
        with contextlib.suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()
