"""Tenants with an account each: what the programs of one can do, and what a hostile one cannot."""

import asyncio
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.errors import NoRespondersError

from pipelines.audit import read_audit
from pipelines.blobs import info_subject, stored_digest
from pipelines.broker import Broker
from pipelines.claims import claim_name
from pipelines.tenant_admin import set_tenants
from pipelines.tenants import keep_tenants
from schemas.errors import BrokerError
from schemas.settings import Settings
from schemas.tenants import Tenant
from tests.clips import real_clip
from tests.fleet import ONE_WORKER, Fleet
from tests.guarded import Guarded, new_key
from tests.integration.queues import eventually
from tests.tenant_attacks import API, GET, MEDIA, PUBLISH, SUBSCRIBE, WORK
from tests.tenants import Shared, counts, two_tenants


@pytest.fixture
def shared(guarded: Guarded, tmp_path: Path) -> Shared:
    """A fleet with the tenants `acme` and `evil`, of which the second may have little waiting."""
    return two_tenants(guarded, tmp_path)


async def until_done(client: Client, tenant: str, media: bytes, job: str) -> dict[str, str]:
    """Have a clip done for a tenant; type of each result -> the subject that it came on."""
    results = await client.subscribe(f"rigflow.results.{tenant}.>")
    await client.request(f"rigflow.media.{tenant}.fingerprint", media, headers={"Rigflow-Job": job, "Nats-Msg-Id": job})
    found: dict[str, str] = {}
    while "done" not in found:
        message = await results.next_msg(timeout=60)
        found[(message.headers or {})["Rigflow-Type"]] = message.subject
    return found


async def test_workers_serve_all_tenants_and_each_gets_its_own_results(shared: Shared, tmp_path: Path) -> None:
    clip = real_clip("bikes").read_bytes()
    with Fleet(ONE_WORKER, tmp_path / "cache", **shared.guarded.settings("worker")):
        async with shared.program("acme") as acme, shared.program("evil") as evil:
            overheard = await evil.subscribe("rigflow.results.evil.>")
            done = await until_done(acme, "acme", clip, "film")
            assert {"part", "file", "done"} <= done.keys()
            assert set(done.values()) == {"rigflow.results.acme.fingerprint.film"}
            last = json.dumps({"last_by_subj": done["done"]}).encode()

            async def stored() -> bool:  # the broker sends a message while it stores it
                message = await acme.request(f"{GET}.RIGFLOW_RESULTS_acme", last)
                return (message.headers or {})["Rigflow-Type"] == "done"

            await eventually(stored)
            kept = await acme.request(f"{GET}.KV_rigflow_jobs_acme.$KV.rigflow_jobs_acme.acme.film", b"")
            assert json.loads(kept.data)["state"] == "done"
            assert overheard.pending_msgs == 0
            assert (await until_done(evil, "evil", clip, "film")).keys() >= {"file", "done"}, (
                "the same id is another job"
            )
        await asyncio.to_thread(shared.add, "third")
        async with shared.program("third") as third:
            assert (await until_done(third, "third", clip, "film")).keys() >= {"file", "done"}
        async with shared.program("acme") as acme, shared.operating() as operator:
            await acme.publish("rigflow.cancel.acme.fingerprint.another", b"")

            async def audited() -> bool:
                return any([each.entry.target == "another" async for each in read_audit(operator)])

            await eventually(audited)
    assert "Violation" not in shared.guarded.log.read_text()
    async with shared.operating() as operator:
        assert [each async for each in operator.read(operator.names.results_stream)] == []


@pytest.mark.parametrize("tenant", ["acme", "evil"])
async def test_a_tenant_may_what_the_table_says_and_no_more(shared: Shared, tenant: str) -> None:
    output: list[str] = []
    async with shared.program(tenant, output) as client:
        for subject in PUBLISH:
            await client.publish(subject, b"\x00 no json, so that the API refuses it")
        for subject in SUBSCRIBE:
            await client.subscribe(subject)
        await client.publish("the.end", b"")  # refusals come in order
        await eventually(lambda: any("the.end" in line for line in output))
    forbidden = {match[1] for line in output if (match := re.search(r'publish to "(.*?)"', line, re.IGNORECASE))}
    unseen = {match[1] for line in output if (match := re.search(r'subscription to "(.*?)"', line, re.IGNORECASE))}
    assert forbidden - {"the.end"} == {each.lower() for each, may in PUBLISH.items() if tenant[0] not in may}
    assert unseen == {each.lower() for each, may in SUBSCRIBE.items() if tenant[0] not in may}


async def refused(client: Client, subject: str) -> bool:
    """Whether the API of the broker has nothing for a program, which is in an account without streams."""
    try:
        answer = json.loads((await client.request(subject, b"{}", timeout=30)).data)
    except NoRespondersError:
        return True
    return bool(answer["error"]["err_code"] == 10039)  # JetStream is not enabled for the account


async def test_an_account_alone_keeps_a_hostile_program_in(shared: Shared) -> None:
    """Without the permissions of its user, what it sends on subjects of others stays in its account."""
    await asyncio.to_thread(shared.without_permissions, "evil")

    async def is_open() -> bool:
        errors: list[str] = []
        async with shared.program("evil", errors) as trial:
            await trial.publish("anything.else", b"")
            await trial.flush()
        return not errors

    await eventually(is_open)
    async with shared.operating() as operator, shared.program("evil") as evil, shared.program("acme") as acme:
        before = await counts(operator)
        overheard = [
            await evil.subscribe(subject) for subject in ("rigflow.*.acme.>", "$JS.EVENT.>", "_INBOX_worker.>")
        ]
        await acme.request("rigflow.media.acme.fingerprint", b"media of acme")
        await operator.publish("rigflow.results.acme.fingerprint.film", b"a result", "result")
        await evil.flush()
        assert sum(each.pending_msgs for each in overheard) == 0
        for subject, may in PUBLISH.items():
            if "e" not in may and "*" not in subject:
                await evil.publish(subject, b"forged")
        for subject in (f"STREAM.INFO.{MEDIA}@acme", "DIRECT.GET.RIGFLOW_RESULTS_acme", f"STREAM.PURGE.{MEDIA}@acme"):
            assert await refused(evil, f"{API}.{subject}")
        await evil.flush()
        after = await counts(operator)
    for stream in (f"{MEDIA}@acme", "RIGFLOW_RESULTS_acme"):
        assert after.pop(stream) == before.pop(stream) + 1, "what is its own, and nothing else"
    assert after == before


async def test_no_reply_of_a_hostile_program_reaches_another(shared: Shared) -> None:
    """The broker acknowledges media, and answers a direct get, on the reply that a program names."""
    replies = (
        "rigflow.media.acme.fingerprint",
        "rigflow.work.fingerprint.decode.bulk.acme",
        "rigflow.results.acme.fingerprint.film",
        "$KV.rigflow_jobs_acme.cancelled.acme.film",
        f"{API}.STREAM.PURGE.{MEDIA}@acme",
        f"$JS.ACK.{MEDIA}@acme.bulk-acme.1.1.1.1.0",
    )
    async with shared.operating() as operator, shared.program("evil") as evil, shared.program("acme") as acme:
        await operator.publish("rigflow.results.evil.fingerprint.x", b"a result", "result")
        await acme.request("rigflow.media.acme.fingerprint", b"media of acme")
        before = await counts(operator)
        get = json.dumps({"last_by_subj": "rigflow.results.evil.fingerprint.x"}).encode()
        for reply in replies:
            await evil.publish("rigflow.media.evil.fingerprint", b"media", reply=reply)
            await evil.publish(f"{GET}.RIGFLOW_RESULTS_evil", get, reply=reply)
        await evil.flush()
        await evil.request("rigflow.media.evil.fingerprint", b"the last")  # what was sent before is handled by then
        taken = [stored async for stored in operator.read(f"{MEDIA}@evil")]
        assert len(taken) >= len(replies), "the server itself drops the one with a reply on $JS.ACK"
        assert await counts(operator) == before


async def test_a_hostile_program_fills_its_own_queue_alone(shared: Shared) -> None:
    async with shared.program("evil") as evil, shared.program("acme") as acme:
        answers = [
            json.loads((await evil.request("rigflow.media.evil.fingerprint", bytes(300_000))).data) for _ in range(5)
        ]
        assert [each.get("error", {}).get("err_code") for each in answers] == [None, None, None, 10077, 10077]
        asked = json.loads((await acme.request("rigflow.media.acme.fingerprint", b"media")).data)
        assert asked["stream"] == f"{MEDIA}@acme"
        assert asked["seq"] == 1, "what others send is not counted"


async def test_no_tenant_but_those_listed_can_send(shared: Shared) -> None:
    async with shared.operating() as operator:
        for tenant, stream in (("stranger", None), ("main", [MEDIA]), ("acme", [f"{MEDIA}@acme"])):
            taking = await operator.api("STREAM.NAMES", {"subject": f"rigflow.media.{tenant}.fingerprint"})
            assert taking["streams"] == stream


async def test_media_larger_than_a_message_go_through_a_store_of_the_tenant(shared: Shared, tmp_path: Path) -> None:
    """A program stores chunks and their description as docs/clients.md says, in a store that nobody else writes to."""
    clip = real_clip("bikes").read_bytes()
    subject, store = "rigflow.media.acme.fingerprint", "rigflow_uploads_acme"
    name = claim_name(subject, "film", "upload")
    digest = stored_digest(hashlib.sha256(clip).digest())
    info = {"name": name, "bucket": store, "nuid": "upload", "size": len(clip), "chunks": 1, "digest": digest}
    with Fleet(ONE_WORKER, tmp_path / "cache", **shared.guarded.settings("worker")):
        async with shared.program("acme") as acme, shared.operating() as operator:
            results = await acme.subscribe("rigflow.results.acme.>")
            await acme.request(f"$O.{store}.C.upload", clip)
            await acme.request(info_subject(store, name), json.dumps(info).encode())
            headers = {"Rigflow-Job": "film", "Rigflow-Blob": name, "Nats-Msg-Id": "film"}
            await acme.request(subject, str(len(clip)).encode(), headers=headers)
            kinds: list[str] = []
            while "done" not in kinds:
                kinds.append(((await results.next_msg(timeout=60)).headers or {})["Rigflow-Type"])

            async def emptied() -> bool:
                return [each async for each in operator.read(f"OBJ_{store}")] == []

            await eventually(emptied)  # its object goes with its message
    assert "file" in kinds


async def test_a_removed_tenant_leaves_nothing_and_its_program_is_out(shared: Shared) -> None:
    async with shared.program("acme") as acme:
        await acme.request("rigflow.media.acme.fingerprint", b"media")
        assert await asyncio.to_thread(shared.tenants, "remove", "acme") == 2, "its media are not done"
        without_it = re.sub(r"\[tenant.acme\]\n.*?\n\n", "", shared.file.read_text(), flags=re.DOTALL)
        assert "acme" not in without_it
        shared.file.write_text(without_it)  # as after a removal that was interrupted
        assert await asyncio.to_thread(shared.tenants, "limit", "evil", "--weight", "2") == 2, "the file lacks one"
        assert await asyncio.to_thread(shared.tenants, "remove", "acme", "--drop") == 0
        assert await asyncio.to_thread(shared.tenants, "remove", "acme", "--drop") == 2, "it is not there any more"
        await eventually(lambda: not acme.is_connected)
    async with shared.operating() as operator:
        streams = [each["config"]["name"] for each in (await operator.api("STREAM.LIST"))["streams"]]
        consumers = (await operator.api(f"CONSUMER.LIST.{WORK}"))["consumers"]
        assert not [each for each in streams if each.endswith("acme")]
        assert {each["name"] for each in consumers} == {"interactive", "bulk", "interactive-evil", "bulk-evil"}
        assert operator.tenants.keys() == {"evil"}
    async with shared.program("evil") as evil:
        assert (await evil.request("rigflow.media.evil.fingerprint", b"media")).data


async def test_limits_of_a_tenant_change_while_it_works(shared: Shared) -> None:
    key = new_key(shared.folder / "second.nk")
    async with shared.program("evil") as evil:
        assert await asyncio.to_thread(shared.tenants, "limit", "acme", "--weight", "3", "--user", key) == 0
        async with shared.operating() as operator:
            assert operator.tenants["acme"].weight == 3
            assert operator.tenants["acme"].users == (key,)
        shared.seeds["acme"] = shared.folder / "second.nk"

        async def let_in() -> bool:
            try:
                async with shared.program("acme") as acme:
                    return bool((await acme.request("rigflow.media.acme.fingerprint", b"media")).data)
            except Exception:
                return False

        await eventually(let_in)
        assert evil.is_connected, "nobody else notices"
    assert await asyncio.to_thread(shared.tenants, "limit", "acme", "--weight", "-1") == 2
    assert await asyncio.to_thread(shared.tenants, "limit", "nobody", "--weight", "1") == 2
    assert await asyncio.to_thread(shared.tenants, "add", "evil") == 2
    assert await asyncio.to_thread(shared.tenants, "list") == 0


async def test_a_configuration_that_the_server_refuses_changes_nothing(shared: Shared) -> None:
    before = shared.file.read_text(), (shared.folder / "roles.conf").read_text()
    config = shared.folder / "nats.conf"
    good = config.read_text()
    config.write_text(good + "\nno_such_option: 1\n")
    assert await asyncio.to_thread(shared.tenants, "limit", "acme", "--weight", "2") == 3
    assert await asyncio.to_thread(shared.tenants, "add", "third") == 3
    assert (shared.file.read_text(), (shared.folder / "roles.conf").read_text()) == before
    async with shared.operating() as operator:
        assert (operator.tenants.keys(), operator.tenants["acme"].weight) == ({"acme", "evil"}, 1.0)


async def test_a_gateway_keeps_the_list_after_an_error_of_the_broker(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pipelines.tenants.AGAIN_S", 0.0)
    create, errors = Broker.create_reader, [BrokerError("no answer")]

    async def fails_once(broker: Broker, *args: Any, **kwargs: Any) -> int:
        if errors:
            raise errors.pop()
        return await create(broker, *args, **kwargs)

    async with Broker.connected(settings, "operator") as operator, Broker.connected(settings, "gateway") as gateway:
        await set_tenants(operator, settings, {"first": Tenant()})
        monkeypatch.setattr(Broker, "create_reader", fails_once)
        keeping = asyncio.create_task(keep_tenants(gateway))
        await eventually(lambda: set(gateway.tenants) == {"first"})
        await set_tenants(operator, settings, {"first": Tenant(), "second": Tenant()})
        await eventually(lambda: set(gateway.tenants) == {"first", "second"})
        assert "could not be followed" in caplog.text
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
