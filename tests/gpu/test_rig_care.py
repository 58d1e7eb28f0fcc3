"""The care for a real GPU: what NVML reports, without changing any of its settings."""

import time
from pathlib import Path

import pytest

from engines.device.faults import GpuFaults
from engines.device.power import MILLI, PowerCaps
from engines.machine import gpus
from schemas.errors import UsageError
from schemas.rig import parse_rig
from workers.rig_care import RigCare
from workers.supervisor import Supervisor

pytestmark = pytest.mark.gpu


def test_a_sound_gpu_has_no_faults_and_reports_its_xid_errors() -> None:
    nvml = pytest.importorskip("pynvml")
    nvml.nvmlInit()
    faults = GpuFaults(nvml, [gpu.uuid for gpu in gpus()])
    faults.open()
    began_s = time.monotonic()
    assert faults.wait(0.3) is None
    assert time.monotonic() - began_s > 0.25
    assert faults.lost() == []
    assert faults.unreported == []
    faults.close()
    gone = GpuFaults(nvml, ["GPU-00000000-0000-0000-0000-000000000000"])
    gone.open()
    [fault] = gone.lost()
    assert fault.fatal
    assert gone.wait(0.1) is None
    gone.close()
    nvml.nvmlShutdown()


def test_a_limit_of_power_that_the_gpu_does_not_accept_changes_nothing(tmp_path: Path) -> None:
    nvml = pytest.importorskip("pynvml")
    nvml.nvmlInit()
    gpu = gpus()[0].uuid
    handle = nvml.nvmlDeviceGetHandleByUUID(gpu)
    before = nvml.nvmlDeviceGetPowerManagementLimit(handle)
    _, most = nvml.nvmlDeviceGetPowerManagementLimitConstraints(handle)
    with pytest.raises(UsageError, match="it accepts"):
        PowerCaps(nvml, tmp_path / "power.json").apply({gpu: most // MILLI + 1})
    assert nvml.nvmlDeviceGetPowerManagementLimit(handle) == before
    assert not (tmp_path / "power.json").exists()
    nvml.nvmlShutdown()


async def test_energy_and_sensors_of_a_rig_come_from_nvml(tmp_path: Path) -> None:
    import asyncio

    pytest.importorskip("pynvml")
    spec = parse_rig('[[worker]]\ndevice = "cuda:0"', "rig.toml")
    care = RigCare(spec, Supervisor([]), tmp_path / "power.json", lambda event: None)
    async with care.caring():
        await asyncio.sleep(5.0)
        status = care.status()
    [gpu] = status["gpus"]  # type: ignore[misc]
    assert 1 < gpu["power_watts"] < 1500
    assert 1 < status["energy"]["joules"] / 5.0 < 1500  # type: ignore[index]
    assert care.counts().lost == {gpu["gpu"]: 0.0}
