"""Models of several files at a real broker, and in the folder that the workers of a machine share."""

import asyncio
import hashlib
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from engines.content import ModelFiles, file_sha256, graph_of
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.models.catalogue import load_model, read_files, save_model
from engines.models.files import NewFiles
from engines.models.folders import take
from pipelines.blob_upload import put_blob
from pipelines.blobs import blob_info, delete_blob
from pipelines.broker import Broker
from pipelines.model_folder import ModelFolder
from pipelines.models import ModelCache, publish_model
from pipelines.server import EmbeddedServer
from pipelines.topology import apply_topology
from schemas.errors import ModelError, StoreError
from schemas.model import ModelSpec
from schemas.settings import Settings
from tests.large_models import LAYER_BYTES, large_model, plain_answer

MIB = 1 << 20
Model = tuple[ModelSpec, ModelFiles]


@asynccontextmanager
async def a_broker(settings: Settings) -> AsyncIterator[Broker]:
    broker = await Broker.connect(settings)
    try:
        await apply_topology(broker, settings, [])
        yield broker
    finally:
        await broker.close()


@pytest.fixture
def default_payload(monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A broker that takes messages of 1 MiB, as nats-server does by default."""
    monkeypatch.setattr("pipelines.server.MAX_PAYLOAD", MIB)
    server = EmbeddedServer()
    server.start()
    yield Settings(nats=server.url, results_bytes=64 * MIB)
    server.stop()


def a_model(folder: Path, name: str, layers: int, seed: int = 0) -> Model:
    """A stored model with layers of weights in a file of their own, and a tokenizer."""
    path, store = large_model(folder / name, layers, name, seed), folder / "store"
    (path.parent / "tokenizer.json").write_text("{}")
    with NewFiles(store, lambda: None) as new:
        taken = take(path, path.parent, new)
    card, _ = read_files(path)
    sha256 = hashlib.sha256(graph_of(taken.content)).hexdigest()
    save_model(store, card.model_copy(update={"sha256": sha256, "files": taken.files}), taken.content)
    spec, content = load_model(store / f"{name}.onnx")
    assert isinstance(content, ModelFiles)
    return spec, content


async def fetched(broker: Broker, identity: str, folder: Path) -> Model:
    """A model from the broker, not in use any more."""
    models = ModelCache(broker, folder)
    spec, content = await models.load(identity)
    models.close()
    assert isinstance(content, ModelFiles)
    return spec, content


async def chunks_of(broker: Broker) -> int:
    """How many chunks the store of models has."""
    bucket = broker.names.models
    return len([stored async for stored in broker.read(f"OBJ_{bucket}", f"$O.{bucket}.C.>")])


async def test_a_model_travels_in_chunks_and_answers_as_it_was_exported(
    default_payload: Settings, tmp_path: Path
) -> None:
    spec, content = await asyncio.to_thread(a_model, tmp_path, "m", 10)
    async with a_broker(default_payload) as broker:
        assert broker.connection.max_payload == MIB
        await publish_model(broker, spec, content)
        chunks = await chunks_of(broker)
        assert chunks >= 10 * LAYER_BYTES // MIB
        await publish_model(broker, spec, content)
        assert await chunks_of(broker) == chunks, "what is there is not sent again"
        found, files = await fetched(broker, spec.identity, tmp_path / "cache")
    assert (found, files.graph) == (spec, content.graph)
    names = {f"{spec.identity}.json", spec.sha256, *(file.sha256 for file in spec.files)}
    assert {path.name for path in (tmp_path / "cache").iterdir()} == names
    pixels = np.random.default_rng(5).integers(0, 256, (3, 8, 8), np.uint8)
    answer = OnnxRuntimeSession(files, found).run({"images": pixels})["features"]
    np.testing.assert_allclose(answer, plain_answer(tmp_path / "m/m.onnx", pixels), rtol=0, atol=1e-6)


async def test_no_card_names_a_file_outside_of_the_cache(settings: Settings, tmp_path: Path) -> None:
    folder, victim = tmp_path / "cache/models", tmp_path / "victim"
    victim.write_bytes(b"precious")
    async with a_broker(settings) as broker:
        for sha256 in ("../../victim", str(victim), ""):
            forged = ModelSpec(name="m", inputs=(), outputs=(), sha256=sha256)
            await put_blob(broker, broker.names.models, forged.model_dump_json().encode(), forged.identity)
            with pytest.raises(ModelError, match="has no hash of its ONNX file"):
                await fetched(broker, forged.identity, folder)
        for identity in ("../../victim", str(victim), ""):
            with pytest.raises(ModelError, match="whose identity is not 64 hex digits"):
                await fetched(broker, identity, folder)
    assert victim.read_bytes() == b"precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["victim"]


async def test_models_share_files_at_the_broker(settings: Settings, tmp_path: Path) -> None:
    spec, content = a_model(tmp_path, "m", 1)
    other = spec.model_copy(update={"version": "9"})
    async with a_broker(settings) as broker:
        await publish_model(broker, spec, content)
        chunks = await chunks_of(broker)
        await publish_model(broker, other, content)
        assert await chunks_of(broker) == chunks + 1, "its card alone"


async def test_what_is_damaged_or_gone_is_one_line(settings: Settings, tmp_path: Path) -> None:
    spec, content = a_model(tmp_path, "m", 1)
    weights, cache = spec.files[0].sha256, tmp_path / "cache"
    async with a_broker(settings) as broker:
        bucket = broker.names.models
        stream = f"OBJ_{bucket}"
        await publish_model(broker, spec, content)
        await fetched(broker, spec.identity, cache)
        with (cache / weights).open("r+b") as file:
            file.write(b"altered")
        await fetched(broker, spec.identity, cache)
        assert file_sha256(cache / weights) == weights, "fetched again"

        info = await blob_info(broker, bucket, weights)
        assert info is not None
        await broker.purge(stream, f"$O.{bucket}.C.{info.chunks_id}", up_to=10_000)
        await broker.store(f"$O.{bucket}.C.{info.chunks_id}", b"other" * 1000, {"Nats-Msg-Id": "forged"})
        (cache / weights).unlink()
        with pytest.raises(StoreError, match=r"^model m is damaged in the broker's store: publish its pipeline again$"):
            await fetched(broker, spec.identity, cache)
        assert sorted(path.name for path in cache.iterdir() if path.stat().st_size > 2000) == [spec.sha256]
        await publish_model(broker, spec, content)
        await fetched(broker, spec.identity, cache)

        shutil.rmtree(cache)
        await delete_blob(broker, bucket, weights)
        with pytest.raises(ModelError, match=r"^the broker has no file m\.onnx_data of model m: publish its pipeline"):
            await fetched(broker, spec.identity, cache)
        with (content.folder / weights).open("r+b") as file:
            file.write(b"altered")
        with pytest.raises(ModelError, match=f"its file {content.folder / weights} is not the one its model card"):
            await publish_model(broker, spec, content)
        assert await blob_info(broker, bucket, weights) is None


def test_a_file_that_another_process_put_right_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body, folder = b"right" * 100, ModelFolder(tmp_path / "cache", MIB)
    sha256 = hashlib.sha256(body).hexdigest()
    folder.hold("a" * 64, b"{}")
    folder.path(sha256).write_bytes(b"wrong" * 100)

    def while_another_repairs(path: Path) -> str:
        found = file_sha256(path)
        path.unlink()
        part = folder.begin(sha256, len(body))
        assert part is not None
        part.write(body)
        folder.commit(sha256, part)
        return found

    monkeypatch.setattr("pipelines.model_folder.file_sha256", while_another_repairs)
    folder.has(sha256)
    assert folder.path(sha256).read_bytes() == body


async def test_a_full_disk_is_one_line_and_nothing_half_written_stays(
    settings: Settings, tmp_path: Path, small_disk: Path
) -> None:
    spec, content = a_model(tmp_path, "m", 18)
    async with a_broker(settings) as broker:
        await publish_model(broker, spec, content)
        with pytest.raises(StoreError, match=r"^cannot keep models in .*: No space left on device: "):
            await fetched(broker, spec.identity, small_disk / "cache")
    assert {path.name for path in (small_disk / "cache").iterdir()} == {f"{spec.identity}.json", spec.sha256}


async def test_the_model_that_was_used_least_recently_makes_room(settings: Settings, tmp_path: Path) -> None:
    """And none that a worker of this machine has loaded: the workers share the folder."""
    given = [a_model(tmp_path, name, 1, seed) for seed, name in enumerate(("a", "b", "c"))]
    limited = settings.model_copy(update={"models_disk_bytes": int(2.5 * LAYER_BYTES)})
    folder = tmp_path / "cache"

    def here() -> set[str]:
        return {spec.name for spec, _ in given if (folder / spec.files[0].sha256).exists()}

    async with a_broker(limited) as broker:
        for spec, content in given:
            await publish_model(broker, spec, content)
        first, second, third = [spec.identity for spec, _ in given]
        for identity in (first, second, first, third):
            await fetched(broker, identity, folder)
        assert here() == {"a", "c"}
        one, other = ModelCache(broker, folder), ModelCache(broker, folder)
        await one.load(first)
        await other.load(second)
        assert here() == {"a", "b"}
        with pytest.raises(ModelError, match=r"4,194,304 bytes does not fit beside the [\d,]+ bytes of models in use"):
            await fetched(broker, third, folder)
        assert here() == {"a", "b"}
        one.release(first)
        await fetched(broker, third, folder)
        assert here() == {"b", "c"}
        assert sum(path.stat().st_size for path in folder.iterdir()) <= limited.models_disk_bytes + 10_000
        one.close()
        other.close()


async def test_workers_of_a_machine_fetch_each_file_once(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, content = a_model(tmp_path, "m", 3)
    began: list[str] = []
    begin = ModelFolder.begin

    def counted(self: ModelFolder, sha256: str, size: int) -> object:
        part = begin(self, sha256, size)
        began.extend([sha256] if part is not None else [])
        return part

    monkeypatch.setattr(ModelFolder, "begin", counted)
    async with a_broker(settings) as broker:
        await publish_model(broker, spec, content)
        await asyncio.gather(*(fetched(broker, spec.identity, tmp_path / "cache") for _ in range(4)))
    assert sorted(began) == sorted((spec.sha256, *(file.sha256 for file in spec.files)))


FETCH = """
import asyncio, sys
from pathlib import Path
from pipelines.broker import Broker
from pipelines.models import ModelCache
from schemas.settings import Settings

async def main():
    broker = await Broker.connect(Settings(nats=sys.argv[1]))
    await ModelCache(broker, Path(sys.argv[3])).load(sys.argv[2])
    await broker.close()

asyncio.run(main())
"""


async def test_a_worker_that_is_killed_leaves_nothing_half_written(settings: Settings, tmp_path: Path) -> None:
    spec, content = a_model(tmp_path, "m", 24)
    cache, weights = tmp_path / "cache", spec.files[0].sha256
    async with a_broker(settings) as broker:
        await publish_model(broker, spec, content)
        command = [sys.executable, "-c", FETCH, settings.nats, spec.identity, str(cache)]
        fetching = await asyncio.create_subprocess_exec(*command)
        while fetching.returncode is None and not (cache / f"{weights}.part").exists():
            await asyncio.sleep(0.001)
        fetching.kill()
        await fetching.wait()
        assert not (cache / weights).exists()
        before = (cache / spec.sha256).stat().st_ino
        await fetched(broker, spec.identity, cache)
        assert (cache / spec.sha256).stat().st_ino == before, "a file that is there entirely is not fetched again"
        assert not list(cache.glob("*.part"))
