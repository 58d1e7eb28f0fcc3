"""Long and large raw media: short ones that come later do not wait for them, and they are not held in memory."""

import asyncio
import io
import mmap
import wave
from pathlib import Path

import nats
import numpy as np
import pytest

from benchmarks.workloads import looped
from engines import mapped
from engines.mapped import BufferReader, joined
from engines.media.container import open_container
from pipelines import blobs
from pipelines.blob_upload import put_blob
from pipelines.blobs import get_blob
from pipelines.broker import Broker
from pipelines.registry import builtin_pipeline
from pipelines.topology import apply_topology
from schemas.messages import decode
from schemas.results import Done
from schemas.settings import MIB, Settings
from tests.clips import Clip, make_clip
from tests.fleet import ONE_WORKER, Fleet
from workers.definitions import find_models, register

LONG_S, LONG_ONES = 66, 3


async def test_a_clip_that_comes_after_long_films_is_done_first(tmp_path: Path) -> None:
    film = looped(tmp_path / "film.mp4", LONG_S, "carphone_pristine").read_bytes()
    clip = make_clip(tmp_path, Clip(frames=30)).read_bytes()
    spec = builtin_pipeline("fingerprint")
    with Fleet((), tmp_path / "cache") as fleet:
        async with Broker.connected(fleet.settings, name="test") as broker:
            await register(broker, fleet.settings, spec, find_models(spec, None))
            client = await nats.connect(fleet.settings.nats)
            ends: list[Done] = []

            async def take(message: nats.aio.msg.Msg) -> None:
                if (message.headers or {}).get("Rigflow-Type") == "done":
                    done, _ = decode(message.data)
                    assert isinstance(done, Done)
                    ends.append(done)

            await client.subscribe("rigflow.results.main.fingerprint.*", cb=take)
            names = [f"film-{number}" for number in range(LONG_ONES)] + ["clip"]
            for name in names:
                media = clip if name == "clip" else film
                headers = {"Rigflow-Job": name}
                await broker.publish("rigflow.media.main.fingerprint", media, f"{name}/media", headers)
            fleet.add(ONE_WORKER[0])
            async with asyncio.timeout(120):
                while len(ends) < len(names):
                    await asyncio.sleep(0.05)
            await client.close()
    assert ends[0].job.id == "clip"
    assert sorted(done.job.id for done in ends) == sorted(names)
    films = [done for done in ends if done.job.id != "clip"]
    assert {(done.frames, done.failures, done.digest) for done in films} == {(films[0].frames, (), films[0].digest)}
    assert films[0].segments > 16, "more than may wait in the queue"


async def test_a_large_object_is_in_a_file(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "MAPPED_BYTES", 2 * MIB)
    async with Broker.connected(settings, name="test") as broker:
        await apply_topology(broker, settings, [])
        body = np.random.default_rng(1).bytes(5 * MIB + 3)
        for size, kind in ((len(body), memoryview), (MIB, bytearray)):
            name = await put_blob(broker, broker.names.blobs, body[:size])
            found = await get_blob(broker, broker.names.blobs, name)
            assert found == body[:size]
            assert type(found) is kind
            assert not isinstance(found, memoryview) or isinstance(found.obj, mmap.mmap)


def test_pieces_are_joined_in_a_file_where_they_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "MAPPED_BYTES", 4)
    small, large = joined(b"ab", b"cd"), joined(b"ab", memoryview(b"cde"))
    assert (type(small), small) == (bytes, b"abcd")
    assert isinstance(large, memoryview)
    assert isinstance(large.obj, mmap.mmap)
    assert bytes(large) == b"abcde"


def test_ffmpeg_reads_a_view_as_it_reads_bytes() -> None:
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setparams((1, 2, 8000, 0, "NONE", ""))
        written.writeframes(np.arange(8000, dtype="<i2").tobytes())
    packets = []
    for source in (file.getvalue(), memoryview(file.getvalue()), bytearray(file.getvalue())):
        with open_container(source) as opened:
            packets.append([bytes(packet) for packet in opened.demux(audio=0)])
    assert packets[0] == packets[1] == packets[2]
    reader = BufferReader(memoryview(b"abcdef"))
    assert (reader.seek(-2, io.SEEK_END), reader.read(9), reader.read(1)) == (4, b"ef", b"")
    assert (reader.seek(9), reader.read(1), reader.seek(1), reader.read(), reader.tell()) == (9, b"", 1, b"bcdef", 6)
