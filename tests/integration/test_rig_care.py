"""A rig whose machine has GPUs by the stand-in of NVIDIA's management library: limits, a loss, the status, its end."""

import asyncio
import shutil
import signal
from pathlib import Path

import pytest

from pipelines.broker import Broker
from pipelines.cards import card_record
from pipelines.status import fleet_status
from pipelines.topology import ensure_topology
from schemas.cards import CardRecord, Reason
from tests.fleet import Fleet
from tests.nvml import FakeGpus, library, uuid
from tests.rig import Rig, eventually

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
CONFIG = f"""
start_pause_s = 0.1
[[worker]]
[[worker]]
device = "cuda:{uuid(0)}"
power_watts = 90
"""


def test_a_rig_limits_its_gpus_reports_a_loss_and_puts_the_limits_back(tmp_path: Path) -> None:
    gpus = FakeGpus(tmp_path / "nvml")
    environment = {"FAKE_NVML": str(gpus.folder), "LD_LIBRARY_PATH": str(library().parent)}
    with (
        Fleet([], tmp_path / "cache") as fleet,
        Rig(fleet, tmp_path, pace_ms=0, config_text=CONFIG, environment=environment) as rig,
    ):
        asyncio.run(_topology(fleet))
        rig.until("may draw 90 W")
        assert (gpus.get(0, "limit"), gpus.get(1, "limit")) == (90_000, 120_000)
        eventually(lambda: rig.metric("rigflow_energy_joules_total") > 0)
        gpus.set(0, "xid", 79)
        rig.until("is taken out of work, Xid 79: it has fallen off the bus")
        assert rig.metric("rigflow_gpu_lost") == 1
        assert 'rigflow_gpu_xid_errors_total{gpu="0",xid="79"} 1.0' in rig.get("/metrics")[1]
        eventually(lambda: bool(_troubles(fleet)))
        [trouble] = _troubles(fleet)
        assert "fallen off the bus" in trouble
        eventually(lambda: _verdict(fleet) is not None)
        verdict = _verdict(fleet)
        assert verdict is not None
        assert (verdict.reason, verdict.why, verdict.rig) == (Reason.FAULT, "Xid 79: it has fallen off the bus", "r")
        assert not verdict.works
        assert rig.end(signal.SIGTERM) == 0
    assert (gpus.get(0, "limit"), gpus.get(1, "limit")) == (120_000, 120_000)


async def _topology(fleet: Fleet) -> None:
    async with Broker.connected(fleet.settings, name="test") as broker:
        await ensure_topology(broker, fleet.settings, [])


def _verdict(fleet: Fleet) -> CardRecord | None:
    async def asked() -> CardRecord | None:
        async with Broker.connected(fleet.settings, name="test") as broker:
            return await card_record(broker, uuid(0))

    return asyncio.run(asked())


def _troubles(fleet: Fleet) -> list[str]:
    async def asked() -> list[str]:
        async with Broker.connected(fleet.settings, name="test") as broker:
            status = await fleet_status(broker)
        return [trouble for rig in status.rigs for trouble in rig.get("troubles", ())]

    return asyncio.run(asked())
