"""Outside the hours of its rig a worker takes no work and hands back what it holds; others do it."""

import asyncio
import time
from types import SimpleNamespace

import pytest

from pipelines.broker import Broker
from pipelines.topology import apply_topology
from schemas.jobs import Priority
from schemas.settings import Settings
from tests.integration.queues import SPEC, eventually
from tests.integration.test_intake import Slow
from workers.obedience import Obedience
from workers.options import WorkerOptions

DAY, NIGHT = (time.struct_time((2026, 11, 27, hour, 0, 0, 4, 331, 0)) for hour in (12, 23))


async def test_a_worker_hands_back_at_the_end_of_its_hours_and_works_again_in_them(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.obedience.LOOK_S", 0.01)
    settings = settings.model_copy(update={"ack_wait_s": 30.0, "hours": "08:00-22:00", "stop_grace_s": 0.0})
    clock, begun, unloaded, may_end = [DAY], list[bool](), list[bool](), asyncio.Event()
    may_end.set()

    async def unload() -> None:
        begun.append(True)
        await may_end.wait()
        unloaded.append(True)

    async with Broker.connected(settings, "test") as broker:
        await apply_topology(broker, settings, [SPEC])
        worker = Slow(broker, settings)
        await worker.intake.host(SPEC, [stage.name for stage in SPEC.stage])
        runner = SimpleNamespace(intake=worker.intake, in_flight=worker.in_flight)
        obedience = Obedience(broker, runner, WorkerOptions(settings=settings), "w", unload, lambda: clock[0])  # type: ignore[arg-type]
        obeying = asyncio.create_task(obedience.follow())
        await broker.publish(broker.names.work(SPEC.name, "decode", Priority.BULK), b"x", "id")
        await eventually(lambda: bool(worker.in_flight.messages))
        clock[0] = NIGHT
        await eventually(lambda: bool(unloaded))
        assert worker.intake.cordoned
        assert not worker.in_flight.messages, "other workers have it at once"
        await eventually(lambda: len(unloaded) > 1)  # models that were loaded since
        clock[0] = DAY
        await eventually(lambda: bool(worker.in_flight.messages))
        assert not worker.intake.cordoned
        assert [message.delivery.deliveries for message in worker.in_flight.messages] == [2]
        await worker.finish_all(spent_s=1.0)
        may_end.clear()
        before = len(begun)
        clock[0] = NIGHT
        await eventually(lambda: len(begun) > before)
        clock[0] = DAY
        await eventually(lambda: not worker.intake.cordoned)
        may_end.set()
        await eventually(lambda: len(unloaded) > before)  # the end of the night leaves nothing half unloaded
        obeying.cancel()
        await asyncio.gather(obeying, return_exceptions=True)
        await worker.intake.close()
