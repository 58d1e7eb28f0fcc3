"""Callers that mean no good: names that lead here, two lengths of one body, keys that are revoked while in use."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from fastapi import APIRouter  # noqa: E402
from fastapi.responses import StreamingResponse  # noqa: E402

from gateway.callers import anyone  # noqa: E402
from gateway.keys import KeyHolders  # noqa: E402
from pipelines.api_keys import make_key, revoke_key  # noqa: E402
from pipelines.broker import Broker  # noqa: E402
from pipelines.job_records import all_manifests  # noqa: E402
from schemas.api_roles import ApiRole  # noqa: E402
from schemas.errors import StoreError  # noqa: E402
from schemas.settings import MIB, Settings  # noqa: E402
from tests.gateway import Gateway  # noqa: E402
from tests.integration.test_gateway import JOBS, _registered  # noqa: E402


@pytest.fixture
def url(settings: Settings) -> Iterator[str]:
    asyncio.run(_registered(settings))
    with Gateway(settings) as gateway:
        yield gateway.url


def test_an_answer_whose_source_is_deleted_breaks_off_without_a_traceback(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    router = APIRouter()

    @router.get("/archive")
    async def archive() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"first file"
            raise StoreError("film.mp4 is gone from the broker", "publish the job again")

        return StreamingResponse(pieces())

    with Gateway(settings, further=[router]) as gateway:
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{gateway.url}/archive")
        assert httpx.get(f"{gateway.url}/livez").status_code == 200
    assert "the answer to GET /archive breaks off: film.mp4 is gone from the broker" in caplog.text
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 403),
        ("evil.example:8000", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("[::1", 403),
        ("localhost", 200),
        ("localhost:9000", 200),
        ("rig.localhost", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("192.168.1.5", 200),
    ],
)
def test_a_page_whose_name_leads_to_this_machine_may_do_nothing(url: str, host: str, status: int) -> None:
    for path in ("/api/v1/jobs", "/v1/models"):
        assert httpx.get(f"{url}{path}", headers={"Host": host}).status_code == status
    own = {"Host": host, "Origin": f"http://{host}"}
    made = httpx.post(f"{url}/api/v1/uploads?pipeline=simulated", headers=own | {"Tus-Resumable": "1.0.0"})
    assert (made.status_code == 403) == (status == 403)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://[::1", "\xff", "//", ""])
def test_an_origin_that_is_another_or_none_may_do_nothing(url: str, origin: str) -> None:
    for path in ("/api/v1/jobs", "/v1/models", "/v2/models/stats"):
        assert httpx.get(f"{url}{path}", headers={"Origin": origin.encode("latin-1")}).status_code == 403


def test_a_gateway_that_is_for_everyone_has_any_name(settings: Settings) -> None:
    with Gateway(settings, identify=anyone("main", any_host=True)) as gateway:
        assert httpx.get(f"{gateway.url}/api/v1/fleet", headers={"Host": "rig1.example"}).status_code != 403


def test_a_page_of_an_origin_that_is_allowed_sees_all_of_an_answer(settings: Settings) -> None:
    asyncio.run(_registered(settings))
    with Gateway(settings, identify=anyone("main", True), origins=["https://a.example"]) as gateway:
        for origin, allowed in (("https://a.example", True), ("https://evil.example", False)):
            asks = {"Origin": origin, "Access-Control-Request-Method": "PATCH"}
            asks["Access-Control-Request-Headers"] = "authorization,tus-resumable,upload-offset"
            first = httpx.options(f"{gateway.url}/api/v1/uploads/x", headers=asks)
            assert (first.status_code == 200) == allowed
            answer = httpx.get(f"{gateway.url}/livez", headers={"Origin": origin})
            shown = answer.headers.get("access-control-allow-origin"), answer.headers["access-control-expose-headers"]
            assert shown == (origin if allowed else None, "*")


def test_a_body_with_two_lengths_is_refused_and_hides_no_request(url: str) -> None:
    hidden = b"DELETE /api/v1/jobs/known HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = b"POST /api/v1/jobs?pipeline=simulated HTTP/1.1\r\nHost: localhost\r\n"
    both = head + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % (5 + len(hidden)) + hidden
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=10) as caller:
        caller.sendall(both)
        answer = caller.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1") == 1


def test_names_of_any_letters_are_names_and_keys_are_tokens(url: str) -> None:
    with httpx.Client(base_url=url, timeout=30) as http:
        for name in ("文件 ü.mp4", "\u202egnp.exe", "../../etc/passwd", "a" * 300, "a\x00b.mp4", "COM1", " . "):
            made = http.post(JOBS, params={"pipeline": "simulated", "name": name}, content=b"x")
            assert made.status_code in (201, 422), (name, made.text)
            form = http.post(JOBS, data={"pipeline": "simulated"}, files={"file": (name, b"x")})
            assert form.status_code in (201, 422), (name, form.text)
        for key in ("ü", "文", "a b", "../a", "a" * 65, "*", ">", "a.b"):
            refused = http.post(f"{JOBS}?pipeline=simulated", content=b"x", headers={"Idempotency-Key": key.encode()})
            assert refused.status_code == 422, key


async def test_a_key_that_is_revoked_ends_what_was_begun_with_it(settings: Settings) -> None:
    await _registered(settings)
    async with Broker.connected(settings, "test") as broker:
        _, text = await make_key(broker, "website", "main", [ApiRole.SUBMIT, ApiRole.READ])
        _, other = await make_key(broker, "other", "main", [ApiRole.SUBMIT, ApiRole.READ])
        with Gateway(settings, identify=KeyHolders()) as gateway:
            headers = {"Authorization": f"Bearer {text}"}
            async with httpx.AsyncClient(base_url=gateway.url, timeout=60, headers=headers) as http:
                job = (await http.post(f"{JOBS}?pipeline=simulated", content=b"x")).json()["id"]
                begun, revoked = asyncio.Event(), asyncio.Event()

                async def pieces() -> AsyncIterator[bytes]:
                    while not revoked.is_set():
                        yield bytes(MIB // 4)
                        begun.set()
                        await asyncio.sleep(0.05)
                    for _ in range(20):
                        yield bytes(1000)
                        await asyncio.sleep(0.05)

                async def read(path: str) -> float:
                    async with http.stream("GET", path) as events:
                        async for _ in events.aiter_lines():
                            pass
                    return time.monotonic()

                following = [asyncio.create_task(read(path)) for path in (f"{JOBS}/{job}/events", "/api/v1/changes")]
                uploading = asyncio.create_task(http.post(f"{JOBS}?pipeline=simulated", content=pieces()))
                await begun.wait()
                await revoke_key(broker, "website")
                revoked.set()
                async with asyncio.timeout(40):
                    refused = await uploading
                    await asyncio.gather(*following)
                assert refused.status_code == 401
                assert "revoked" in refused.text
                again = {"Authorization": f"Bearer {other}"}
                assert (await http.get(f"{JOBS}/{job}", headers=again)).status_code == 200
            assert len(await all_manifests(broker)) == 1


def test_head_is_the_head_of_get_and_ends_also_where_get_does_not(url: str) -> None:
    with httpx.Client(base_url=url, timeout=60) as http:
        made = http.post(f"{JOBS}?pipeline=simulated", content=b"x", headers={"Idempotency-Key": "waits"})
        assert made.status_code == 201
        paths = ("/", "/livez", JOBS, f"{JOBS}/waits", f"{JOBS}/none", "/v1/models", "/v2/health/ready", "/api/v1/none")
        for path in paths:
            head, get = http.head(path), http.get(path)
            assert (head.status_code, head.content) == (get.status_code, b""), path
            assert head.headers.get("content-type") == get.headers.get("content-type")
            assert abs(int(head.headers["content-length"]) - len(get.content)) < 10, "times in it may be longer"
        for path in (f"{JOBS}/waits/events", "/api/v1/changes"):
            head = http.head(path)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-type"].startswith("text/event-stream")
        assert http.head(f"{JOBS}/waits/cancel").status_code == 405
