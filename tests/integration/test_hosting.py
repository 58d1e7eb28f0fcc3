"""A worker hosts each pipeline when its own engines answer: what loads slowly, or never, keeps no other waiting."""

import asyncio
import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.fleet import simulated
from engines.device import open_device
from engines.device.host import Host
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.operators.infer import Infer
from engines.ports import Device, Session
from pipelines.broker import Broker
from pipelines.registry import builtin_pipeline
from schemas.errors import ModelError
from schemas.jobs import Priority
from schemas.model import ModelSpec
from schemas.pipeline import PipelineSpec
from schemas.settings import Settings
from tests.integration.queues import eventually
from tests.simulated import models_of
from workers import pipeline_cache, sessions
from workers.computing import ComputingThread
from workers.definitions import find_models, register
from workers.options import WorkerOptions
from workers.process import Worker

QUICK, SLOW, BROKEN = simulated(), builtin_pipeline("scenes"), builtin_pipeline("upscale2x")


def model_of(spec: PipelineSpec) -> str:
    return next(iter(spec.model_names.values()))


def a_cache(broker: Broker, folder: Path, device: Device | None = None) -> pipeline_cache.PipelineCache:
    device = device or open_device("cpu", broker.settings, folder)
    return pipeline_cache.PipelineCache(broker, lambda _: True, folder, device, ComputingThread(device), {}, False)


async def test_a_revision_that_no_name_and_no_message_needs_is_unloaded(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead_s = [0.0]
    monkeypatch.setattr(pipeline_cache, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + ahead_s[0]))
    monkeypatch.setattr(pipeline_cache, "UNLOAD_EVERY_S", 0.05)
    broker = await Broker.connect(settings)
    old = await register(broker, settings, SLOW, find_models(SLOW, None))
    kept = await register(broker, settings, BROKEN, find_models(BROKEN, None))
    cache = a_cache(broker, tmp_path)
    in_flight = {old.revision}
    cache.in_flight = lambda: in_flight
    tasks = [asyncio.create_task(each) for each in (cache.warm_up(), cache.unload_unused())]
    try:
        async with asyncio.timeout(30):
            while cache.loaded < 2 or cache.cold:
                await asyncio.sleep(0.05)
            bucket = broker.names.pipelines
            await broker.purge(f"KV_{bucket}", f"$KV.{bucket}.name.{SLOW.name}")
            ahead_s[0] = 2 * settings.work_deadline_s
            while SLOW.name in cache._names:  # that it is withdrawn is noticed when it would be unloaded
                await asyncio.sleep(0.05)
            assert cache.loaded == 2, "a message needs it"
            in_flight.clear()
            while cache.loaded > 1:
                await asyncio.sleep(0.05)
        assert (await cache.get(kept.revision)).spec == kept
        await cache.get(old.revision)  # a job of it that comes late loads it again
        assert cache.loaded == 2
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await cache.close()
        await broker.close()


async def test_sessions_are_closed_by_the_thread_that_computes(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine of GenAI, and what CUDA makes, are freed by the thread alone that made them."""
    broker = await Broker.connect(settings)
    specs = [await register(broker, settings, spec, find_models(spec, None)) for spec in (SLOW, BROKEN)]
    cache, closed_by = a_cache(broker, tmp_path), []
    try:
        sessions = [each for spec in specs for each in (await cache.get(spec.revision))._sessions.values()]
        for kind in {type(session) for session in sessions}:
            monkeypatch.setattr(kind, "close", lambda _: closed_by.append(threading.get_ident()))
        computing = await cache.opener._computing.run(threading.get_ident)
        await cache._unload([specs[0].revision])
        assert closed_by == [computing]
    finally:
        await cache.close()
        await broker.close()
    assert closed_by == [computing] * 2


async def test_a_pipeline_that_is_needed_while_its_models_are_unloaded_loads_them_again(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = await Broker.connect(settings)
    specs = [await register(broker, settings, spec, find_models(spec, None)) for spec in (SLOW, BROKEN)]
    cache = a_cache(broker, tmp_path)
    closed: list[Session] = []
    go_on = threading.Event()

    async def slowly(session: Session) -> None:
        closed.append(session)
        await asyncio.to_thread(go_on.wait, 30)

    monkeypatch.setattr(cache.opener, "close", slowly)
    try:
        for spec in specs:
            await cache.get(spec.revision)
        unloading = asyncio.create_task(cache._unload([spec.revision for spec in specs]))
        async with asyncio.timeout(30):
            while not closed:
                await asyncio.sleep(0.01)
            needed = [await cache.get(spec.revision) for spec in specs]
            go_on.set()
            await unloading
        assert len(closed) == cache.loaded == 2
        assert not {id(session) for each in needed for session in each._sessions.values()} & set(map(id, closed))
        assert cache.opener.models._held.keys() == {sha256 for spec in specs for sha256 in spec.models.values()}
    finally:
        go_on.set()
        await cache.close()
        await broker.close()


async def test_loaded_models_are_bounded_in_bytes(settings: Settings, tmp_path: Path) -> None:
    broker = await Broker.connect(settings)
    given = [find_models(spec, None) for spec in (SLOW, BROKEN)]
    first, second = [
        await register(broker, settings, spec, models) for spec, models in zip((SLOW, BROKEN), given, strict=True)
    ]
    sizes = [len(model) for models in given for _, model in models.values()]

    def loading(limit: int) -> pipeline_cache.PipelineCache:
        broker.settings = settings.model_copy(update={"models_bytes": limit})
        return a_cache(broker, tmp_path)

    cache = loading(max(sizes))
    try:
        async with asyncio.timeout(60):
            for spec in (first, second, first):
                await cache.get(spec.revision)
                assert cache.loaded == 1
            in_flight = {first.revision}
            cache.in_flight = lambda: in_flight
            waiting = asyncio.create_task(cache.get(second.revision))
            await asyncio.sleep(0.3)
            assert (waiting.done(), cache.loaded) == (False, 1), "a message needs the other"
            in_flight.clear()
            await waiting
            assert cache.loaded == 1
    finally:
        await cache.close()
    cache = loading(max(sizes) - 1)
    large = first if sizes[0] == max(sizes) else second
    with pytest.raises(ModelError, match=f"the models of pipeline {large.name} have {max(sizes):,} bytes"):
        await cache.get(large.revision)
    await broker.close()


async def test_bad_values_at_the_broker_and_a_warm_up_without_end_stay_their_own(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings.model_copy(update={"cache": str(tmp_path), "work_deadline_s": 4.0})
    ended, load = threading.Event(), sessions._warmed

    def warmed(model: bytes, card: ModelSpec, *rest: object) -> Session:
        if card.name == model_of(SLOW):
            ended.wait(60)
        return load(model, card, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(sessions, "_warmed", warmed)
    monkeypatch.setattr(pipeline_cache, "UNLOAD_EVERY_S", 0.2)
    broker = await Broker.connect(settings)
    for spec in (SLOW, QUICK):
        await register(broker, settings, spec, models_of(spec))
    for key, value in (("revision.x", b"{"), ("revision.y", b"\xff"), ("name.bad", b"\xff"), ("name.worse", b"y")):
        await broker.put(broker.names.pipelines, key, value)

    async def unready() -> str:
        reported = await broker.get(broker.names.rigs, "worker.w")
        return str(json.loads(reported)["why"]) if reported else ""

    worker = Worker(WorkerOptions(settings=settings, name="w"))
    working = asyncio.create_task(worker.run())
    try:
        async with asyncio.timeout(30):
            while "did not end within 4 s" not in await unready():
                assert not working.done()
                await asyncio.sleep(0.05)
        for stage in ("decode", "encode"):
            for spec in (SLOW, QUICK):
                consumer = f"{broker.names.work_stream(spec.name, stage)}.{Priority.BULK.value}"
                async with asyncio.timeout(30):  # until the worker asks for its jobs, which have to fail
                    while not (await broker.api(f"CONSUMER.INFO.{consumer}"))["num_waiting"]:
                        await asyncio.sleep(0.05)
        bucket = broker.names.pipelines
        assert "worse" not in await unready(), "what no worker can read makes none unready"
        await broker.purge(f"KV_{bucket}", f"$KV.{bucket}.name.{SLOW.name}")
        async with asyncio.timeout(30):
            while "did not end within 4 s" in await unready():
                await asyncio.sleep(0.05)
    finally:
        ended.set()
        worker._stopped.set()
        await working
        await broker.close()


async def test_a_slow_engine_keeps_only_its_own_pipeline_waiting(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings.model_copy(update={"cache": str(tmp_path)})
    loaded, attempts = threading.Event(), list[str]()
    load = sessions._warmed

    def warmed(model: bytes, card: ModelSpec, *rest: object) -> Session:
        attempts.append(card.name)
        if card.name == model_of(SLOW):
            assert loaded.wait(120)
        elif card.name == model_of(BROKEN):
            raise ModelError("it does not load", "mend it")
        return load(model, card, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(sessions, "_warmed", warmed)
    broker = await Broker.connect(settings)
    for spec in (SLOW, BROKEN, QUICK):
        await register(broker, settings, spec, models_of(spec))

    async def hosted(pipeline: str) -> bool:
        consumer = f"{broker.names.work_stream(pipeline, 'decode')}.{Priority.BULK.value}"
        return bool((await broker.api(f"CONSUMER.INFO.{consumer}"))["num_waiting"])

    async def unready() -> str:
        reported = await broker.get(broker.names.rigs, "worker.w")
        return str(json.loads(reported)["why"]) if reported else ""

    worker = Worker(WorkerOptions(settings=settings, name="w"))
    working = asyncio.create_task(worker.run())
    try:
        await eventually(lambda: hosted(QUICK.name))
        await eventually(lambda: hosted(BROKEN.name))  # somebody has to tell its jobs
        assert not await hosted(SLOW.name)
        async with asyncio.timeout(60):
            while "it does not load" not in (why := await unready()):
                await asyncio.sleep(0.1)
        assert f"{SLOW.name}: its engines are being loaded" in why
        loaded.set()
        await eventually(lambda: hosted(SLOW.name))
        assert attempts.count(model_of(SLOW)) == 1, "all who want an engine wait for one attempt"
    finally:
        loaded.set()
        worker._stopped.set()
        await working
        await broker.close()


class BesideGpu(Host):
    """A worker's device that is a GPU; a session there cannot be opened."""

    gpu, host_is_free = object(), True  # type: ignore[assignment]


async def test_the_model_of_a_stage_of_the_host_is_loaded_there_beside_a_gpu(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = await Broker.connect(settings)
    spec = await register(broker, settings, SLOW, find_models(SLOW, None))
    cache = a_cache(broker, tmp_path, BesideGpu(settings))
    try:
        with pytest.raises(Exception, match="object"):
            await cache.get(spec.revision)
        monkeypatch.setattr(Infer, "on_host", True, raising=False)
        pipeline = await cache.get(spec.revision)
        [place] = cache._sessions
        assert (place.identity, place.on_host) == (next(iter(spec.models.values())), True)
        assert isinstance(cache._sessions[place], OnnxRuntimeSession)
        assert pipeline.works_beside
        await cache._unload([spec.revision])
        assert not cache.loaded
    finally:
        await cache.close()
        await broker.close()
