"""Pipelines and models at the broker, by content hash."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pipelines.blob_upload import put_blob
from pipelines.blobs import blob_info
from pipelines.broker import Broker
from pipelines.job_records import JobRecord
from pipelines.models import ModelCache
from pipelines.registry import (
    builtin_pipeline,
    builtin_pipelines,
    load_pipeline,
    pipeline_names,
    publish_pipeline,
    watch_pipelines,
    withdraw_pipeline,
)
from pipelines.topology import apply_topology
from schemas.errors import ModelError, PipelineError, StoreError
from schemas.jobs import JobRef, JobState, Manifest, Priority
from schemas.model import ModelSpec, TensorSpec
from schemas.pipeline import PipelineSpec
from schemas.settings import Settings
from workers.definitions import find_models

Model = tuple[ModelSpec, bytes]


@asynccontextmanager
async def a_broker(settings: Settings) -> AsyncIterator[Broker]:
    broker = await Broker.connect(settings)
    try:
        await apply_topology(broker, settings, [])
        yield broker
    finally:
        await broker.close()


def a_model(name: str, content: bytes) -> Model:
    return ModelSpec(name=name, inputs=(), outputs=(), sha256=hashlib.sha256(content).hexdigest()), content


def models_of(spec: PipelineSpec, content: bytes = b"weights") -> dict[str, Model]:
    return {stage.model: a_model(stage.model, content) for stage in spec.operators if stage.model}


def test_the_pipelines_that_come_with_rigflow() -> None:
    names = builtin_pipelines()
    assert {"fingerprint", "scenes", "upscale2x"} <= set(names)
    assert [builtin_pipeline(name).name for name in names] == names == sorted(names)
    with pytest.raises(PipelineError, match=f"no pipeline is called nope here: there are {', '.join(names)}"):
        builtin_pipeline("nope")


async def test_a_pipeline_is_found_by_name_and_by_revision(settings: Settings) -> None:
    spec = builtin_pipeline("scenes")
    async with a_broker(settings) as broker:
        pinned = await publish_pipeline(broker, spec, models_of(spec))
        assert pinned.models == {"shotchange": a_model("shotchange", b"weights")[0].identity}
        assert await load_pipeline(broker, "scenes") == pinned
        assert await load_pipeline(broker, pinned.revision) == pinned


async def test_an_update_leaves_old_jobs_their_revision(settings: Settings) -> None:
    spec = builtin_pipeline("scenes")
    async with a_broker(settings) as broker:
        old = await publish_pipeline(broker, spec, models_of(spec))
        new = await publish_pipeline(broker, spec, models_of(spec, b"better weights"))
        assert old.revision != new.revision
        assert await load_pipeline(broker, "scenes") == new
        assert await load_pipeline(broker, old.revision) == old
        assert await pipeline_names(broker) == {"scenes": new.revision}
        await publish_pipeline(broker, spec, models_of(spec))
        assert await load_pipeline(broker, "scenes") == old, "published again, it is the newest"


async def test_what_is_there_is_not_sent_again(settings: Settings) -> None:
    spec = builtin_pipeline("fingerprint")
    async with a_broker(settings) as broker:
        await publish_pipeline(broker, spec, models_of(spec, bytes(1 << 20)))
        before = await broker.api(f"STREAM.INFO.OBJ_{broker.names.models}")
        await publish_pipeline(broker, spec.model_copy(update={"segment_s": 9.0}), models_of(spec, bytes(1 << 20)))
        after = await broker.api(f"STREAM.INFO.OBJ_{broker.names.models}")
        assert before["state"]["last_seq"] == after["state"]["last_seq"]


async def test_a_worker_learns_of_pipelines_old_and_new(settings: Settings) -> None:
    scenes, fingerprint = builtin_pipeline("scenes"), builtin_pipeline("fingerprint")
    async with a_broker(settings) as broker:
        known = await publish_pipeline(broker, scenes, models_of(scenes))
        watching = watch_pipelines(broker)
        assert await anext(watching) == known
        coming = asyncio.ensure_future(anext(watching))
        new = await publish_pipeline(broker, fingerprint, models_of(fingerprint))
        assert await asyncio.wait_for(coming, 60.0) == new
        await watching.aclose()


async def test_a_pipeline_that_nobody_published(settings: Settings) -> None:
    async with a_broker(settings) as broker:
        with pytest.raises(PipelineError, match="knows no pipeline nope: it knows none yet"):
            await load_pipeline(broker, "nope")
        spec = builtin_pipeline("scenes")
        await publish_pipeline(broker, spec, models_of(spec))
        with pytest.raises(PipelineError, match="it knows scenes"):
            await load_pipeline(broker, "nope")


async def test_a_pipeline_of_another_version(settings: Settings) -> None:
    async with a_broker(settings) as broker:
        await broker.put(broker.names.pipelines, "revision.0123456789abcdef", b'{"from": "the future"}')
        with pytest.raises(PipelineError, match="not readable: it was published by another version"):
            await load_pipeline(broker, "0123456789abcdef")


async def test_a_model_comes_from_the_broker_once(settings: Settings, tmp_path: Path) -> None:
    spec = builtin_pipeline("scenes")
    content = bytes(range(256)) * 12_000
    folder = tmp_path / "cache"
    async with a_broker(settings) as broker:
        pinned = await publish_pipeline(broker, spec, models_of(spec, content))
        identity = pinned.models["shotchange"]
        card, model = await ModelCache(broker, folder).load(identity)
        assert (card, model) == a_model("shotchange", content)
        assert {path.name for path in folder.iterdir()} == {f"{identity}.json", card.sha256}
        await broker.purge(f"OBJ_{broker.names.models}", ">")
        assert await ModelCache(broker, folder).load(identity) == (card, model), "the second time from the folder"
        (folder / card.sha256).write_bytes(b"damaged")
        with pytest.raises(ModelError, match="the broker has no ONNX file of model shotchange"):
            await ModelCache(broker, folder).load(identity)


async def test_another_card_of_the_same_graph_is_another_model(settings: Settings, tmp_path: Path) -> None:
    spec = builtin_pipeline("scenes")
    card, content = a_model("shotchange", b"weights")
    score = TensorSpec(name="score", dtype="float32", shape=("W",))
    other = card.model_copy(update={"outputs": (score,)})
    described = card.model_copy(update={"description": "which decides no answer"})
    async with a_broker(settings) as broker:
        first, second, third = [
            await publish_pipeline(broker, spec, {"shotchange": (each, content)}) for each in (card, other, described)
        ]
        assert first.revision == third.revision != second.revision
        for pinned, expected in ((first, card), (second, other)):
            assert await ModelCache(broker, tmp_path).load(pinned.models["shotchange"]) == (expected, content)
        kept = [path.name for path in tmp_path.iterdir() if path.suffix != ".json"]
        assert kept == [card.sha256], "its bytes are there once"


async def test_a_model_that_is_not_what_it_claims(settings: Settings, tmp_path: Path) -> None:
    spec = builtin_pipeline("scenes")
    card, _ = a_model("shotchange", b"weights")
    async with a_broker(settings) as broker:
        with pytest.raises(ModelError, match="not the one its model card describes"):
            await publish_pipeline(broker, spec, {"shotchange": (card, b"other weights")})
        with pytest.raises(ModelError, match="model shotchange is missing"):
            await publish_pipeline(broker, spec, {})
        assert await pipeline_names(broker) == {}
        await put_blob(broker, broker.names.models, b"other", card.sha256)
        await put_blob(broker, broker.names.models, card.model_dump_json().encode(), card.identity)
        with pytest.raises(StoreError, match="damaged"):
            await ModelCache(broker, tmp_path).load(card.identity)
        assert await blob_info(broker, broker.names.models, "nothing") is None


async def test_a_cache_that_cannot_be_written(settings: Settings, tmp_path: Path) -> None:
    spec = builtin_pipeline("scenes")
    (tmp_path / "file").touch()
    async with a_broker(settings) as broker:
        pinned = await publish_pipeline(broker, spec, models_of(spec))
        with pytest.raises(StoreError, match="set RIGFLOW_CACHE, or the setting `cache`, to another folder"):
            await ModelCache(broker, tmp_path / "file").load(pinned.models["shotchange"])


async def test_a_pipeline_is_withdrawn_but_for_revisions_that_jobs_need(settings: Settings) -> None:
    spec, other = builtin_pipeline("fingerprint"), builtin_pipeline("scenes")
    async with a_broker(settings) as broker:
        models = {each.name: find_models(each, None) for each in (spec, other)}
        old = await publish_pipeline(broker, spec, models[spec.name])
        new = await publish_pipeline(broker, spec.model_copy(update={"segment_s": 9.0}), models[spec.name])
        await publish_pipeline(broker, other, models[other.name])
        job = JobRef(id="film", tenant="main", pipeline=old.name, revision=old.revision, priority=Priority.BULK)
        record = JobRecord(broker, Manifest(job=job, name="film.mp4"))
        await record.change(state=JobState.PUBLISHED)
        assert await withdraw_pipeline(broker, spec.name) == [old.revision]
        assert set(await pipeline_names(broker)) == {other.name}
        assert await load_pipeline(broker, old.revision) == old
        with pytest.raises(PipelineError, match="the broker knows no pipeline"):
            await load_pipeline(broker, new.revision)
        await record.change(state=JobState.DONE)
        assert await withdraw_pipeline(broker, spec.name) == []
        with pytest.raises(PipelineError, match=r"the broker knows no pipeline fingerprint: it knows scenes"):
            await withdraw_pipeline(broker, spec.name)
        assert await publish_pipeline(broker, spec, models[spec.name]) == old
        assert set(await pipeline_names(broker)) == {spec.name, other.name}
