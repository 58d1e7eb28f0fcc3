"""Streams and consumers: made, kept, widened, and never narrowed under work."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle

import pytest

from pipelines.broker import ApiError, Broker
from pipelines.registry import builtin_pipeline, builtin_pipelines
from pipelines.server import EmbeddedServer
from pipelines.streams import desired
from pipelines.topology import apply, apply_topology, plan
from schemas.errors import BrokerError, StoreError
from schemas.jobs import Priority
from schemas.pipeline import PipelineSpec
from schemas.settings import Settings
from schemas.subjects import HEADER_ID, Names
from schemas.tenants import Tenant, TenantList

MIB = 1 << 20


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Broker]:
    broker = await Broker.connect(settings)
    try:
        yield broker
    finally:
        await broker.close()


FEW = [builtin_pipeline(name) for name in ("fingerprint", "scenes", "upscale2x")]


def specs() -> list[PipelineSpec]:
    return [builtin_pipeline(name) for name in builtin_pipelines()]


async def config_of(broker: Broker, stream: str) -> dict:
    return (await broker.api(f"STREAM.INFO.{stream}"))["config"]


async def consumers_of(broker: Broker, stream: str) -> dict[str, dict]:
    listed = await broker.api(f"CONSUMER.LIST.{stream}")
    return {info["name"]: info["config"] for info in listed["consumers"]}


def test_all_pipelines_of_rigflow_fit_into_the_store_of_a_broker_with_room_for_models() -> None:
    """`rigflow up` hosts all whose models are here."""
    settings = Settings()
    plans = desired(Names(), settings, specs())
    assert sum(max(0, each.config["max_bytes"]) for each in plans) < 0.75 * settings.store_bytes


async def test_everything_is_there_and_a_second_time_changes_nothing(settings: Settings) -> None:
    async with connected(settings) as broker:
        started = time.perf_counter()
        await apply_topology(broker, settings, specs())
        print(f"{len(specs())} pipelines in {(time.perf_counter() - started) * 1e3:.0f} ms")
        assert await plan(broker, desired(broker.names, settings, specs())) == []
        names = broker.names
        queue = await config_of(broker, names.work_stream("fingerprint", "infer"))
        assert (queue["retention"], queue["discard"], queue["max_bytes"]) == ("workqueue", "new", settings.queue_bytes)
        assert queue["duplicate_window"] == 120 * 10**9
        for priority in Priority:
            consumer = (await consumers_of(broker, queue["name"]))[priority.value]
            assert consumer["filter_subject"] == names.work("fingerprint", "infer", priority)
            assert consumer["ack_wait"] == int(settings.ack_wait_s * 1e9)
            assert consumer["max_deliver"] == -1, "a hand-back is no failure"
        results = await config_of(broker, names.results_stream)
        assert (results["retention"], results["discard"]) == ("limits", "new"), "full results wait, they do not vanish"
        assert (await config_of(broker, names.dead_stream))["discard"] == "old"
        for pipeline in builtin_pipelines():
            media = await consumers_of(broker, names.media_stream(pipeline))
            assert {name: each["filter_subject"] for name, each in media.items()} == {
                "interactive": f"rigflow.media.*.{pipeline}",
                "bulk": f"rigflow.media.*.{pipeline}.bulk",
            }
        for stage in ("decode", "resize", "infer", "encode", "collect"):
            await config_of(broker, names.work_stream("scenes", stage))


async def test_only_what_is_needed_is_made(settings: Settings) -> None:
    async with connected(settings) as broker:
        await apply_topology(broker, settings, FEW[:1])
        streams = await broker.api("STREAM.NAMES")
        assert not any("scenes" in name for name in streams["streams"])


async def test_many_apply_different_pipelines_at_once(settings: Settings) -> None:
    many = specs()[:9]
    async with connected(settings) as one, connected(settings) as two, connected(settings) as three:
        await asyncio.gather(
            *(apply_topology(broker, settings, [spec]) for broker, spec in zip(cycle((one, two, three)), many)),
            apply_topology(one, settings, many),
        )
        assert await plan(one, desired(one.names, settings, many)) == []


async def test_limits_grow_and_shrink_under_work_where_nothing_is_deleted(settings: Settings) -> None:
    larger = settings.model_copy(update={"queue_bytes": 2 * settings.queue_bytes, "ack_wait_s": 3.0})
    small = {"queue_bytes": 4096, "dead_bytes": settings.dead_bytes // 2, "results_age_s": settings.results_age_s / 2}
    smaller = settings.model_copy(update=small)
    async with connected(settings) as broker:
        stream, dead = broker.names.work_stream("scenes", "decode"), broker.names.dead_stream
        subject = broker.names.work("scenes", "decode", Priority.BULK)
        await apply_topology(broker, settings, FEW)
        for number in range(4):
            await broker.publish(subject, bytes(4096), f"id-{number}")
        await broker.publish(broker.names.dead("scenes", "decode"), b"dead", "dead")
        await broker.publish("rigflow.results.main.scenes.job", b"result", "result")
        assert await apply_topology(broker, larger, FEW) == []
        assert (await config_of(broker, stream))["max_bytes"] == larger.queue_bytes
        assert (await consumers_of(broker, stream))["bulk"]["ack_wait"] == 3 * 10**9
        refused = await apply_topology(broker, smaller, FEW)
        assert {(change.action, change.stream) for change in refused} == {
            ("refuse", dead),  # a full one drops its oldest
            ("refuse", broker.names.results_stream),  # what is too old would go
        }
        assert all("because it holds 1 messages" in change.reason for change in refused)
        assert (await config_of(broker, dead))["max_bytes"] == settings.dead_bytes
        assert (await config_of(broker, stream))["max_bytes"] == smaller.queue_bytes, "a full one refuses new ones"
        assert len([each async for each in broker.read(stream)]) == 4, "and keeps those that it has"
        with pytest.raises(ApiError, match="maximum bytes exceeded"):
            await broker.store(subject, b"work", {HEADER_ID: "more"}, until_full=True)
        await broker.purge(dead, ">")
        await broker.purge(broker.names.results_stream, ">")
        assert await apply_topology(broker, smaller, FEW) == []


async def test_a_plan_says_what_it_would_do(settings: Settings) -> None:
    async with connected(settings) as broker:
        wanted = desired(broker.names, settings, FEW)
        changes = await plan(broker, wanted)
        assert {change.action for change in changes} == {"create"}
        assert (await broker.api("STREAM.NAMES"))["total"] == 0
        await apply(broker, changes)
        await broker.delete_consumer(broker.names.work_stream("scenes", "decode"), "bulk")
        [change] = await plan(broker, wanted)
        assert (change.action, change.consumer) == ("create", "bulk")


async def test_work_survives_a_pipeline_that_is_applied_again(settings: Settings) -> None:
    async with connected(settings) as broker:
        subject = broker.names.work("scenes", "decode", Priority.INTERACTIVE)
        await apply_topology(broker, settings, FEW)
        await broker.publish(subject, b"work", "id")
        await apply_topology(broker, settings, FEW)
        stored = [stored.body async for stored in broker.read(broker.names.work_stream("scenes", "decode"))]
        assert stored == [b"work"]


async def test_two_prefixes_share_a_broker(settings: Settings) -> None:
    other = settings.model_copy(update={"prefix": "elsewhere"})
    async with connected(settings) as broker, connected(other) as elsewhere:
        await apply_topology(broker, settings, FEW)
        await apply_topology(elsewhere, other, FEW)
        await elsewhere.publish(elsewhere.names.work("scenes", "decode", Priority.BULK), b"theirs", "id")
        assert [found async for found in broker.read(broker.names.work_stream("scenes", "decode"))] == []


async def test_media_for_an_unknown_pipeline_is_refused_at_once(settings: Settings) -> None:
    async with connected(settings) as broker:
        await apply_topology(broker, settings, FEW)
        with pytest.raises(Exception, match="NoResponders"):
            raise await failure_of(broker, "rigflow.media.main.unknown")


async def failure_of(broker: Broker, subject: str) -> Exception:
    """What a plain request to `subject` raises, named."""
    try:
        await broker.connection.request(subject, b"jpeg")
    except Exception as error:
        return RuntimeError(type(error).__name__)
    raise AssertionError("it was taken")


async def test_subjects_that_are_taken(settings: Settings) -> None:
    async with connected(settings) as broker:
        await broker.api("STREAM.CREATE.THEIRS", {"name": "THEIRS", "subjects": ["rigflow.results.>"]})
        with pytest.raises(BrokerError, match="another stream takes the subjects of RIGFLOW_RESULTS"):
            await apply_topology(broker, settings, FEW)


async def test_a_store_that_is_too_small() -> None:
    server = EmbeddedServer(max_store_bytes=64 * MIB)
    server.start()
    try:
        settings = Settings(nats=server.url)
        async with connected(settings) as broker:
            with pytest.raises(StoreError, match="has no room for") as caught:
                await apply_topology(broker, settings, specs())
            assert "store_bytes" in caught.value.hint
    finally:
        server.stop()


async def test_a_store_that_is_too_small_for_a_tenant() -> None:
    server = EmbeddedServer(max_store_bytes=16 << 30)
    server.start()
    try:
        settings = Settings(nats=server.url)
        async with connected(settings) as broker:
            broker.take_tenants(TenantList(tenants={"acme": Tenant(storage_bytes=1 << 40)}))
            with pytest.raises(StoreError, match="_acme") as caught:
                await apply_topology(broker, settings, [])
            assert "storage_bytes of its tenant" in caught.value.hint
    finally:
        server.stop()
