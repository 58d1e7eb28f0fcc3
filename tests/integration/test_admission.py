"""Admission by predicted seconds: a publisher waits while workers have enough to do for `queue_s`."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fleet import simulated
from engines.media.medium import Input
from pipelines.admission import messages_per_s
from pipelines.broker import Broker
from pipelines.publish import Publisher
from pipelines.status import running_statuses
from schemas.jobs import Priority
from tests.clips import Clip, make_clip
from tests.fleet import Fleet
from tests.simulated import models_of
from workers.definitions import register

SPEC = simulated()
SEGMENTS = 60


def worker(message_s: float, stages: tuple[str, ...] = ("all",), **more: Any) -> dict[str, Any]:
    done = [{"pipeline": "p", "stage": "decode", "message_s": message_s}]
    return {"stages": stages, "done": done, **more}


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        ([], (0.0, 0)),
        ([worker(0.0)], (0.0, 0)),
        ([worker(0.5), worker(2.0)], (2.5, 2)),
        ([worker(0.5, ("encode",))], (0.0, 0)),
        ([worker(0.5, roles={"p": {"takes": ["infer"]}})], (0.0, 0)),
        ([worker(0.5, roles={"p": {"takes": ["decode"]}}), worker(0.5)], (4.0, 2)),
    ],
)
def test_what_workers_do_in_a_second(workers: list[dict[str, Any]], expected: tuple[float, int]) -> None:
    assert messages_per_s(workers, "p", "decode") == expected


async def _held(broker: Broker) -> int:
    info = await broker.api(f"CONSUMER.INFO.{broker.names.work_stream(SPEC.name, SPEC.decode.name)}.bulk")
    return int(info["num_pending"]) + int(info["num_ack_pending"])


async def _published(fleet: Fleet, clip: Path, most_s: float) -> int:
    """The most messages that the first queue and its worker had while a job was published."""
    async with Broker.connected(fleet.settings, name="test") as broker:
        spec = await register(broker, fleet.settings, SPEC, models_of(SPEC))
        first = Publisher(broker, spec, "main", Priority.BULK)
        await first.publish(first.ref("first"), "video", [Input(clip, "first")])
        async with asyncio.timeout(60):
            while (
                await _held(broker) or not messages_per_s((await running_statuses(broker))[0], SPEC.name, "decode")[0]
            ):
                await asyncio.sleep(0.1)
    limited = fleet.settings.model_copy(update={"queue_s": most_s})
    async with Broker.connected(limited, name="publisher") as broker:
        second = Publisher(broker, spec, "main", Priority.BULK)
        sending = asyncio.create_task(second.publish(second.ref("second"), "video", [Input(clip, "second")]))
        most = 0
        while not sending.done():
            most = max(most, await _held(broker))
            await asyncio.sleep(0.01)
        assert await sending == SEGMENTS
    return most


def test_a_publisher_waits_for_seconds_of_work(tmp_path: Path) -> None:
    clip = make_clip(tmp_path, Clip(frames=SEGMENTS, gop=1))
    with Fleet([("all",)], tmp_path / "cache", pace_ms=50.0) as fleet:
        assert asyncio.run(_published(fleet, clip, 0.3)) <= 12  # 0.3 s are six segments


def test_without_the_setting_nobody_waits(tmp_path: Path) -> None:
    clip = make_clip(tmp_path, Clip(frames=SEGMENTS, gop=1))
    with Fleet([], tmp_path / "cache") as fleet:
        assert asyncio.run(_sent(fleet, clip)) == SEGMENTS


async def _sent(fleet: Fleet, clip: Path) -> int:
    async with Broker.connected(fleet.settings, name="test") as broker:
        spec = await register(broker, fleet.settings, SPEC, models_of(SPEC))
        publisher = Publisher(broker, spec, "main", Priority.BULK)
        await publisher.publish(publisher.ref("job"), "video", [Input(clip, "film")])
        async with asyncio.timeout(60):
            while (held := await _held(broker)) < SEGMENTS:  # the consumer's count follows that of its stream
                await asyncio.sleep(0.01)
        return held
