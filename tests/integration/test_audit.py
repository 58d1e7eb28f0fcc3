"""The audit log: what has an entry, who can write one, and that nobody can take one away."""

import asyncio
import json

import pytest

from cli.app import answer
from pipelines import message_store
from pipelines.api_keys import make_key, revoke_key
from pipelines.audit import Audited, audit, read_audit
from pipelines.broker import Broker
from pipelines.client import Client
from pipelines.jetstream import ApiError
from pipelines.job import Job
from pipelines.job_records import JobRecord
from pipelines.join_tokens import make_token, revoke_token
from pipelines.registry import builtin_pipeline, put_revision, withdraw_pipeline
from pipelines.tenant_admin import remove_tenant, set_tenants
from pipelines.topology import apply_topology, ensure_topology
from pipelines.variants import put_model, remove_model
from schemas.api_roles import ApiRole
from schemas.errors import BrokerError
from schemas.jobs import JobRef, JobState, Manifest
from schemas.join_tokens import RigAccess
from schemas.settings import Settings
from schemas.tenants import Tenant
from tests.clips import real_clip
from tests.guarded import Guarded, made_by_the_operator
from workers.definitions import find_models, register


def test_each_change_has_an_entry_once(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    job, revision, secret, found = asyncio.run(changed(settings))
    assert [(each.entry.action, each.entry.target) for each in found] == [
        ("pipeline-published", "fingerprint"),
        ("job-cancelled", job),
        ("job-deleted", job),
        ("api-key-made", "website"),
        ("api-key-revoked", "website"),
        ("pipeline-removed", "fingerprint"),
        ("model-published", "fingerprint"),
        ("model-removed", "fingerprint"),
        ("join-token-made", "rig7"),
        ("join-token-revoked", "rig7"),
    ]
    assert {each.role for each in found} == {"any"}
    assert all(each.entry.machine for each in found)
    assert secret not in "".join(each.entry.model_dump_json() for each in found)
    capsys.readouterr()
    assert answer(["audit", "--nats", settings.nats, "--action", "pipeline-published", "--json"]) == 0
    (printed,) = json.loads(capsys.readouterr().out)
    assert printed["facts"] == {"revision": revision}
    assert answer(["audit", "--nats", settings.nats, "--last", "3"]) == 0
    table = capsys.readouterr().out
    assert "model-removed" in table
    assert "api-key-made" not in table
    for _ in range(2):  # the second one changes nothing
        assert answer(["topology", "apply", "--nats", settings.nats]) == 0
    capsys.readouterr()
    assert answer(["audit", "--nats", settings.nats, "--action", "topology-applied", "--json"]) == 0
    (printed,) = json.loads(capsys.readouterr().out)
    assert "KV_rigflow_profiles" in printed["facts"]["streams"]
    assert answer(["topology", "sweep", "--nats", settings.nats]) == 0
    capsys.readouterr()
    assert answer(["audit", "--nats", settings.nats, "--last", "1", "--json"]) == 0
    (printed,) = json.loads(capsys.readouterr().out)
    assert (printed["action"], printed["target"]) == ("leftovers-swept", "of 3600 s and older")


async def changed(settings: Settings) -> tuple[str, str, str, list[Audited]]:
    """Make one change of each kind; the job, the revision and the secret of a key in them, and the entries."""
    spec = builtin_pipeline("fingerprint")
    ((card, content),) = find_models(spec, None).values()
    async with Client.connected(settings) as client:
        broker = client.broker
        for _ in range(2):
            pinned = await register(broker, settings, spec, find_models(spec, None))
        await put_revision(broker, pinned, variant=True)
        job = await client.submit(pinned, real_clip("bikes").read_bytes())
        await job.cancel()
        await (await client.find(job.id)).cancel()  # it is over: nothing is changed
        await job.delete()
        _, text = await make_key(broker, "website", "main", [ApiRole.READ])
        await revoke_key(broker, "website")
        await withdraw_pipeline(broker, spec.name)
        await put_model(broker, card, content)
        await remove_model(broker, card.name)
        await make_token(broker, "rig7", RigAccess(inbox="_INBOX", prefix="rigflow"), b"", 4e9)
        await revoke_token(broker, "rig7")
        await broker.api(f"STREAM.DELETE.KV_{broker.names.profiles}")
        found = [each async for each in read_audit(broker)]
    return job.id, pinned.revision, text.split("_", 2)[2], found  # a secret may have _ in it


async def test_the_broker_holds_the_role_and_keeps_every_entry(guarded: Guarded) -> None:
    await made_by_the_operator(guarded)
    publisher, operator = (Settings.model_validate(guarded.settings(role)) for role in ("publisher", "operator"))
    async with Broker.connected(publisher, "test") as broker:
        await audit(broker, "job-cancelled", "a")
        with pytest.raises(BrokerError, match="forbids"):
            await broker.publish(broker.names.audit("operator", "job-cancelled"), b"{}", "forged")
    async with Broker.connected(operator, "test") as broker:
        before = [each async for each in read_audit(broker)]
        assert [(each.role, each.entry.target) for each in before] == [("operator", "fingerprint"), ("publisher", "a")]
        assert len({each.entry.login for each in before}) == 2
        for action, body in (("PURGE", {}), ("MSG.DELETE", {"seq": before[0].number})):
            with pytest.raises(ApiError):
                await broker.api(f"STREAM.{action}.{broker.names.audit_stream}", body)
        assert [each async for each in read_audit(broker)] == before


async def test_what_changes_of_a_tenant_is_in_its_entry(settings: Settings) -> None:
    async with Broker.connected(settings, "test") as broker:
        await apply_topology(broker, settings, [])
        await set_tenants(broker, settings, {"acme": Tenant(), "evil": Tenant()})
        await set_tenants(broker, settings, {"acme": Tenant(), "evil": Tenant(weight=3)})
        await remove_tenant(broker, settings, "evil")
        entries = [(each.entry.target, each.entry.facts) async for each in read_audit(broker)]
    assert entries == [
        ("acme,evil", {"tenant acme": "{}", "tenant evil": "{}"}),
        ("acme,evil", {"tenant evil": '{"weight":3.0}'}),
        ("acme", {"tenant evil": "removed"}),
    ]


async def test_what_a_tenant_asks_for_makes_no_other_entry_go(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Broker.connected(settings, "test") as broker:
        await apply_topology(broker, settings, [])  # as it was made before
        monkeypatch.setattr("pipelines.streams.AUDIT_EACH", 5)
        await set_tenants(broker, settings, {"acme": Tenant(), "evil": Tenant()})
        for tenant in ("main", "acme"):
            await audit(broker, "job-cancelled", "film", tenant=tenant)
        for number in range(12):
            await audit(broker, "job-cancelled", str(number), tenant="evil", asked="by a message")
        found = [(each.entry.action, each.entry.target, each.role) async for each in read_audit(broker)]
    assert found[:3] == [
        ("tenants-listed", "acme,evil", "any"),
        ("job-cancelled", "film", "any"),
        ("job-cancelled", "film", "any"),
    ]
    assert [target for _, target, _ in found[3:]] == ["7", "8", "9", "10", "11"]


async def test_an_old_fleet_without_the_stream_works(
    settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message_store, "ATTEMPTS", 1)
    async with Broker.connected(settings, "test") as broker:
        await apply_topology(broker, settings, [])
        await broker.api(f"STREAM.DELETE.{broker.names.audit_stream}")
        await audit(broker, "rig-forgotten", "rig7")
    assert "run `rigflow topology apply`" in caplog.text


async def test_the_first_command_of_a_fleet_may_make_a_key(settings: Settings) -> None:
    async with Broker.connected(settings, "test") as broker:
        await make_token(broker, "rig7", RigAccess(inbox="_INBOX", prefix="rigflow"), b"", 4e9)
        await make_key(broker, "website", "main", [ApiRole.READ])
        assert [each.entry.action async for each in read_audit(broker)] == ["join-token-made", "api-key-made"]


async def test_a_role_with_the_inbox_of_another_gets_an_error_that_says_so(guarded: Guarded) -> None:
    """The broker would let no answer through: a request would wait for ever."""
    settings = Settings.model_validate(guarded.settings("publisher") | {"inbox": "_INBOX"})
    with pytest.raises(BrokerError, match=r"receive no answers on _INBOX: RIGFLOW_INBOX and the key are of one role"):
        async with Broker.connected(settings, "test"):
            raise AssertionError


async def test_a_cancel_of_a_job_that_was_begun_again_has_an_entry(settings: Settings) -> None:
    async with Broker.connected(settings, "test") as broker:
        await ensure_topology(broker, settings, [])
        ref = JobRef(id="film", tenant="main", pipeline="p", revision="r")
        record = JobRecord(broker, Manifest(job=ref, name="film"))
        assert await record.write(Manifest(job=ref, name="film", state=JobState.DONE))
        held = await JobRecord.read(broker, ref)
        assert held is not None
        again = ref.model_copy(update={"generation": 1})
        assert await record.write(Manifest(job=again, name="film", state=JobState.PUBLISHING))
        assert (await Job(broker, held).cancel()).state is JobState.CANCELLED
        assert [each.entry.target async for each in read_audit(broker)] == ["film"]
