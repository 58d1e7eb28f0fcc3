"""A value at the broker that cannot be read is reported and left out; all that is beside it is answered."""

import asyncio
import json
from contextlib import aclosing
from pathlib import Path

import pytest

from pipelines.attempts import Attempts
from pipelines.blob_upload import put_blob
from pipelines.blobs import delete_blob
from pipelines.broker import Broker
from pipelines.cancelled import Cancelled
from pipelines.dead import drop, find_letter, letters, retry
from pipelines.delivery import Delivery
from pipelines.engines import fleet_engines
from pipelines.job_records import JobRecord, all_manifests, find_manifest
from pipelines.models import ModelCache
from pipelines.registry import builtin_pipeline, known_pipelines, load_pipeline, watch_pipelines
from pipelines.status import fleet_status
from schemas.errors import ModelError, PipelineError, PluginMissing, UsageError
from schemas.jobs import JobRef, Manifest, Priority
from schemas.results import Attempt
from schemas.settings import Settings
from schemas.subjects import HEADER_FAILURE, HEADER_SUBJECT
from tests.cli import rigflow, rigflow_process
from tests.integration.queues import SPEC, a_broker, a_pull
from workers.definitions import find_models, register

BAD = (b"", b"{nonsense", b"{}", b"[]", b"[1,2]", b"null", b"\xff\xfe", b"[" * 10_000, b'{"id": 5}', b"a b")
JOB = JobRef(id="j", pipeline="p", revision="r")


async def corrupt(broker: Broker, bucket: str, prefix: str) -> None:
    """Put each bad value under a key of its own."""
    for number, value in enumerate(BAD):
        await broker.put(bucket, f"{prefix}{number}", value)


async def test_pipelines(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    spec = builtin_pipeline("fingerprint")
    async with a_broker(settings) as broker:
        await corrupt(broker, broker.names.pipelines, "revision.")
        await corrupt(broker, broker.names.pipelines, "name.bad")
        pinned = await register(broker, settings, spec, find_models(spec, None))
        newer = json.loads(pinned.model_dump_json()) | {"colour": "of the future"}
        await broker.put(broker.names.pipelines, "revision.newer", json.dumps(newer).encode())
        await broker.put(broker.names.pipelines, "name.newer", b"newer")
        await broker.put(broker.names.pipelines, "revision.forged", pinned.model_dump_json().encode())
        await broker.put(broker.names.pipelines, "name.alias", pinned.revision.encode())
        assert await known_pipelines(broker) == [pinned]
        async with aclosing(watch_pipelines(broker)) as watching:
            assert await asyncio.wait_for(anext(watching), 10) == pinned  # type: ignore[arg-type]
        for name, reason in {"newer": "a field colour that is not known", "forged": "has the content of re"}.items():
            with pytest.raises(PluginMissing, match=reason):
                await load_pipeline(broker, name)
        for name, reason in {
            "0": "not readable", "bad9": "a revision that is not at the broker", "a.b": "knows no pipeline",
            ">": "knows no pipeline",
        }.items():  # fmt: skip
            with pytest.raises(PipelineError, match=reason):
                await load_pipeline(broker, name)
        for command in (("status",), ("pipelines", "list"), ("topology", "plan"), ("jobs", "list"), ("dead", "list")):
            ended = await asyncio.to_thread(rigflow, *command, "--nats", settings.nats)
            assert ended.returncode == 0, ended.stderr
        assert json.loads((await asyncio.to_thread(rigflow, "status", "--json", "--nats", settings.nats)).stdout)[
            "pipelines"
        ] == {"fingerprint": pinned.revision}
        output = await asyncio.to_thread(rigflow_process, "pipelines", "list", "--nats", settings.nats)
    assert "fingerprint" in output.stdout
    assert output.stderr.count("pipeline newer cannot be read, and is left out") == 1
    assert caplog.text.count("pipeline newer cannot be read") == 1
    assert "Traceback" not in output.stderr


async def test_a_models_card(settings: Settings, tmp_path: Path) -> None:
    spec = builtin_pipeline("fingerprint")
    async with a_broker(settings) as broker:
        pinned = await register(broker, settings, spec, find_models(spec, None))
        [identity] = pinned.models.values()
        card, _ = await ModelCache(broker, tmp_path).load(identity)
        other = card.model_copy(update={"sha256": "0" * 64})
        for kept, reason in ((b"{}", "not readable"), (other.model_dump_json().encode(), "is that of model")):
            (tmp_path / f"{identity}.json").write_bytes(kept)
            assert (await ModelCache(broker, tmp_path).load(identity))[0] == card, "from the broker again"
            await delete_blob(broker, broker.names.models, identity)
            await put_blob(broker, broker.names.models, kept, identity)
            (tmp_path / f"{identity}.json").unlink()
            with pytest.raises(ModelError, match=reason):
                await ModelCache(broker, tmp_path).load(identity)
            await delete_blob(broker, broker.names.models, identity)
            await put_blob(broker, broker.names.models, card.model_dump_json().encode(), identity)


async def test_jobs(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    async with a_broker(settings) as broker:
        await corrupt(broker, broker.names.jobs, "main.bad")
        await corrupt(broker, broker.names.jobs, "cancelled.main.bad")
        await broker.put(broker.names.jobs, "cancelled.main.j", JOB.model_dump_json().encode())
        record = JobRecord(broker, Manifest(job=JOB, name="good"))
        await record.change(frames=3)
        assert [manifest.name for manifest in await all_manifests(broker)] == ["good"]
        for job in ("bad1", "*", ">", "a b", "nothing"):
            assert await find_manifest(broker, job) is None
        cancelled = Cancelled(broker)
        async with aclosing(cancelled.follow()) as following:  # type: ignore[type-var]
            await asyncio.wait_for(anext(following), 10)
        assert cancelled.has(JOB)
        taken_over = JobRecord(broker, Manifest(job=JOB.model_copy(update={"id": "bad1"}), name="new"))
        await taken_over.change(frames=1)
        assert (await find_manifest(broker, "bad1")) == taken_over.manifest
    assert "the manifest of job main.bad1 cannot be read" in caplog.text


async def test_attempts(settings: Settings) -> None:
    async with a_broker(settings) as broker:
        await corrupt(broker, broker.names.attempts, "begun.bad")
        stream = broker.names.work_stream("p", "decode")
        for number, value in enumerate(BAD):
            await broker.put(broker.names.attempts, f"failed.{stream}.1.{number + 10}", value)
        attempt = Attempt(number=1, worker="w", host="h", device="cpu", at_s=1.0, ended="it failed")
        await broker.put(broker.names.attempts, f"failed.{stream}.1.1", attempt.model_dump_json().encode())
        begun = [["other", 1, attempt.model_dump()], [stream, 1, attempt.model_dump() | {"number": 2, "ended": ""}]]
        await broker.put(broker.names.attempts, "begun.life", json.dumps(begun).encode())
        await broker.publish(broker.names.work("p", "decode", Priority.BULK), b"x", "x")
        async with a_pull(broker, 1) as taken:
            while not taken.deliveries:
                await asyncio.sleep(0.01)
            delivery: Delivery = taken.deliveries[0]
            delivery.deliveries = 3
            known = await Attempts(broker, "w", "h", "cpu").of(delivery)
    assert [(each.number, each.ended) for each in known] == [(1, "it failed"), (2, "")]


async def test_statuses_and_engines(settings: Settings) -> None:
    worker = {
        "worker": "w", "device": "cpu", "gpu": {}, "stages": ["decode"], "state": "working", "at_s": 1.0,
        "rss_bytes": 1, "in_flight": 0, "failures": 0, "done": [], "new": "of a newer worker",
    }  # fmt: skip
    async with a_broker(settings) as broker:
        await corrupt(broker, broker.names.rigs, "worker.bad")
        await corrupt(broker, broker.names.rigs, "rig.bad")
        lying = {**worker, "worker": "w2", "done": [{"pipeline": "p"}], "at_s": "never"}
        await broker.put(broker.names.rigs, "worker.lying", json.dumps(lying).encode())
        await broker.put(broker.names.rigs, "worker.w", json.dumps(worker).encode())
        fleet = await fleet_status(broker)
        assert (fleet.workers, fleet.rigs) == ([worker], [])
        assert "silent for" in (await asyncio.to_thread(rigflow, "status", "--nats", settings.nats)).stdout
        for number, value in enumerate(BAD):
            await broker.store(f"$O.{broker.names.engines}.M.{number}", value, {"Nats-Msg-Id": f"engine-{number}"})
        assert await fleet_engines(broker) == []


async def test_dead_letters(settings: Settings) -> None:
    async with a_broker(settings) as broker:
        dead = broker.names.dead("p", "decode")
        await broker.store(dead, b"x", {"Nats-Msg-Id": "bare"})
        for number, value in enumerate(("{}", "x", "[" * 3000)):
            headers = {
                "Nats-Msg-Id": f"d{number}",
                HEADER_FAILURE: value,
                HEADER_SUBJECT: "$KV.rigflow_pipelines.name.p",
            }
            await broker.store(dead, b"x", headers)
        found = [letter async for letter in letters(broker)]
        assert {(each.failure.key.job.pipeline, each.failure.stage) for each in found} == {(SPEC.name, "decode")}
        assert {each.failure.error for each in found} == {"it does not say what failed"}
        for letter in found:
            with pytest.raises(UsageError, match="does not say which queue"):
                await retry(broker, letter)
        assert await broker.get(broker.names.pipelines, "name.p") is None
        again = await asyncio.to_thread(rigflow, "dead", "retry", "--all", "--nats", settings.nats)
        assert again.returncode == 1
        assert again.stdout.count("does not say which queue") == 4, "one that cannot be sent holds up no other"
        await drop(broker, await find_letter(broker, found[0].number))
        ended = await asyncio.to_thread(rigflow, "dead", "list", "--nats", settings.nats)
    assert ended.returncode == 0
    assert ended.stdout.count("does not say what failed") == 3
