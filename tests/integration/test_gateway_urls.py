"""Jobs by URL: only from hosts that the setting allows, over redirects and names too, and as the fleet has space."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from gateway import fetching  # noqa: E402
from gateway.fetching import is_public  # noqa: E402
from gateway.problems import HttpError  # noqa: E402
from pipelines.broker import Broker  # noqa: E402
from schemas.errors import UsageError  # noqa: E402
from schemas.settings import MIB, Settings, load_settings  # noqa: E402
from tests.clips import real_clip  # noqa: E402
from tests.fleet import ONE_WORKER, Fleet  # noqa: E402
from tests.gateway import Gateway  # noqa: E402
from tests.integration.test_gateway import JOBS, _ended, _registered, client  # noqa: E402


class Host(ThreadingHTTPServer):
    """A web server: the paths say what it answers. `asked` are the paths, `sent` the bytes that it could send."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.sent = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients go away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Host

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        body = real_clip("bikes").read_bytes()
        match self.path.partition("?")[0].strip("/").split("/"):
            case ["film.mp4"]:
                self._head(200, len(body))
                self.wfile.write(body)
            case ["chunked.mp4"]:
                self._head(200, None, ("Transfer-Encoding", "chunked"))
                for at in range(0, len(body), 10_000):
                    piece = body[at : at + 10_000]
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")
            case ["to", *_]:
                self._head(302, 0, ("Location", self.path.partition("?")[2]))
            case ["loop"]:
                self._head(301, 0, ("Location", "/loop"))
            case ["short"]:
                self._head(200, len(body) + 1)
                self.wfile.write(body)
                self.close_connection = True
            case ["packed"]:
                self._head(200, len(body), ("Content-Encoding", "gzip"))
                self.wfile.write(body)
            case ["slow"]:
                self._head(200, 1 << 40)
                self.wfile.write(b"x")
                time.sleep(5)
            case ["stuck"]:
                self._head(200, 1 << 10)
                self.wfile.write(b"x")
                time.sleep(5)
            case ["endless"]:
                self._head(200, None, ("Connection", "close"))
                while True:
                    self.wfile.write(bytes(1 << 16))
                    self.server.sent += 1 << 16
            case ["nonsense"]:
                self.wfile.write(b"this is no HTTP\r\n\r\n")
                self.close_connection = True
            case _:
                self._head(404, 0)

    def _head(self, status: int, length: int | None, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in [*([] if length is None else [("Content-Length", str(length))]), *headers]:
            self.send_header(name, value)
        self.end_headers()


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Host() as host:
        yield host
        host.shutdown()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(ONE_WORKER, tmp_path_factory.mktemp("cache"), pace_ms=0.0) as fleet:
        asyncio.run(_registered(fleet.settings))
        yield fleet


@pytest.fixture(scope="module")
def http(fleet: Fleet, host: Host) -> Iterator[Any]:
    allowed = ("*", "*.a.example", host.place)
    with (
        Gateway(fleet.settings.model_copy(update={"url_hosts": allowed})) as gateway,
        client(gateway.url) as http,
    ):
        yield http


def of_url(http: Any, url: str, **headers: str) -> Any:
    return http.post(JOBS, params={"pipeline": "simulated", "url": url}, headers=headers)


def test_a_media_is_fetched_and_is_the_job_that_its_bytes_are(http: Any, host: Host) -> None:
    plain = http.post(f"{JOBS}?pipeline=simulated", content=real_clip("bikes").read_bytes()).json()["id"]
    digest = _ended(http, plain)["digest"]
    paths = ("film.mp4", "chunked.mp4", "to/x?/film.mp4", f"to/x?http://{host.place}/film.mp4")
    for number, path in enumerate(paths):
        made = of_url(http, f"http://{host.place}/{path}", **{"Idempotency-Key": f"url-{number}"})
        assert made.status_code == 201, made.text
        assert _ended(http, made.json()["id"])["digest"] == digest
    assert http.get(f"{JOBS}/url-0").json()["name"] == "film.mp4"
    again = of_url(http, f"http://{host.place}/film.mp4", **{"Idempotency-Key": "url-0"})
    assert (again.status_code, again.json()["id"]) == (200, "url-0")
    form = {"pipeline": (None, "simulated"), "url": (None, f"http://{host.place}/film.mp4")}
    assert http.post(JOBS, files=form).status_code == 201


@pytest.mark.parametrize(
    ("url", "status", "words"),
    [
        ("http://{host}/missing", 422, "answers 404"),
        ("http://{host}/loop", 422, "redirects"),
        ("http://{host}/short", 422, "broke off"),
        ("http://{host}/packed", 422, "compressed"),
        ("http://{host}/nonsense", 422, "no HTTP"),
        ("http://{host}/to?http://localhost:1/", 403, "localhost:1"),
        ("http://{host}/to?http://localhost/", 403, "not public"),
        ("http://{host}/to?file:///etc/passwd", 422, "none of http"),
        ("http://{host}/to?http://[::1", 422, "no URL"),
        ("https://{host}/film.mp4", 422, "{host}"),
        ("http://127.0.0.1/film.mp4", 403, "not public"),
        ("http://127.0.0.1:22/", 403, "not fetched"),
        ("http://localhost./", 403, "not public"),
        ("http://2130706433/", 403, "not public"),
        ("http://[::1]/", 403, "not public"),
        ("http://[::ffff:127.0.0.1]/", 403, "not public"),
        ("http://169.254.169.254/latest/meta-data", 403, "not public"),
        ("http://user:secret@{host}/film.mp4", 422, "has a user or a password"),
        ("ftp://{host}/film.mp4", 422, "none of http"),
        ("http://{host}/a b", 422, "characters"),
        ("http://nosuch.invalid/", 422, "no address"),
        ("http:///film.mp4", 422, "with a host"),
        ("http://[::1", 422, "cannot be read"),
    ],
)
def test_what_is_not_allowed_or_no_media_is_one_line(http: Any, host: Host, url: str, status: int, words: str) -> None:
    found = of_url(http, url.format(host=host.place))
    assert found.status_code == status, found.text
    assert words.format(host=host.place) in f"{found.json()['detail']}: {found.json()['hint']}"
    assert "secret" not in found.text


def test_a_url_stands_alone_and_is_no_upload(http: Any, host: Host, fleet: Fleet) -> None:
    url = f"http://{host.place}/film.mp4"
    assert http.post(JOBS, params={"pipeline": "simulated", "url": url}, content=b"x").status_code == 422
    files = {"pipeline": (None, "simulated"), "url": (None, url), "file": ("x", b"x")}
    assert http.post(JOBS, files=files).status_code == 422
    tus = {"Tus-Resumable": "1.0.0", "Upload-Length": "1"}
    assert http.post("/api/v1/uploads", params={"pipeline": "simulated", "url": url}, headers=tus).status_code == 422
    with Gateway(fleet.settings) as closed, client(closed.url) as other:
        refused = of_url(other, url)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


async def test_a_name_is_resolved_once_and_each_of_its_addresses_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[list[str]] = []
    connected: list[str] = []

    def resolved(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 80)) for each in answers.pop(0)]

    async def connect(address: str, *_: Any, **__: Any) -> Any:
        connected.append(address)
        raise OSError

    async def tried(url: str, *found: list[str]) -> str:
        answers[:] = found
        with pytest.raises(HttpError) as raised:
            async with fetching.fetched(url, ["*.a.example"]):
                pass
        return str(raised.value)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    monkeypatch.setattr(asyncio, "open_connection", connect)
    # another address a moment later is not asked for
    assert "cannot be reached" in await tried("http://x.a.example/", ["93.184.215.14"], ["127.0.0.1"])
    assert (connected, len(answers)) == (["93.184.215.14"], 1)
    assert "not public" in await tried("http://x.a.example/", ["93.184.215.14", "10.0.0.1"])
    assert "not fetched" in await tried("http://a.example/", ["93.184.215.14"])
    assert "not fetched" in await tried("http://xa.example/", ["93.184.215.14"])
    assert "not fetched" in await tried("http://x.a.example:8080/", ["93.184.215.14"])
    assert len(connected) == 1


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2001:4860:4860::8888", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("::ffff:10.0.0.1", False),
        ("2002:7f00:1::", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::808:808", True),
        ("no address", False),
    ],
)
def test_addresses_of_the_public_internet(address: str, public: bool) -> None:
    assert is_public(address) is public


async def test_what_never_ends_or_never_comes_is_reported(
    settings: Settings, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.uploads.PATIENCE_S", 0.5)
    monkeypatch.setattr(fetching, "IDLE_S", 0.5)
    await _registered(settings)
    allowed = settings.model_copy(update={"url_hosts": (host.place,)})
    with Gateway(allowed) as gateway, client(gateway.url) as http:
        endless = await asyncio.to_thread(of_url, http, f"http://{host.place}/endless")
        assert (endless.status_code, endless.json()["code"]) == (413, "never-fits"), endless.text
        assert host.sent < settings.results_bytes + 64 * MIB
        too_large = await asyncio.to_thread(of_url, http, f"http://{host.place}/slow")
        assert too_large.status_code == 413, too_large.text
        slow = await asyncio.to_thread(of_url, http, f"http://{host.place}/stuck")
        assert (slow.status_code, "in time" in slow.text) == (422, True), slow.text
        async with Broker.connected(settings, "test") as broker:
            while (await broker.api(f"STREAM.INFO.OBJ_{broker.names.blobs}"))["state"]["messages"]:
                await asyncio.sleep(0.05)


def test_the_setting_takes_hosts_alone() -> None:
    settings = load_settings({}, {"RIGFLOW_URL_HOSTS": "A.example, *.b.example,127.0.0.1:80 *"})
    assert settings.url_hosts == ("a.example", "*.b.example", "127.0.0.1:80", "*")
    for wrong in ("http://a.example", "a.example/x", "a*.example"):
        with pytest.raises(UsageError, match="url_hosts"):
            load_settings({}, {"RIGFLOW_URL_HOSTS": wrong})
