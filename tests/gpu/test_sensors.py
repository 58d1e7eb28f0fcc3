"""The sensors of a real GPU."""

import pytest

from engines.device.sensors import GpuSensors

pytestmark = pytest.mark.gpu


def test_a_gpu_is_read() -> None:
    pytest.importorskip("pynvml")
    sensors = GpuSensors.open()
    assert sensors is not None
    gpu, *_ = sensors.read()
    facts = sensors.facts(gpu.uuid)
    sensors.close()
    assert 1 < facts["power_watts"] < 1500
    assert facts["memory_total_bytes"] == gpu.values["memory_total_bytes"]
    assert gpu.name
    assert gpu.uuid.startswith("GPU-")
    assert 0 < gpu.values["memory_used_bytes"] < gpu.values["memory_total_bytes"]
    assert 1 < gpu.values["power_watts"] < 1500
    assert 10 < gpu.values["temperature_celsius"] < 110
    assert 1e8 < gpu.clocks["memory"] < 2e10
    assert gpu.throttled
