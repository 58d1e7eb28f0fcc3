"""Every request asks for a key, and for one role; a session asks for a cookie that a gateway signed."""

import asyncio
import re
import socket
from collections.abc import Iterator

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from gateway.keys import KeyHolders  # noqa: E402
from pipelines.api_keys import make_key  # noqa: E402
from pipelines.broker import Broker  # noqa: E402
from schemas.api_roles import ApiRole  # noqa: E402
from schemas.settings import Settings  # noqa: E402
from tests.gateway import Gateway  # noqa: E402
from tests.integration.test_gateway import _registered  # noqa: E402

OPEN = re.compile("/(livez|readyz|api/v1/health/.*|api/v1/session|v2/health/.*)")
READ = {("POST", "/api/v1/search"), ("POST", "/v2/repository/index")}
OPERATE = re.compile("/api/v1/(models|models/1|dead-letters/1|dead-letters/1/retry|(workers|rigs)/1/drain)")


def _role(method: str, path: str) -> ApiRole:
    if (method == "GET" and not path.startswith("/api/v1/uploads")) or (method, path) in READ:
        return ApiRole.READ
    return ApiRole.OPERATE if OPERATE.fullmatch(path) else ApiRole.SUBMIT


async def _keys(settings: Settings) -> dict[ApiRole, tuple[str, str]]:
    """Of each role a key that has all others: its id and its text."""
    await _registered(settings)
    async with Broker.connected(settings, "test") as broker:
        made = [(role, await make_key(broker, role.value, "main", {*ApiRole} - {role})) for role in ApiRole]
        return {role: (key.id, text) for role, (key, text) in made}


@pytest.fixture
def keys(settings: Settings) -> dict[ApiRole, tuple[str, str]]:
    return asyncio.run(_keys(settings))


@pytest.fixture
def gateway(settings: Settings, keys: dict[ApiRole, tuple[str, str]]) -> Iterator[Gateway]:
    with Gateway(settings, identify=KeyHolders()) as gateway:
        yield gateway


def test_every_request_needs_a_key_of_its_role(gateway: Gateway, keys: dict[ApiRole, tuple[str, str]]) -> None:
    operations = [
        (method.upper(), re.sub(r"\{\w+\}", "1", path.replace("{action}", "drain")))
        for path, methods in gateway.app.openapi()["paths"].items()
        for method in methods
    ]
    assert len(operations) > 60
    with httpx.Client(base_url=gateway.url, timeout=60) as http:
        for method, path in operations:
            if OPEN.fullmatch(path):
                assert http.request(method, path).status_code not in (401, 403), path
                continue
            assert http.request(method, path).status_code == 401, path
            role = _role(method, path)
            refused = http.request(method, path, headers={"X-API-Key": keys[role][1]})
            assert (refused.status_code, f"the role {role.value}" in refused.text) == (403, True), (method, path)


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=b"])
def test_nothing_is_read_of_a_request_without_a_key(gateway: Gateway, kind: str) -> None:
    paths = gateway.app.openapi()["paths"].items()
    asked = [(method, path) for path, methods in paths for method in methods if method in ("post", "patch")]
    assert len(asked) > 20
    for method, path in asked:
        head = f"{method.upper()} {re.sub(r'{.*?}', '1', path)} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        with socket.create_connection(gateway.listening.getsockname()) as sender:
            sender.sendall(f"{head}Content-Length: 1000000000\r\n\r\n".encode())  # and no body
            status = sender.recv(12)
        assert status == (b"HTTP/1.1 413" if OPEN.fullmatch(path) else b"HTTP/1.1 401"), path


@pytest.mark.parametrize("ends", ["", "x", "1", "9" * 5000, "4102444800", "٣"])
def test_a_session_that_no_gateway_signed_is_none(
    gateway: Gateway, keys: dict[ApiRole, tuple[str, str]], ends: str
) -> None:
    cookie = f"rigflow_session={keys[ApiRole.READ][0]}.{ends}.{'0' * 64}".encode()
    assert httpx.get(f"{gateway.url}/api/v1/jobs", headers={"Cookie": cookie}).status_code == 401


def test_a_request_is_counted_once(gateway: Gateway, settings: Settings) -> None:
    async def slow_key() -> str:
        async with Broker.connected(settings, "test") as broker:
            return (await make_key(broker, "slow", "main", [*ApiRole], rate_per_s=0.001))[1]

    headers = {"X-API-Key": asyncio.run(slow_key())}
    with httpx.Client(base_url=gateway.url, timeout=60, headers=headers) as http:
        while (first := http.get("/api/v1/jobs").status_code) == 401:  # the gateway does not know the key yet
            pass
        assert (first, http.get("/api/v1/jobs").status_code) == (200, 429)
