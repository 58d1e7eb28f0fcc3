"""The operator's file of tenants: what is written is read again, and what cannot be is refused in one line."""

import asyncio
import errno
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.files import atomic_write
from pipelines.accounts import write_tenants
from pipelines.registry import builtin_pipeline
from pipelines.roles import configuration
from pipelines.streams import desired
from schemas.declared import is_token
from schemas.errors import OutputError, UsageError
from schemas.jobs import Priority
from schemas.settings import Settings
from schemas.subjects import Names
from schemas.tenants import BrokerFiles, Tenant, TenantsFile, parse_tenants, written

USER = "U" + "A" * 55
NAME = st.text("aB9_-", min_size=1, max_size=9).map("t".__add__)
KEY = st.integers(0, 999).map(lambda number: f"U{number:055}")
TENANTS = st.dictionaries(NAME, st.builds(Tenant, weight=st.floats(0.01, 1000), jobs=st.integers(1, 9)), max_size=3)
LIMITS = ("jobs", "queued_bytes", "storage_bytes", "connections", "device_s_a_day")
WRONG_NAMES = ("", "*", ">", "a.b", "a b", "a*", "$SYS", "a@b", "é", "租户", "a\n", "a" * 200, '"', "a/b")
PATH = st.text("ab \"\\'#é[\n\t\x1b\x7f", max_size=9)


@settings(max_examples=25)
@given(tenants=TENANTS, path=PATH, key=KEY)
def test_a_file_that_is_written_is_read_again(tenants: dict[str, Tenant], path: str, key: str) -> None:
    first = next(iter(tenants), "")
    if first:
        tenants[first] = tenants[first].model_copy(update={"users": (key,)})
    file = TenantsFile(
        broker=BrokerFiles(accounts=path, pid_file="/run/nats pid"), tenant=tenants, roles={"worker": key}
    )
    assert parse_tenants(written(file), "x") == file


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[tenant.main]", "main is the tenant of all that name none"),
        ("[tenant.a]\nweight = 0", "weight"),
        ("[tenant.a]\nweight = nan", "weight"),
        *((f"[tenant.a]\nweight = {weight}", "weight") for weight in ("-1", "inf", "-inf", "1e9", "1e-9", "'a'")),
        *((f"[tenant.a]\n{name} = {value}", name) for name in LIMITS for value in ("-1", "nan", "1e300", "'a'")),
        ("[tenant.a]\nusers = ['SUAB']", "public key"),
        *((f"[tenant.{json.dumps(name)}]", "letters, digits") for name in WRONG_NAMES),
        (f"[tenant.a]\nusers = ['{USER}']\n[tenant.b]\nusers = ['{USER}']", "a and b have the same user"),
        ("[tenant.a]\nshare = 1", "share"),
        ("tenant = 1", "tenant"),
        ("[", "not TOML"),
    ],
)
def test_a_file_that_cannot_be_is_refused_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_tenants(text, "tenants.toml")
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("room", [0, 1])  # files that fit
def test_on_a_full_disk_both_files_stay_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool, room: int
) -> None:
    """Also where the accounts were written already: to bring the old ones back takes no room."""
    written_now = list[Path]()

    def full(path: Path, body: bytes) -> None:
        if len(written_now) == room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written_now.append(path)
        atomic_write(path, body)

    accounts, file = tmp_path / "accounts.conf", tmp_path / "tenants.toml"
    before = {accounts: b"# accounts", file: b"# tenants"} if there else {}
    for path, body in before.items():
        path.write_bytes(body)
    monkeypatch.setattr("pipelines.accounts.atomic_write", full)
    with pytest.raises(OutputError, match="No space left on device: make room on the disk"):
        asyncio.run(write_tenants(file, TenantsFile(tenant={"acme": Tenant()}), Settings()))
    assert written_now == [accounts][:room]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_without_tenants_the_roles_are_those_of_a_fleet_without() -> None:
    assert configuration(Names(), "main") == configuration(Names(), "main", TenantsFile())


@settings(max_examples=25)
@given(names=st.sets(NAME, min_size=2, max_size=4), pipeline=NAME)
def test_no_two_tenants_share_a_stream_or_a_subject(names: set[str], pipeline: str) -> None:
    fleet = Names(tenants=frozenset(names))
    own: list[str] = []
    for tenant in (*names, "main"):
        own += [fleet.results_of(tenant), fleet.cancel_of(tenant), fleet.media_stream(pipeline, tenant)]
        own += [fleet.blobs_of(tenant), fleet.work(pipeline, "decode", Priority.BULK, tenant)]
    assert len(set(own)) == len(own)
    for tenant in names:
        for subject in (fleet.media(tenant, pipeline), fleet.work(pipeline, "s", Priority.BULK, tenant)):
            assert fleet.listed_tenant(subject) == tenant
        assert fleet.uploads_of(tenant) != fleet.blobs_of(tenant), "programs may not write what workers trust"
        assert is_token(fleet.consumer(Priority.BULK, tenant))


def test_what_drops_its_oldest_is_of_one_tenant_or_nothing_that_tenants_can_fill() -> None:
    """A stream that refuses is a limit of the tenant; of one that drops, a tenant must not reach what others have."""
    names = Names(tenants=frozenset({"acme", "evil"}))
    tenants = {name: Tenant() for name in names.tenants}
    plans = desired(names, Settings(), [builtin_pipeline("fingerprint")], tenants)
    dropping = {
        plan.name for plan in plans if plan.config["discard"] == "old" and not plan.name.endswith(tuple(names.tenants))
    }
    assert dropping == {
        "KV_rigflow_jobs",  # of main
        "RIGFLOW_DEAD",  # of main
        "KV_rigflow_rigs",  # written by workers alone, an entry for each process
        "KV_rigflow_last_seen",  # the same
        "KV_rigflow_attempts",  # the same, and a day of attempts that are repeated: some hundred bytes each
        "RIGFLOW_AUDIT",  # keeps the newest of each role, action and tenant
        "RIGFLOW_USAGE",  # a million jobs: docs/tenants.md says that it is shared
    }
    assert {f"KV_{names.jobs_of(tenant)}" for tenant in tenants} <= {plan.name for plan in plans}
