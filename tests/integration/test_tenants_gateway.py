"""A key of the gateway and a program of the broker are of one tenant: the same streams, jobs and limits."""

import asyncio
from pathlib import Path

import httpx
import pytest

from gateway.keys import KeyHolders
from pipelines.api_keys import make_key
from pipelines.broker import Broker
from pipelines.registry import builtin_pipeline
from schemas.api_roles import ApiRole
from schemas.errors import UsageError
from schemas.jobs import Priority
from schemas.settings import Settings
from tests.clips import real_clip
from tests.fleet import ONE_WORKER, Fleet, Silent
from tests.gateway import Gateway
from tests.guarded import Guarded
from tests.tenants import Shared
from workers.definitions import find_models
from workers.run import run_jobs

JOBS = "/api/v1/jobs"


@pytest.fixture
def shared(guarded: Guarded, tmp_path: Path) -> Shared:
    """A fleet with the tenants `acme` and `other`."""
    shared = Shared(guarded, tmp_path)
    asyncio.run(shared.begin())
    shared.add("acme")
    shared.add("other")
    return shared


async def key_of(shared: Shared, tenant: str) -> dict[str, str]:
    """The header of a request with a new key of a tenant."""
    async with shared.operating() as operator:
        return {"Authorization": f"Bearer {(await make_key(operator, f'key-{tenant}', tenant, list(ApiRole)))[1]}"}


async def messages(shared: Shared) -> dict[str, int]:
    """Messages of each stream that has any."""
    async with shared.operating() as operator:
        found = (await operator.api("STREAM.LIST"))["streams"]
        return {each["config"]["name"]: each["state"]["messages"] for each in found if each["state"]["messages"]}


def test_a_key_of_a_tenant_sends_and_reads_in_its_streams(shared: Shared, tmp_path: Path) -> None:
    acme, other = (asyncio.run(key_of(shared, tenant)) for tenant in ("acme", "other"))
    with pytest.raises(UsageError, match="the fleet has no tenant 'stranger'"):
        asyncio.run(key_of(shared, "stranger"))
    clip = real_clip("bikes").read_bytes()
    settings = Settings.model_validate(shared.guarded.settings("gateway"))
    with Gateway(settings, identify=KeyHolders()) as door, httpx.Client(base_url=door.url, timeout=60) as http:
        for key, job in ((acme, "film"), (other, "film"), (acme, "stop")):
            made = http.post(f"{JOBS}?pipeline=fingerprint", content=clip, headers=key | {"Idempotency-Key": job})
            assert made.status_code == 201, made.text
        waiting = asyncio.run(messages(shared))
        assert waiting["RIGFLOW_MEDIA_fingerprint@acme"] == 2
        assert waiting["RIGFLOW_MEDIA_fingerprint@other"] == 1
        assert http.post(f"{JOBS}/stop/cancel", headers=acme).json()["state"] == "cancelled"
        fleet = Fleet(ONE_WORKER, tmp_path / "cache", **shared.guarded.settings("worker"))
        with fleet, http.stream("GET", f"{JOBS}/film/events", headers=acme) as events:
            assert any(line == "event: done" for line in events.iter_lines())
        [file] = http.get(f"{JOBS}/film/results", headers=acme).json()["files"]
        assert http.get(f"{JOBS}/film/results/{file['name']}", headers=acme).content
        assert http.get(f"{JOBS}/stop", headers=other).status_code == 404, "jobs of another are not there"
        assert http.get(JOBS, headers=acme).json()["total"] == 2
        assert http.get(JOBS, headers=other).json()["total"] == 1
        assert http.delete(f"{JOBS}/film", headers=acme).is_success
    stored = asyncio.run(messages(shared))
    assert "RIGFLOW_RESULTS" not in stored, "nothing of a tenant is in the shared streams"
    assert "OBJ_rigflow_blobs" not in stored


def test_commands_of_a_tenant_collect_from_its_streams(shared: Shared, tmp_path: Path) -> None:
    """`rigflow run` splits and collects by itself, with the setting `tenant`."""
    given = Settings.model_validate(shared.guarded.settings("operator") | {"tenant": "acme"})
    (tmp_path / "out").mkdir()
    spec = builtin_pipeline("fingerprint")
    with Fleet(ONE_WORKER, tmp_path / "cache", **shared.guarded.settings("worker")):
        clip = real_clip("bikes")
        jobs = run_jobs(given, spec, find_models(spec, None), [clip], tmp_path / "out", Priority.BULK, Silent())
        (outcome,) = asyncio.run(jobs)
    assert outcome.ok, outcome.error
    assert list((tmp_path / "out").iterdir())

    async def used() -> float:
        async with Broker.connected(given, "test") as broker:
            return await broker.quotas.used_s("acme")

    assert asyncio.run(used()) > 0, "what it used counts for its tenant"
