"""Two tenants at one gateway: no request of one shows, changes or counts anything of the other."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from gateway.keys import KeyHolders  # noqa: E402
from pipelines.api_keys import make_key  # noqa: E402
from pipelines.broker import Broker  # noqa: E402
from pipelines.tenant_admin import remove_tenant, set_tenants  # noqa: E402
from schemas.api_roles import ApiRole  # noqa: E402
from schemas.errors import UsageError  # noqa: E402
from schemas.settings import MIB, Settings  # noqa: E402
from schemas.tenants import Tenant  # noqa: E402
from tests.clips import real_clip  # noqa: E402
from tests.fleet import ONE_WORKER, Fleet  # noqa: E402
from tests.gateway import Gateway  # noqa: E402
from tests.integration.test_gateway import JOBS, _registered, events_of  # noqa: E402
from tests.rig import eventually  # noqa: E402

UPLOADS, LETTERS = "/api/v1/uploads", "/api/v1/dead-letters"
TUS = {"Tus-Resumable": "1.0.0"}
IDS = {"job": "film", "upload": "half"}  # of the one tenant, which the other one has guessed
HIDDEN = ("hiddenjob", "hiddenname", "hiddentext")  # of the one tenant, which no request of the other one says
ENDLESS = ("/api/v1/changes",)  # looked at by a test of its own


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(ONE_WORKER, tmp_path_factory.mktemp("cache"), pace_ms=0.0) as fleet:
        asyncio.run(_registered(fleet.settings))
        yield fleet


@pytest.fixture(scope="module")
def both(fleet: Fleet) -> Iterator[tuple[Any, Any]]:
    """Clients of one gateway with all roles, of two tenants."""
    keys = asyncio.run(_keys(fleet.settings, "acme", "evil"))
    with Gateway(fleet.settings, identify=KeyHolders()) as door:
        one, other = (
            httpx.Client(base_url=door.url, timeout=60, headers={"Authorization": f"Bearer {key}"}) for key in keys
        )
        with one, other:
            yield one, other


async def _keys(settings: Settings, *tenants: str) -> list[str]:
    async with Broker.connected(settings, "test") as broker:
        return [(await make_key(broker, f"key-{tenant}", tenant, list(ApiRole)))[1] for tenant in tenants]


def _ended(http: Any, job: str) -> dict[str, Any]:
    with http.stream("GET", f"{JOBS}/{job}/events") as stream:
        return events_of(stream.iter_lines())[-1][2]


def _work(http: Any) -> None:
    """A job that is done, one that failed, and half an upload."""
    clip = real_clip("bikes").read_bytes()
    for job, name, body in (("film", "clip", clip), ("hiddenjob", "hiddenname", b"hiddentext")):
        key = {"Idempotency-Key": job}
        made = http.post(f"{JOBS}?pipeline=simulated&name={name}.mp4", content=body, headers=key)
        assert made.status_code == 201, made.text
        assert _ended(http, job)["state"] == ("done" if job == "film" else "failed")
    begin = TUS | {"Upload-Length": str(2 * MIB), "Idempotency-Key": "half"}
    assert http.post(f"{UPLOADS}?pipeline=simulated&name=hiddenname.mp4", headers=begin).status_code == 201
    piece = TUS | {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
    assert http.patch(f"{UPLOADS}/half", headers=piece, content=bytes(MIB)).status_code == 204


def _state(http: Any) -> list[Any]:
    """All that a tenant has."""
    jobs = http.get(JOBS).json()
    files = [http.get(f"{JOBS}/{job['id']}/results").json() for job in jobs["jobs"]]
    contents = [http.get(file["url"]).content for page in files for file in page["files"]]
    upload = dict(http.head(f"{UPLOADS}/half", headers=TUS).headers)
    return [jobs, files, contents, http.get(LETTERS).json(), upload["upload-offset"]]


def _asked(http: Any, path: str, method: str, ids: dict[str, str]) -> Any:
    """The answer to a request of the description with these ids; what is required besides is valid."""
    query, headers, content = "", dict(TUS), b""
    if method == "patch":
        headers |= {"Content-Type": "application/offset+octet-stream", "Upload-Offset": str(MIB)}
        content = bytes(MIB)
    if path == UPLOADS:
        query, headers = "?pipeline=simulated", headers | {"Upload-Length": "9", "Idempotency-Key": "evil-upload"}
    return http.request(method.upper(), path.format_map(ids) + query, headers=headers, content=content)


def test_no_request_of_a_tenant_shows_or_changes_anything_of_another(both: tuple[Any, Any]) -> None:
    acme, evil = both
    _work(acme)
    before = _state(acme)
    [letter] = [each for each in before[3]["letters"] if each["job"] == "hiddenjob"]
    [file] = before[1][[job["id"] for job in before[0]["jobs"]].index("film")]["files"]
    ids = IDS | {"number": str(letter["number"]), "name": file["name"], "action": "cordon"}
    ids |= {"pipeline": "simulated", "model": "simulated", "version": "1"}
    paths = evil.get("/api/v1/openapi.json").json()["paths"]
    asked = 0
    for path, methods in paths.items():
        if path in ENDLESS:
            continue
        for method in methods:
            found = _asked(evil, path, method, ids)
            asked += 1
            assert not [mark for mark in HIDDEN if mark in found.text or mark in str(found.headers)], (method, path)
            if any(f"{{{name}}}" in path for name in ("job", "upload", "number")):
                assert found.status_code == 404, (method, path, found.text)
                assert "film" not in found.text.replace("no job film", ""), path
    assert asked > 50
    for part in ("?at=", f"?at={file['url'].rpartition('=')[2]}"):
        assert evil.get(f"{JOBS}/film/results/{file['name']}{part}").status_code in (404, 422)
    assert evil.get(LETTERS, params={"job": "hiddenjob"}).json()["letters"] == []
    assert evil.get(f"{LETTERS}/{ids['number']}").json() | {"detail": ""} == (
        evil.get(f"{LETTERS}/{1 << 40}").json() | {"detail": ""}
    ), "a number of another tenant is as one that is not there"
    assert evil.get(JOBS, params={"name": "hidden"}).json()["total"] == 0
    assert _state(acme) == before


def test_one_id_of_two_tenants_is_two_jobs(both: tuple[Any, Any]) -> None:
    acme, evil = both
    headers = {"Idempotency-Key": "same"}
    bodies = [real_clip("bikes").read_bytes(), b"other media"]
    for http, body in zip(both, bodies, strict=True):
        made = http.post(f"{JOBS}?pipeline=simulated", content=body, headers=headers)
        assert made.status_code == 201, made.text
    assert [_ended(http, "same")["state"] for http in both] == ["done", "failed"]
    assert evil.delete(f"{JOBS}/same").status_code == 204
    assert acme.get(f"{JOBS}/same").json()["state"] == "done"
    assert len(acme.get(f"{JOBS}/same/results").json()["files"]) == 1
    with evil.stream("GET", "/api/v1/changes") as changes:
        lines = changes.iter_lines()
        assert next(lines) == "event: jobs"
        before = json.loads(next(lines).removeprefix("data: "))
        assert acme.post(f"{JOBS}?pipeline=simulated", content=b"x", headers={"Idempotency-Key": "new"}).is_success
        assert _ended(acme, "new")["state"] == "failed"
        assert evil.post(f"{JOBS}?pipeline=simulated", content=b"y", headers={"Idempotency-Key": "own"}).is_success
        assert before == {}
        assert next(each for each in lines if each) == "event: jobs"
    assert acme.get(f"{JOBS}/own").status_code == 404


def test_a_key_of_a_removed_tenant_is_refused_also_where_no_tenant_is_left(tmp_path: Path) -> None:
    """A key of a tenant that never was in a list goes on working, and that of a removed one works when it is added."""
    with Fleet((), tmp_path) as fleet:
        settings = fleet.settings
        asyncio.run(_registered(settings))
        acme, plain = ({"X-API-Key": key} for key in asyncio.run(_keys(settings, "acme", "plain")))
        asyncio.run(_tenants(settings, Tenant()))
        with Gateway(settings, identify=KeyHolders()) as door, httpx.Client(base_url=door.url, timeout=60) as http:

            def status(key: dict[str, str]) -> int:
                return int(http.get(JOBS, headers=key).status_code)

            assert (status(acme), status(plain)) == (200, 403), "there is a list, and one of them is not in it"
            login = {"key": acme["X-API-Key"]}
            assert http.post("/api/v1/session", json=login).status_code == 201
            assert status({}) == 200
            asyncio.run(_tenants(settings))
            eventually(lambda: (status(acme), status(plain)) == (403, 200))
            refused = http.post(f"{JOBS}?pipeline=simulated", content=b"x", headers=acme)
            assert refused.status_code == 403, refused.text
            assert refused.json()["detail"] == (
                "API key key-acme is of tenant acme, which is not, or no longer, a tenant of this fleet"
            )
            assert (status({}), http.post("/api/v1/session", json=login).status_code) == (403, 403)
            assert http.post(f"{JOBS}?pipeline=simulated", content=b"x", headers=plain).status_code == 201
            with pytest.raises(UsageError, match="the fleet has no tenant 'acme'"):
                asyncio.run(_keys(settings, "acme"))
            for job in http.get(JOBS, headers=plain).json()["jobs"]:
                assert http.delete(f"{JOBS}/{job['id']}", headers=plain).status_code == 204
            asyncio.run(_tenants(settings, Tenant(weight=2)))
            eventually(lambda: (status(acme), status(plain)) == (200, 403))


async def _tenants(settings: Settings, acme: Tenant | None = None) -> None:
    """Have `acme` as the only tenant, or remove it."""
    async with Broker.connected(settings, "test") as broker:
        if acme is None:
            assert await remove_tenant(broker, settings, "acme") == []
        else:
            assert await set_tenants(broker, settings, {"acme": acme}) == []
