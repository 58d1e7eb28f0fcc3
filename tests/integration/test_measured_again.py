"""A worker measures its GPU again where the profile that is kept of it is of another driver."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engines.ports import Device
from engines.profiling.apart import measure_apart
from engines.profiling.store import keep_profile, kept_profile, last_profile
from engines.profiling.tuning import Report
from pipelines.broker import Broker
from pipelines.profiles import fleet_profiles, share_profile
from pipelines.topology import ensure_topology
from placement.fleet import assumed_card
from schemas.device_profile import DeviceProfile
from schemas.errors import ExitCode, ModelError, RigflowError
from schemas.settings import Settings
from workers.measured_again import measure_again
from workers.options import WorkerOptions
from workers.process import Worker
from workers.runner import Runner

GPU: Any = SimpleNamespace(gpu=SimpleNamespace(facts=SimpleNamespace(uuid="GPU-1", name="a GPU")), name="cuda:0")


def profile(driver: str, measured_s: float = 1.0) -> DeviceProfile:
    return assumed_card("a GPU").model_copy(update={"device": "GPU-1", "driver": driver, "measured_s": measured_s})


class Measurements(list[str]):
    """The devices that were measured, in this process, for this GPU is none; with the driver 580."""

    def __init__(self) -> None:
        super().__init__()
        self.fails = False

    def measure(self, device: str, settings: Settings, seconds: float, report: Report) -> DeviceProfile:
        self.append(device)
        report("arithmetic")
        if self.fails:
            raise ModelError("device `cuda:0` ends the process that measures it (SIGSEGV)", "see `rigflow profile`")
        return profile("580", 2.0)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measurements:
    made = Measurements()
    monkeypatch.setattr("engines.profiling.models.driver_version", lambda: "580")
    monkeypatch.setattr("workers.measured_again.measure_apart", made.measure)
    return made


def given(settings: Settings, cache: Path, tuning_s: float = 30.0) -> Settings:
    return settings.model_copy(update={"tuning_s": tuning_s, "cache": str(cache)})


@pytest.mark.parametrize("where", ["cache", "broker", "both"])
async def test_a_profile_of_another_driver_is_measured_again_once(
    settings: Settings, tmp_path: Path, measured: Measurements, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "rigflow")
    async with Broker.connected(given(settings, tmp_path), name="test") as broker:
        await ensure_topology(broker, settings, [])
        if where != "broker":
            keep_profile(tmp_path, profile("570"))
        if where != "cache":
            await share_profile(broker, profile("570"))
        await asyncio.gather(*(measure_again(broker, GPU) for _ in range(3)))  # three workers of one GPU
        assert measured == ["cuda:0"]
        assert kept_profile(tmp_path, "GPU-1", "580") == profile("580", 2.0)
        assert await fleet_profiles(broker) == [profile("580", 2.0)]
    assert "a GPU is measured again: its driver is 580, its profile is of 570" in caplog.text


async def test_a_profile_of_this_driver_replaces_the_other_one(
    settings: Settings, tmp_path: Path, measured: Measurements
) -> None:
    """One that was measured without --nats is shared; one of the broker is kept on a machine that the card came to."""
    async with Broker.connected(given(settings, tmp_path), name="test") as broker:
        await ensure_topology(broker, settings, [])
        keep_profile(tmp_path, profile("580"))
        await measure_again(broker, GPU)
        assert await fleet_profiles(broker) == []  # nothing is outdated
        await share_profile(broker, profile("570"))
        await measure_again(broker, GPU)
        assert await fleet_profiles(broker) == [profile("580")]
        keep_profile(tmp_path, profile("570"))
        await measure_again(broker, GPU)
        assert kept_profile(tmp_path, "GPU-1", "580") == profile("580")
    assert not measured


async def test_nothing_is_measured_without_a_profile_or_where_trials_are_switched_off(
    settings: Settings, tmp_path: Path, measured: Measurements
) -> None:
    processor: Any = SimpleNamespace(gpu=None)
    async with Broker.connected(given(settings, tmp_path), name="test") as broker:
        await ensure_topology(broker, settings, [])
        for device in (GPU, processor):
            await measure_again(broker, device)
    keep_profile(tmp_path, profile("570"))
    async with Broker.connected(given(settings, tmp_path, tuning_s=0.0), name="test") as broker:
        await measure_again(broker, GPU)
    assert not measured
    assert last_profile(tmp_path, "GPU-1") == profile("570")


async def test_a_failure_is_logged_and_the_worker_goes_on(
    settings: Settings, tmp_path: Path, measured: Measurements, caplog: pytest.LogCaptureFixture
) -> None:
    measured.fails = True
    keep_profile(tmp_path, profile("570"))
    async with Broker.connected(given(settings, tmp_path), name="test") as broker:
        await ensure_topology(broker, settings, [])
        await measure_again(broker, GPU)
    assert measured == ["cuda:0"]
    assert "a GPU has no profile of its driver: device `cuda:0` ends the process" in caplog.text


def test_a_gpu_that_is_not_there_is_an_error_that_names_it(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(RigflowError, match=r"device `?cuda:77"):
        measure_apart("cuda:77", given(settings, tmp_path), 1.0, lambda _: None)


async def test_a_worker_takes_no_work_before(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    async def measure(broker: Broker, device: Device) -> None:
        await asyncio.sleep(0)
        order.append(f"measures {device.name}")

    async def serve(runner: Runner) -> None:
        order.append("serves")

    monkeypatch.setattr("workers.process.measure_again", measure)
    monkeypatch.setattr(Runner, "serve", serve)
    async with Broker.connected(settings, name="test") as broker:
        await ensure_topology(broker, settings, [])
    worker = Worker(WorkerOptions(stages=("all",), settings=given(settings, tmp_path)))
    assert await worker.run() == ExitCode.OK
    assert order == ["measures cpu", "serves"]
