"""The care of a rig for its GPUs: limits of power, Xid errors, lost GPUs, energy. The library is tests/nvml.c."""

import asyncio
import json
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from engines.device.faults import FATAL, GpuFault
from engines.device.sensors import GpuReading
from schemas.errors import GivenUp, UsageError
from schemas.rig import RigSpec, parse_rig
from schemas.settings import Settings
from tests.nvml import FakeGpus, fake_gpus, uuid
from workers import rig_care
from workers.energy import EnergyMeter, WorkDone
from workers.options import WorkerOptions
from workers.rig_care import RigCare
from workers.slot import Slot
from workers.supervisor import Supervisor
from workers.telemetry import Event, Heartbeat, StageCounts


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGpus:
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    return fake_gpus(tmp_path, monkeypatch, count=3)


def rig_of(watts: int = 0, cards: int = 2) -> RigSpec:
    cap = f"power_watts = {watts}\n" if watts else ""
    return parse_rig("".join(f'[[worker]]\ndevice = "cuda:{uuid(n)}"\n{cap}' for n in range(cards)), "rig.toml")


def start_waiting(options: WorkerOptions, heartbeats: socket.socket | None) -> None:
    """A worker that sends heartbeats and does nothing; it ends at SIGTERM, as any program."""
    assert heartbeats is not None
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # the fork server's processes begin with it blocked
    while True:
        heartbeats.send(Heartbeat("working", True).encode())
        time.sleep(0.05)


class Cared:
    """A supervisor whose workers do nothing, and the care for its GPUs."""

    def __init__(self, spec: RigSpec, folder: Path) -> None:
        self.events: list[Event] = []
        self.started_s: list[float] = []  # when each worker was started
        options = [WorkerOptions(settings=Settings(), device=group.device, name=group.device) for group in spec.worker]
        self.supervisor = Supervisor(options, self.on_event, start_waiting, spec.start_pause_s)
        self.care = RigCare(spec, self.supervisor, folder / "power.json", self.events.append)

    def on_event(self, event: Event) -> None:
        self.events.append(event)
        if event.what == "started":
            self.started_s.append(time.monotonic())

    @property
    def said(self) -> str:
        return "\n".join(event.text for event in self.events)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self.care.caring():
            watching = asyncio.create_task(self.supervisor.watch())
            try:
                await self.until(lambda: len(self.supervisor.pids) == len(self.supervisor.slots))
                yield
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
                await self.supervisor.stop(5.0)

    async def until(self, what: object) -> None:
        assert callable(what)
        async with asyncio.timeout(30):
            while not what():
                await asyncio.sleep(0.02)


async def test_limits_of_power_are_set_while_a_rig_runs(gpus: FakeGpus, tmp_path: Path) -> None:
    cared = Cared(rig_of(90), tmp_path)
    async with cared.care.caring():
        assert [gpus.get(n, "limit") for n in (0, 1)] == [90_000, 90_000]
        assert set(json.loads((tmp_path / "power.json").read_text()).values()) == {120_000}
    assert [gpus.get(n, "limit") for n in (0, 1)] == [120_000, 120_000]
    assert not (tmp_path / "power.json").exists()
    assert "may draw 90 W" in cared.said


async def test_the_rig_after_a_killed_one_puts_its_limits_back(gpus: FakeGpus, tmp_path: Path) -> None:
    await asyncio.to_thread(Cared(rig_of(90), tmp_path).care.open)  # and no close
    assert gpus.get(0, "limit") == 90_000
    async with Cared(rig_of(80), tmp_path).care.caring():
        assert gpus.get(0, "limit") == 80_000
    assert gpus.get(0, "limit") == 120_000


async def test_a_rig_without_the_right_between_two_others_keeps_the_limit_from_before(
    gpus: FakeGpus, tmp_path: Path
) -> None:
    await asyncio.to_thread(Cared(rig_of(90, cards=1), tmp_path).care.open)  # as root, and killed
    gpus.set(0, "root", 0)
    async with Cared(rig_of(80, cards=1), tmp_path).care.caring():
        assert gpus.get(0, "limit") == 90_000
    gpus.set(0, "root", 1)
    async with Cared(rig_of(70, cards=1), tmp_path).care.caring():
        assert gpus.get(0, "limit") == 70_000
    assert gpus.get(0, "limit") == 120_000


async def test_without_the_right_the_rig_runs_and_says_what_to_do(gpus: FakeGpus, tmp_path: Path) -> None:
    gpus.set(0, "root", 0)
    cared = Cared(rig_of(90), tmp_path)
    async with cared.care.caring():
        assert (gpus.get(0, "limit"), gpus.get(1, "limit")) == (120_000, 90_000)
        [trouble] = cared.care.status()["troubles"]  # type: ignore[misc]
        assert cared.care.counts().uncapped == {uuid(0): 1.0, uuid(1): 0.0}
    assert f"sudo nvidia-smi -i {uuid(0)} -pl 90" in trouble
    assert f"sudo nvidia-smi -i {uuid(0)} -pl 90" in cared.said


async def test_a_limit_outside_of_what_a_gpu_accepts_is_refused(gpus: FakeGpus, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"power_watts = 20 of GPU GPU-\S+: it accepts 60 to 140 W"):
        async with Cared(rig_of(20), tmp_path).care.caring():
            raise AssertionError
    assert gpus.get(0, "limit") == 120_000


def test_files_of_rigs_with_impossible_limits_are_refused() -> None:
    with pytest.raises(UsageError, match="power_watts is for GPUs"):
        parse_rig("[[worker]]\npower_watts = 90", "rig.toml")
    two = f'[[worker]]\ndevice = "cuda:{uuid(0)}"\npower_watts = '
    with pytest.raises(UsageError, match="two limits of power, 90 and 80 W"):
        Cared(parse_rig(f"{two}90\n{two}80\n", "rig.toml"), Path()).care.open()


async def test_a_limit_without_nvml_has_no_effect_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rig_care, "open_nvml", lambda: None)
    cared = Cared(rig_of(90), tmp_path)
    async with cared.care.caring():
        assert "there is no NVML here" in str(cared.care.status())
    assert "power_watts has no effect" in cared.said


async def test_cards_that_are_lost_are_taken_out_of_work_and_others_go_on(
    gpus: FakeGpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rig_care, "READ_EVERY_S", 0.05)
    cared = Cared(rig_of(cards=3).model_copy(update={"start_pause_s": 0.2}), tmp_path)
    async with cared.running():
        first, second, third = cared.supervisor.slots
        assert len(cared.started_s) == 3
        assert all(later - earlier >= 0.2 for earlier, later in pairwise(cared.started_s))
        gpus.set(0, "xid", 31)
        await cared.until(lambda: "Xid 31: an error of the program" in cared.said)
        assert not first.given_up
        gpus.set(0, "xid", 79)
        await cared.until(lambda: first.given_up and not first.running)
        assert "fallen off the bus" in first.unready
        gpus.set(1, "lost", 1)
        await cared.until(lambda: second.given_up and not second.running)
        assert "lost it" in second.unready
        assert third.running
        assert not third.given_up
        counts = cared.care.counts()
        assert counts.lost == {"0": 1.0, "1": 1.0, "2": 0.0}
        assert counts.xids == {("0", "31"): 1.0, ("0", "79"): 1.0}
        assert len(cared.care.status()["troubles"]) == 2  # type: ignore[arg-type]
    assert "is taken out of work, Xid 79" in cared.said
    assert all(f"then `rigflow cards readmit {uuid}`" in cared.said for uuid in cared.care.lost)


async def test_a_rig_that_loses_its_only_card_ends_and_says_why(
    gpus: FakeGpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cared = Cared(rig_of(cards=1), tmp_path)
    async with cared.care.caring():
        watching = asyncio.create_task(cared.supervisor.watch())
        await cared.until(lambda: cared.supervisor.pids)
        gpus.set(0, "xid", 48)
        with pytest.raises(GivenUp, match="no worker is left: GPU lost, Xid 48"):
            async with asyncio.timeout(30):
                await watching
    await cared.supervisor.stop(5.0)


async def test_a_card_whose_driver_reports_no_xid_errors_is_said(gpus: FakeGpus, tmp_path: Path) -> None:
    gpus.set(1, "events", 0)
    cared = Cared(rig_of(), tmp_path)
    async with cared.care.caring():
        assert f"NVML reports no Xid errors of GPU {uuid(1)}" in cared.said


def test_every_fatal_xid_has_words_and_stops_the_card() -> None:
    assert 79 in FATAL
    for xid in (*FATAL, 13, 63, 999):
        fault = GpuFault.of_xid("GPU-1", xid)
        assert fault.fatal == (xid in FATAL)
        assert f"Xid {xid}: " in fault.text


def reading(gpu: str, **values: float) -> GpuReading:
    return GpuReading("0", "P106", gpu, "535", values)


def test_energy_is_that_of_counters_or_else_of_power() -> None:
    meter = EnergyMeter()
    for second in range(11):
        counted = reading("a", energy_joules=5000.0 + 100 * second, power_watts=7.0)
        pascal = reading("b", power_watts=50.0 + 10 * second)  # no counter: 100 W in the mean
        meter.add(float(second), [counted, pascal], WorkDone(frames=30 * second, device_s=0.5 * second))
    assert meter.joules == pytest.approx(10 * 100 + 10 * 100)
    assert meter.per_kwh() == pytest.approx({"frames": 300 / 2000 * 3.6e6, "device-seconds": 5 / 2000 * 3.6e6})


def test_a_counter_that_starts_anew_and_a_card_that_is_away_use_nothing_wrong() -> None:
    meter = EnergyMeter()
    meter.add(0.0, [reading("a", energy_joules=9000.0)], WorkDone())
    meter.add(1.0, [reading("a", energy_joules=3.0)], WorkDone())
    meter.add(2.0, [], WorkDone())
    meter.add(99.0, [reading("a", energy_joules=500.0)], WorkDone())
    assert meter.joules == 0.0
    assert meter.per_kwh() == {}


def test_old_work_is_forgotten() -> None:
    meter = EnergyMeter()
    for second in range(0, 2001, 100):
        frames = 0 if second < 1400 else second - 1400
        meter.add(float(second), [reading("a", energy_joules=10.0 * second)], WorkDone(frames=frames))
    assert meter.per_kwh()["frames"] == pytest.approx(600 / 6000 * 3.6e6)


def test_work_is_frames_of_the_busiest_stage_and_seconds_of_gpus() -> None:
    def slot(device: str, stage: str, frames: int, seconds: float) -> Slot:
        made = Slot(WorkerOptions(settings=Settings(), device=device))
        made.retired = {("p", stage): StageCounts(frames=frames, seconds=seconds)}
        return made

    work = WorkDone.of(
        [slot("cpu", "decode", 90, 9.0), slot("cuda:0", "infer", 80, 2.0), slot("cuda:1", "infer", 5, 1.0)]
    )
    assert work == WorkDone(90, 3.0)
