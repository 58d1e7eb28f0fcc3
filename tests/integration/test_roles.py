"""The roles of deploy/nats/roles.conf: each can do its work, and nothing else."""

import asyncio
import json
import os
import re
import signal
from pathlib import Path

import httpx
import numpy as np
import pytest
from nats.aio.client import Client

from cli.app import answer
from engines.media.tensor import TensorMedium
from gateway.keys import KeyHolders
from pipelines.api_keys import make_key
from pipelines.asking import Asker
from pipelines.audit import Audited, read_audit
from pipelines.broker import Broker
from pipelines.engines import pull_engine, push_engine
from pipelines.registry import builtin_pipeline
from pipelines.sweep import sweep
from schemas.api_roles import ApiRole
from schemas.errors import BrokerError, ModelError
from schemas.jobs import Priority
from schemas.settings import Settings
from schemas.subjects import HEADER_ID
from tests.clips import real_clip
from tests.fleet import ONE_WORKER, Fleet, Silent
from tests.gateway import Gateway
from tests.guarded import ROLES, Guarded, made_by_the_operator
from tests.integration.queues import eventually
from tests.nets import kept_engine
from workers.definitions import find_models, register
from workers.run import run_jobs


def test_publisher_and_worker_do_a_job_and_a_client_gets_its_result(guarded: Guarded, tmp_path: Path) -> None:
    spec, clip = builtin_pipeline("fingerprint"), real_clip("bikes")
    asyncio.run(made_by_the_operator(guarded))
    publisher = Settings.model_validate(guarded.settings("publisher"))
    (tmp_path / "out").mkdir()
    with Fleet(ONE_WORKER, tmp_path / "cache", **guarded.settings("worker")) as fleet:
        (outcome,) = asyncio.run(
            run_jobs(publisher, spec, find_models(spec, None), [clip], tmp_path / "out", Priority.BULK, Silent())
        )
        assert outcome.ok, outcome.error
        kinds = asyncio.run(results_of_a_client(guarded, clip.read_bytes()))
        assert asyncio.run(answers_of_a_publisher(guarded)) == [2]
        asyncio.run(swept(fleet.settings))
    assert {"part", "file", "done"} <= set(kinds)
    assert "Violation" not in guarded.log.read_text(), "nobody needs more"


def test_a_gateway_with_keys_serves_jobs_in_its_role(guarded: Guarded, tmp_path: Path) -> None:
    """It reads the keys, and cannot make one; a job is done, another is cancelled, rigs get orders."""
    spec, clip = builtin_pipeline("fingerprint"), real_clip("bikes").read_bytes()
    asyncio.run(made_by_the_operator(guarded, spec.name))
    operator = Settings.model_validate(guarded.settings("operator"))
    jobs, roles = "/api/v1/jobs", list(ApiRole)
    key = {"Authorization": f"Bearer {asyncio.run(made_key(operator, 'k', roles))}"}
    settings = Settings.model_validate(guarded.settings("gateway"))
    with Gateway(settings, identify=KeyHolders()) as door, httpx.Client(base_url=door.url, timeout=60) as http:
        assert http.get(jobs).status_code == 401
        cancelled = http.post(f"{jobs}?pipeline={spec.name}", content=clip, headers=key | {"Idempotency-Key": "stop"})
        assert cancelled.status_code == 201, cancelled.text
        assert http.post(f"{jobs}/stop/cancel", headers=key).json()["state"] == "cancelled"
        made = http.post(f"{jobs}?pipeline={spec.name}", content=clip, headers=key)
        assert made.status_code == 201, made.text
        with Fleet(ONE_WORKER, tmp_path / "cache", **guarded.settings("worker")):
            with http.stream("GET", f"{jobs}/{made.json()['id']}/events", headers=key) as events:
                assert any(line == "event: done" for line in events.iter_lines())
            assert http.post("/api/v1/workers/test-0/cordon", headers=key).json()["order"] == "cordon"
        assert http.get(f"{jobs}/{made.json()['id']}/results", headers=key).json()["files"]
        assert http.get("/api/v1/dead-letters", headers=key).status_code == 200
        assert http.get(f"/api/v1/models/{spec.name}/readiness", headers=key).json()["engines"] == []
        assert http.get("/api/v1/search/models", headers=key).json()["models"] == []
        assert http.get(jobs, headers=key).json()["total"] == 2
        with http.stream("GET", "/api/v1/changes", headers=key) as events:
            assert next(events.iter_lines()) == "event: jobs"
        assert http.get("/api/v1/fleet", headers=key).json()["rigs"] == []
    with pytest.raises(BrokerError, match="forbids"):
        asyncio.run(made_key(settings, "forged", roles))
    audited = [each for each in asyncio.run(audit_of(operator)) if each.role == "gateway"]
    said = [(each.entry.action, each.entry.target, each.entry.api_key) for each in audited]
    assert said == [("job-cancelled", "stop", "k"), ("worker-ordered", "test-0", "k"), ("api-key-made", "forged", "")]


async def audit_of(settings: Settings) -> list[Audited]:
    async with Broker.connected(settings, "test") as broker:
        return [each async for each in read_audit(broker)]


async def made_key(settings: Settings, name: str, roles: list[ApiRole]) -> str:
    async with Broker.connected(settings, "test") as broker:
        return (await make_key(broker, name, "main", roles))[1]


async def answers_of_a_publisher(guarded: Guarded) -> list[int]:
    """The rows of the answer to a request of two rows, as the gateway makes one."""
    settings = Settings.model_validate(guarded.settings("operator"))
    async with Broker.connected(settings, "test") as broker:
        wanted = builtin_pipeline("infer").with_model("fingerprint")
        spec = await register(broker, settings, wanted, find_models(wanted, None), variant=True)
    async with Broker.connected(Settings.model_validate(guarded.settings("publisher")), "test") as broker:
        asker, arrays = Asker(broker), {"pixels": np.zeros((2, 5, 32, 32), np.uint8)}
        found = await asker.ask(spec, list(TensorMedium(spec.decode).segments_of("a", arrays)), "main")
        await asker.close()
        return [len(each.meta.pts) for each in found]


async def swept(settings: Settings) -> None:
    broker = await Broker.connect(settings)
    await sweep(broker, age_s=0.0)
    await broker.close()


async def results_of_a_client(guarded: Guarded, media: bytes) -> list[str]:
    """Publish media with plain NATS; the types of what comes back, up to Done."""
    client = Client()
    seed = guarded.seeds["client"].read_text()
    await client.connect(guarded.url, nkeys_seed_str=seed, inbox_prefix="_INBOX_client", allow_reconnect=False)
    results = await client.subscribe("rigflow.results.main.fingerprint.*")
    acked = await client.request("rigflow.media.main.fingerprint", media, headers={"Rigflow-Name": "bikes.mp4"})
    assert json.loads(acked.data)["stream"] == "RIGFLOW_MEDIA_fingerprint"
    kinds: list[str] = []
    while "done" not in kinds:
        kinds.append((await results.next_msg(timeout=60)).headers["Rigflow-Type"])
    await client.close()
    return kinds


WORK, MEDIA = "RIGFLOW_WORK_fingerprint_decode", "RIGFLOW_MEDIA_fingerprint"
API = "$JS.API"
PUBLISH = {  # subject -> the roles that may publish there, by their first letters: worker, publisher, gateway, client
    "rigflow.media.main.fingerprint": "pcg",
    "rigflow.media.main.fingerprint.bulk": "pcg",
    "rigflow.media.main.fingerprint.interactive": "",
    "rigflow.media.other.fingerprint": "g",
    "rigflow.work.fingerprint.decode.bulk": "wpg",
    "rigflow.results.main.fingerprint.job": "wpg",
    "rigflow.results.other.fingerprint.job": "wg",
    "rigflow.cancel.main.fingerprint.job": "pc",
    "rigflow.cancel.other.fingerprint.job": "",
    "rigflow.dead.fingerprint.decode": "w",
    "rigflow.audit.worker.job-cancelled": "w",
    "rigflow.audit.publisher.job-cancelled": "p",
    "rigflow.audit.gateway.job-cancelled": "g",
    "rigflow.audit.operator.job-cancelled": "",
    "$KV.rigflow_pipelines.name.fingerprint": "pg",
    "$KV.rigflow_jobs.main.job": "wpg",
    "$KV.rigflow_jobs.other.job": "wg",
    "$KV.rigflow_jobs.cancelled.main.job": "wpg",
    "$KV.rigflow_jobs.cancelled.other.job": "wg",
    "$KV.rigflow_rigs.worker": "w",
    "$KV.rigflow_profiles.GPU-1": "w",
    "$KV.rigflow_profiles.model.GPU-1.key": "w",
    "$KV.rigflow_profiles.choice.key": "w",
    "$KV.rigflow_profiles.card.GPU-1": "w",
    "$KV.rigflow_profiles.canary.GPU-1.group": "w",
    "$KV.rigflow_attempts.begun.life": "w",
    "$O.rigflow_models.M.x": "pg",
    "$O.rigflow_engines.M.x": "w",
    "$O.rigflow_blobs.M.x": "wpg",
    f"$JS.ACK.{WORK}.bulk.1.1.1.1.0": "w",
    f"{API}.CONSUMER.MSG.NEXT.{WORK}.bulk": "w",
    f"{API}.CONSUMER.MSG.NEXT.{MEDIA}.bulk": "w",
    f"{API}.CONSUMER.MSG.NEXT.RIGFLOW_RESULTS.collect": "wpg",
    f"{API}.CONSUMER.CREATE.RIGFLOW_RESULTS.collect": "wpg",
    f"{API}.CONSUMER.CREATE.KV_rigflow_jobs.follow": "wpg",
    f"{API}.CONSUMER.CREATE.KV_rigflow_pipelines.follow": "w",
    f"{API}.CONSUMER.CREATE.KV_rigflow_rigs.follow": "w",
    f"{API}.CONSUMER.CREATE.RIGFLOW_DEAD.any": "",
    f"{API}.CONSUMER.CREATE.{WORK}.any": "",
    f"{API}.CONSUMER.DELETE.{WORK}.bulk": "",
    f"{API}.CONSUMER.PAUSE.{WORK}.bulk": "",
    f"{API}.STREAM.CREATE.ANY": "",
    f"{API}.STREAM.UPDATE.RIGFLOW_RESULTS": "",
    f"{API}.STREAM.DELETE.RIGFLOW_RESULTS": "",
    f"{API}.STREAM.SNAPSHOT.RIGFLOW_RESULTS": "",
    f"{API}.STREAM.LEADER.STEPDOWN.RIGFLOW_RESULTS": "",
    f"{API}.STREAM.LIST": "wpg",
    f"{API}.STREAM.PURGE.RIGFLOW_RESULTS": "wpg",
    f"{API}.STREAM.PURGE.{WORK}": "",
    f"{API}.STREAM.PURGE.RIGFLOW_DEAD": "",
    f"{API}.STREAM.PURGE.RIGFLOW_AUDIT": "",
    f"{API}.STREAM.MSG.DELETE.RIGFLOW_AUDIT": "",
    f"{API}.STREAM.PURGE.OBJ_rigflow_models": "g",
    f"{API}.STREAM.PURGE.KV_rigflow_jobs": "",
    f"{API}.STREAM.PURGE.KV_rigflow_attempts": "w",
    f"{API}.STREAM.MSG.DELETE.RIGFLOW_RESULTS": "wpg",
    f"{API}.STREAM.MSG.DELETE.{WORK}": "",
    f"{API}.STREAM.MSG.DELETE.RIGFLOW_DEAD": "g",
    f"{API}.STREAM.MSG.GET.{WORK}": "",
    f"{API}.STREAM.MSG.GET.RIGFLOW_DEAD": "g",
    f"{API}.STREAM.MSG.GET.RIGFLOW_RESULTS": "wpg",
    f"{API}.DIRECT.GET.RIGFLOW_DEAD": "g",
    f"{API}.DIRECT.GET.{MEDIA}": "",
    f"{API}.DIRECT.GET.{WORK}": "",
    f"{API}.DIRECT.GET.RIGFLOW_RESULTS": "wpcg",
    f"{API}.DIRECT.GET.OBJ_rigflow_blobs": "wpcg",
    f"{API}.DIRECT.GET.OBJ_rigflow_models": "wpg",
    f"{API}.DIRECT.GET.KV_rigflow_keys": "g",
    f"{API}.CONSUMER.CREATE.KV_rigflow_keys.follow": "g",
    f"{API}.STREAM.PURGE.KV_rigflow_keys": "",
    f"{API}.STREAM.MSG.DELETE.KV_rigflow_keys": "",
    "$KV.rigflow_keys.key": "",
    "$KV.rigflow_tenants.listed": "",
    f"{API}.DIRECT.GET.KV_rigflow_tenants": "wpg",
    f"{API}.DIRECT.GET.RIGFLOW_USAGE": "wpg",
    "$KV.rigflow_last_seen.rig.r": "w",
    f"{API}.DIRECT.GET.KV_rigflow_last_seen": "pg",
    f"{API}.DIRECT.GET.KV_rigflow_jobs": "wpg",
    f"{API}.DIRECT.GET.KV_rigflow_profiles": "wpg",
    f"{API}.DIRECT.GET.KV_rigflow_jobs.$KV.rigflow_jobs.main.job": "c",
    f"{API}.DIRECT.GET.KV_rigflow_jobs.$KV.rigflow_jobs.other.job": "",
    f"{API}.CONSUMER.MSG.NEXT.RIGFLOW_CANCEL.interactive": "w",
    "_INBOX_operator.x.1": "",
    "_INBOX_worker.x.1": "",
    "_INBOX_publisher.x.1": "",
    "_INBOX_client.x.1": "",
    "_INBOX_gateway.x.1": "",
    "anything.else": "",
    "$SYS.REQ.SERVER.PING": "",
}
SUBSCRIBE = {
    ">": "",
    "_INBOX.>": "",
    "_INBOX_operator.>": "",
    "_INBOX_worker.>": "w",
    "_INBOX_publisher.>": "p",
    "_INBOX_client.>": "c",
    "_INBOX_gateway.>": "g",
    "rigflow.>": "",
    "rigflow.work.>": "",
    "rigflow.media.>": "",
    "rigflow.results.>": "",
    "rigflow.results.*.>": "g",
    "rigflow.results.main.>": "pcg",
    "rigflow.dead.>": "",
    "$KV.>": "",
    "$KV.rigflow_jobs.>": "",
    "$KV.rigflow_attempts.>": "",
    "$O.>": "",
    "$JS.ACK.>": "",
    "$JS.EVENT.ADVISORY.>": "",
    "$SYS.>": "",
}


@pytest.mark.parametrize("role", ["worker", "publisher", "gateway", "client"])
async def test_a_role_may_what_the_table_says_and_no_more(guarded: Guarded, role: str) -> None:
    client = Client()
    output: list[str] = []

    async def on_error(error: Exception) -> None:
        output.append(str(error))

    seed = guarded.seeds[role].read_text()
    await client.connect(guarded.url, nkeys_seed_str=seed, inbox_prefix=f"_INBOX_{role}", error_cb=on_error)
    for subject in PUBLISH:
        await client.publish(subject, b"\x00 no json, so that the API refuses it")
    for subject in SUBSCRIBE:
        await client.subscribe(subject)
    await client.publish("the.end", b"")  # refusals come in order
    await eventually(lambda: any("the.end" in line for line in output))
    await client.close()
    forbidden = {match[1] for line in output if (match := re.search(r'publish to "(.*?)"', line, re.IGNORECASE))} - {
        "the.end"
    }
    unseen = {match[1] for line in output if (match := re.search(r'subscription to "(.*?)"', line, re.IGNORECASE))}
    assert forbidden == {subject.lower() for subject, roles in PUBLISH.items() if role[0] not in roles}
    assert unseen == {subject.lower() for subject, roles in SUBSCRIBE.items() if role[0] not in roles}


async def test_a_client_writes_nowhere_by_a_reply(guarded: Guarded) -> None:
    """The broker acknowledges media, and answers a direct get, on the reply that the client names."""
    await made_by_the_operator(guarded)
    operator = await Broker.connect(Settings.model_validate(guarded.settings("operator")))
    client = Client()
    seed = guarded.seeds["client"].read_text()
    await client.connect(guarded.url, nkeys_seed_str=seed, inbox_prefix="_INBOX_client", allow_reconnect=False)
    replies = ("$KV.rigflow_jobs.cancelled.main.job", "rigflow.work.fingerprint.decode.bulk", "$JS.API.STREAM.LIST")
    await operator.publish("rigflow.results.main.fingerprint.job", b"a result", "result")
    for reply in replies:
        await client.publish("rigflow.media.main.fingerprint", b"media", reply=reply)
        get = json.dumps({"last_by_subj": "rigflow.results.main.fingerprint.job"}).encode()
        await client.publish("$JS.API.DIRECT.GET.RIGFLOW_RESULTS", get, reply=reply)
    await client.flush()

    async def media() -> bool:
        return len([stored async for stored in operator.read("RIGFLOW_MEDIA_fingerprint")]) == len(replies)

    await eventually(media)
    assert await operator.items(operator.names.jobs, ">") == {}
    assert [stored async for stored in operator.read(WORK)] == []
    await client.close()
    await operator.close()


async def test_permissions_of_an_older_version_are_named(guarded: Guarded) -> None:
    """Those of before there were tenants: the error says what to do."""
    roles = guarded.log.parent / "roles.conf"
    roles.write_text("\n".join(each for each in ROLES.read_text().splitlines() if "rigflow_tenants" not in each))
    os.kill(int((guarded.log.parent / "pid").read_text()), signal.SIGHUP)

    async def is_named() -> bool:
        try:
            async with Broker.connected(Settings.model_validate(guarded.settings("worker")), "test"):
                return False
        except BrokerError as error:
            return "rigflow topology roles" in str(error)

    await eventually(is_named)


@pytest.mark.parametrize("bucket", ["$KV.rigflow_jobs.main.x", "$KV.rigflow_pipelines.x.x", "$O.rigflow_models.M.x"])
async def test_no_message_rolls_up_a_bucket(guarded: Guarded, bucket: str) -> None:
    await made_by_the_operator(guarded)
    publisher = await Broker.connect(Settings.model_validate(guarded.settings("publisher")))
    try:
        with pytest.raises(BrokerError, match="rollup"):
            await publisher.store(bucket, b"x", {HEADER_ID: "x", "Nats-Rollup": "all"})
    finally:
        await publisher.close()


def test_the_file_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["topology", "roles"]) == 0
    assert capsys.readouterr().out == ROLES.read_text()


async def test_workers_share_engines_and_publishers_do_not(guarded: Guarded, tmp_path: Path) -> None:
    await made_by_the_operator(guarded)
    store, spec = kept_engine(tmp_path / "engines")
    plan = store.load(spec.key)[1]
    worker = await Broker.connect(Settings.model_validate(guarded.settings("worker")))
    publisher = await Broker.connect(Settings.model_validate(guarded.settings("publisher")))
    try:
        with pytest.raises(BrokerError):
            await push_engine(publisher, spec, plan)
        assert await push_engine(worker, spec, b"damaged")
        with pytest.raises(ModelError, match="is damaged at the broker"):
            await pull_engine(worker, spec.key)
        assert await push_engine(worker, spec, plan)
        assert (await pull_engine(worker, spec.key))[:2] == (spec, plan)
    finally:
        await worker.close()
        await publisher.close()
