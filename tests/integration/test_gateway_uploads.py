"""Resumable uploads by tus: what is damaged or not compared with its checksum is not kept."""

import asyncio
import base64
import hashlib
import time
from collections.abc import AsyncIterator, Iterator

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from pipelines.broker import Broker  # noqa: E402
from pipelines.client import Client  # noqa: E402
from pipelines.resumable import Uploads  # noqa: E402
from schemas.settings import Settings  # noqa: E402
from tests.clips import real_clip  # noqa: E402
from tests.fleet import ONE_WORKER, Fleet  # noqa: E402
from tests.gateway import Gateway  # noqa: E402
from tests.integration.test_gateway import JOBS, _ended, _registered, client  # noqa: E402


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(ONE_WORKER, tmp_path_factory.mktemp("cache"), pace_ms=0.0) as fleet:
        asyncio.run(_registered(fleet.settings))
        yield fleet


@pytest.fixture(scope="module")
def url(fleet: Fleet) -> Iterator[str]:
    with Gateway(fleet.settings) as gateway:
        yield gateway.url


def test_bytes_with_another_checksum_are_not_kept(fleet: Fleet, url: str) -> None:
    body = real_clip("bikes").read_bytes()
    half = len(body) // 2
    tus = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}

    def summed(piece: bytes, algorithm: str = "sha256") -> dict[str, str]:
        digest = hashlib.new(algorithm, piece).digest()
        return {"Upload-Checksum": f"{algorithm} {base64.b64encode(digest).decode()}"}

    with client(url) as http, Gateway(fleet.settings) as second, client(second.url) as other:
        shown = http.options("/api/v1/uploads").headers
        assert "checksum" in shown["tus-extension"].split(",")
        assert shown["tus-checksum-algorithm"] == "sha1,sha256"
        begin = tus | {"Upload-Length": str(len(body)), "Idempotency-Key": "sums"}
        first = http.post("/api/v1/uploads?pipeline=simulated", headers=begin | summed(b"other"), content=body[:100])
        assert first.status_code == 460, first.text
        path = first.headers["location"]
        for algorithm in ("sha1", "sha256"):  # as proxies may damage them
            wrong = http.patch(path, headers=tus | {"Upload-Offset": "0"} | summed(b"", algorithm), content=body[:half])
            assert (wrong.status_code, wrong.json()["code"]) == (460, "checksum-mismatch")
            assert other.head(path, headers=tus).headers["upload-offset"] == "0"
        for odd in ("md5 AAAA", "sha1", "sha256 !!", "sha1 AAAA"):
            refused = http.patch(path, headers=tus | {"Upload-Offset": "0", "Upload-Checksum": odd}, content=b"x")
            assert refused.status_code == 400, odd
        good = http.patch(path, headers=tus | {"Upload-Offset": "0"} | summed(body[:half], "sha1"), content=body[:half])
        assert (good.status_code, good.headers["upload-offset"]) == (204, str(half))

        def cut_off() -> Iterator[bytes]:
            yield body[half : half + 5000]
            raise ConnectionError

        with pytest.raises(ConnectionError):
            http.patch(path, headers=tus | {"Upload-Offset": str(half)} | summed(body[half:]), content=cut_off())
        while other.head(path, headers=tus).headers["upload-offset"] != str(half):
            time.sleep(0.05)
        asyncio.run(_with_unchecked_bytes(fleet.settings, half))
        assert other.head(path, headers=tus).headers["upload-offset"] == str(half)
        rest = other.patch(path, headers=tus | {"Upload-Offset": str(half)} | summed(body[half:]), content=body[half:])
        assert (rest.status_code, rest.headers["rigflow-job"]) == (204, "sums")
        assert _ended(http, "sums")["state"] == "done"
        plain = http.post(f"{JOBS}?pipeline=simulated", content=body).json()["id"]
        assert _ended(http, plain)["digest"] == _ended(http, "sums")["digest"]


async def _with_unchecked_bytes(settings: Settings, at: int) -> None:
    """What a gateway leaves that is killed between bytes and the comparison with their checksum."""
    async with Broker.connected(settings, "test") as broker:
        uploads = Uploads(Client(broker))
        upload = await uploads.find("sums")

        async def piece() -> AsyncIterator[bytes]:
            yield b"damaged"

        came = await uploads.append(upload, await uploads.arrived(upload), piece(), 1.0)
        assert came.size == at + 7
        body = upload.model_copy(update={"unchecked": at}).model_dump_json().encode()
        await broker.put(broker.names.jobs, "upload.main.sums", body)


def test_what_clients_of_tus_send_by_themselves_is_taken_or_refused_in_words(url: str) -> None:
    def metadata(**fields: str) -> dict[str, str]:
        pairs = (f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in fields.items())
        return {"Upload-Metadata": ",".join(pairs)}

    path, tus = "/api/v1/uploads?pipeline=simulated", {"Tus-Resumable": "1.0.0", "Upload-Length": "100"}
    uppy = metadata(relativePath="null", name="ü.mp4", type="video/mp4", filetype="video/mp4", filename="ü.mp4")
    with client(url) as http:
        made = http.post(path, headers=tus | uppy | {"Idempotency-Key": "uppy"})
        assert made.status_code == 201, made.text
        for further in ("pipeline=other", "pipeline=simulated&set=infer.max_batch=2"):
            other = http.post(f"/api/v1/uploads?{further}", headers=tus | {"Idempotency-Key": "uppy"})
            assert other.status_code in (404, 409), other.text
        assert "of other options" in other.json()["detail"]
        assert http.post(path, headers=tus | {"Idempotency-Key": "uppy"}).headers["location"].endswith("/uppy")
        piece = http.post(path, headers=tus | {"Upload-Concat": "partial"})
        assert (piece.status_code, piece.json()["hint"]) == (400, "send the media as one upload")
        assert http.post(path, headers=tus | metadata(odd="x")).json()["detail"] == "there is no parameter `odd`"
