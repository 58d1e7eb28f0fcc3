"""Readings of GPUs; NVML is a stand-in, because most machines that run this have no GPU: tests/gpu has the real one."""

import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from engines.device.sensors import GpuSensors


class NoAnswer(Exception):
    """What NVML raises for a value that a card does not measure."""


def nvml(**answers: Any) -> Any:
    """A module that answers so for each GPU, and raises NoAnswer for all else that NVML has."""

    class Module(SimpleNamespace):
        NVMLError = NoAnswer

        def __getattr__(self, name: str) -> Any:
            def answer(*given: Any) -> Any:
                if name not in answers:
                    raise NoAnswer(name)
                return answers[name](*given) if callable(answers[name]) else answers[name]

            return answer

    return Module()


def test_values_are_in_base_units_and_what_a_card_does_not_measure_is_left_out() -> None:
    module = nvml(
        nvmlDeviceGetCount=1,
        nvmlDeviceGetHandleByIndex="handle",
        nvmlDeviceGetName=b"P104-100",
        nvmlDeviceGetUtilizationRates=SimpleNamespace(gpu=87, memory=20),
        nvmlDeviceGetMemoryInfo=SimpleNamespace(used=3 << 30, total=8 << 30),
        nvmlDeviceGetPowerUsage=120_500,
        nvmlDeviceGetTotalEnergyConsumption=5_000,
        nvmlDeviceGetTemperature=66,
        nvmlDeviceGetDecoderUtilization=[40, 167_000],
        nvmlDeviceGetClockInfo=lambda handle, kind: 1500 + kind,
        nvmlDeviceGetCurrentClocksThrottleReasons=0x04 | 0x01,  # the power limit, and idle, which is no throttling
        nvmlDeviceGetPcieThroughput=lambda handle, kind: 1000 * (kind + 1),
    )
    [gpu] = GpuSensors(module).read()
    assert (gpu.index, gpu.name, gpu.uuid) == ("0", "P104-100", "")
    assert gpu.values == pytest.approx(
        {
            "utilization_ratio": 0.87,
            "memory_utilization_ratio": 0.2,
            "decoder_utilization_ratio": 0.4,
            "memory_used_bytes": 3 << 30,
            "memory_total_bytes": 8 << 30,
            "power_watts": 120.5,
            "energy_joules": 5.0,
            "temperature_celsius": 66.0,
        }
    )
    assert gpu.clocks == {"graphics": 1500e6, "sm": 1501e6, "memory": 1502e6, "video": 1503e6}
    assert {reason for reason, on in gpu.throttled.items() if on} == {"power-cap"}
    assert gpu.pcie == {"sent": 1_024_000, "received": 2_048_000}


def test_the_facts_of_one_card_are_in_base_units_and_can_be_json() -> None:
    module = nvml(
        nvmlDeviceGetHandleByUUID=lambda uuid: {"GPU-1": "handle"}[uuid],
        nvmlDeviceGetEncoderUtilization=[25, 167_000],
        nvmlDeviceGetPowerUsage=120_500,
        nvmlDeviceGetClockInfo=lambda handle, kind: 1500 + kind,
        nvmlDeviceGetCurrentClocksThrottleReasons=0x40,
    )
    facts = json.loads(json.dumps(GpuSensors(module).facts("GPU-1")))
    clocks = {"graphics": 1500e6, "sm": 1501e6, "memory": 1502e6, "video": 1503e6}
    assert facts == {
        "encoder_utilization_ratio": 0.25,
        "power_watts": 120.5,
        "clocks": clocks,
        "throttled": ["hardware-thermal"],
    }
    assert GpuSensors(nvml()).facts("GPU-1") == {}  # it is lost


def test_a_lost_card_is_left_out_and_its_neighbour_is_read() -> None:
    def handle(index: int) -> str:
        if index == 0:
            raise NoAnswer("GPU is lost")
        return "handle"

    [gpu] = GpuSensors(nvml(nvmlDeviceGetCount=2, nvmlDeviceGetHandleByIndex=handle)).read()
    assert (gpu.index, gpu.values, gpu.throttled) == ("1", {}, {})


def test_a_machine_without_nvml_has_no_sensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert GpuSensors.open() is None


@pytest.mark.parametrize("knows_version_2", [True, False])
def test_memory_is_without_what_the_driver_reserves_where_it_says_so(knows_version_2: bool) -> None:
    def memory(handle: str, version: int | None = None) -> Any:
        if version and not knows_version_2:
            raise NoAnswer("a driver before 510")
        return SimpleNamespace(used=10 if version else 600, total=1000)

    module = nvml(nvmlDeviceGetCount=1, nvmlDeviceGetHandleByIndex="handle", nvmlDeviceGetMemoryInfo=memory)
    [gpu] = GpuSensors(module).read()
    assert gpu.values == {"memory_used_bytes": 10 if knows_version_2 else 600, "memory_total_bytes": 1000}
