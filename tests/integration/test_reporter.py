"""The status of a worker at the broker: it is sent soon after its state changes, not only at fixed times."""

import asyncio
import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from schemas.settings import Settings
from tests.integration.queues import a_broker, eventually
from workers.options import WorkerOptions
from workers.reporter import Reporter


class StateReporter(Reporter):
    """Reports its state alone."""

    def _status(self, gpu: Mapping[str, object]) -> dict[str, object]:
        return {"state": self.state}

    def _profile_in_words(self) -> str:
        return ""


async def test_a_change_of_state_is_reported_soon(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.reporter.STATUS_EVERY_S", 3600.0)
    intake = SimpleNamespace(quarantined=False, cordoned=False, off_hours=False)
    runner: Any = SimpleNamespace(intake=intake, in_flight=SimpleNamespace(messages=set()))
    pipelines: Any = SimpleNamespace(starting=True)
    device: Any = SimpleNamespace(facts=dict)
    async with a_broker(settings) as broker:
        reporter = StateReporter(WorkerOptions(settings=settings), "w", broker, runner, pipelines, device)

        async def reported(state: str) -> bool:
            body = (await broker.items(broker.names.rigs, "worker.*")).get("worker.w", b"{}")
            return bool(json.loads(body).get("state") == state)

        reporting = asyncio.create_task(reporter.to_fleet())
        await eventually(lambda: reported("starting"))
        pipelines.starting = False
        await eventually(lambda: reported("idle"))
        intake.cordoned = True
        await eventually(lambda: reported("cordoned"))
        reporter.draining = True
        await eventually(lambda: reported("draining"))
        reporting.cancel()
        await asyncio.gather(reporting, return_exceptions=True)
