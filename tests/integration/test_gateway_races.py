"""Requests that meet: one id at two gateways, two senders of one upload, a gateway that is killed, ends of one job."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from pipelines.broker import Broker  # noqa: E402
from pipelines.job_records import find_manifest  # noqa: E402
from schemas.settings import MIB  # noqa: E402
from tests.clips import Clip, make_clip, real_clip  # noqa: E402
from tests.faults.test_gateway_kills import Killed  # noqa: E402
from tests.fleet import ONE_WORKER, Fleet  # noqa: E402
from tests.gateway import Gateway  # noqa: E402
from tests.integration.test_gateway import JOBS, _registered, events_of  # noqa: E402

UPLOADS = "/api/v1/uploads"
TUS = {"Tus-Resumable": "1.0.0"}
PIECE = TUS | {"Content-Type": "application/offset+octet-stream"}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(ONE_WORKER, tmp_path_factory.mktemp("cache"), pace_ms=0.0) as fleet:
        asyncio.run(_registered(fleet.settings))
        yield fleet


@pytest.fixture(scope="module")
def urls(fleet: Fleet) -> Iterator[tuple[str, str]]:
    with Gateway(fleet.settings) as one, Gateway(fleet.settings) as other:
        yield one.url, other.url


@asynccontextmanager
async def clients(urls: tuple[str, str]) -> AsyncIterator[tuple[Any, Any]]:
    """Clients of two gateways of one fleet."""
    one, other = (httpx.AsyncClient(base_url=url, timeout=60) for url in urls)
    async with one, other:
        yield one, other


async def _done(http: Any, job: str) -> dict[str, Any]:
    async with http.stream("GET", f"{JOBS}/{job}/events") as stream:
        kind, _, data = events_of([line async for line in stream.aiter_lines()])[-1]
    assert kind == "done"
    return data  # type: ignore[no-any-return]


@pytest.mark.parametrize("size", [None, 2 * MIB], ids=["message", "store"])
async def test_one_key_at_two_gateways_is_one_job_of_one_of_the_media(
    urls: tuple[str, str], tmp_path: Path, size: int | None
) -> None:
    async with clients(urls) as both:
        media = [real_clip("bikes").read_bytes(), make_clip(tmp_path, Clip(frames=30)).read_bytes()]
        media = [each + bytes(max(0, (size or 0) - len(each))) for each in media]
        key = {"Idempotency-Key": f"race-{size}"}

        async def send(number: int) -> tuple[int, int]:
            found = await both[number // 2 % 2].post(
                f"{JOBS}?pipeline=simulated", content=media[number % 2], headers=key
            )
            return number % 2, found.status_code

        answers = Counter(await asyncio.gather(*(send(number) for number in range(12))))
        taken = {number for number, status in answers if status in (200, 201)}
        assert len(taken) == 1, answers
        assert {status for number, status in answers if number not in taken} == {409}, answers
        ended = await _done(both[0], f"race-{size}")
        alone = (await both[1].post(f"{JOBS}?pipeline=simulated", content=media[taken.pop()])).json()["id"]
        again = await _done(both[1], alone)
        assert ended["digest"] == again["digest"], (ended, again)


async def test_a_key_stays_that_of_its_media_after_the_job_failed(fleet: Fleet, urls: tuple[str, str]) -> None:
    async with clients(urls) as both, Broker.connected(fleet.settings, "test") as broker:

        async def send(body: bytes) -> int:
            found = await both[0].post(
                f"{JOBS}?pipeline=simulated", content=body, headers={"Idempotency-Key": "failed"}
            )
            return int(found.status_code)

        async def failed(times: int) -> None:
            """Wait until it failed so often; each of them counts."""
            names = broker.names
            while True:
                used = [each async for each in broker.read(names.usage_stream, names.usage("main", *"****"))]
                shown = (await both[1].get(f"{JOBS}/failed")).json()
                runs = [each for each in used if each.subject.rpartition(".")[2].startswith("failed-")]
                if len(runs) == times and shown["state"] == "failed":
                    return
                await asyncio.sleep(0.05)

        assert await send(b"no media") == 201
        await failed(1)
        assert await send(b"other media") == 409
        assert await send(b"no media") == 201, "nothing of it could be read, so it starts again"
        await failed(2)
        assert (await both[1].delete(f"{JOBS}/failed")).status_code == 204
        assert await send(b"other media") == 201
        await failed(3)


async def test_bytes_of_two_senders_are_never_mixed(fleet: Fleet, urls: tuple[str, str]) -> None:
    async with clients(urls) as both:
        size = 4 * MIB
        for turn in range(4):
            begin = TUS | {"Upload-Length": str(size + 1), "Idempotency-Key": f"two-{turn}"}
            made = await both[0].post(f"{UPLOADS}?pipeline=simulated", headers=begin)
            path = made.headers["location"]

            async def send(number: int, path: str = path) -> int:
                async def pieces() -> AsyncIterator[bytes]:
                    for _ in range(16):
                        yield bytes([number]) * (size // 16)
                        await asyncio.sleep(0.002)

                found = await both[number].patch(path, headers=PIECE | {"Upload-Offset": "0"}, content=pieces())
                return int(found.status_code)

            statuses = await asyncio.gather(send(0), send(1))
            assert set(statuses) <= {204, 409}, statuses
            there = int((await both[1].head(path, headers=TUS)).headers["upload-offset"])
            async with Broker.connected(fleet.settings, "test") as broker:
                chunks = broker.read(f"OBJ_{broker.names.blobs}", f"$O.{broker.names.blobs}.C.>")
                stored = [chunk.body async for chunk in chunks]
            assert sum(map(len, stored)) == there > 0
            assert len({byte for chunk in stored for byte in set(chunk)}) == 1
            assert statuses.count(204) == (there == size)
            assert (await both[0].delete(path, headers=TUS)).status_code == 204


@pytest.mark.slow
def test_an_upload_goes_on_at_another_gateway_when_its_own_is_killed(fleet: Fleet, urls: tuple[str, str]) -> None:
    body = real_clip("bikes").read_bytes() + bytes(5 * MIB)
    begin = TUS | {"Upload-Length": str(len(body)), "Idempotency-Key": "killed"}
    killed = Killed(fleet.settings.nats)
    path = f"http://127.0.0.1:{killed.port}{UPLOADS}/killed"
    with httpx.Client(base_url=urls[0], timeout=60) as http:
        assert http.post(f"{UPLOADS}?pipeline=simulated", headers=begin).status_code == 201

        def there() -> int:
            return int(http.head(f"{UPLOADS}/killed", headers=TUS).headers["upload-offset"])

        def pieces() -> Iterator[bytes]:
            yield body[: 3 * MIB]
            while not there():
                pass
            killed.kill()
            yield body[3 * MIB :]

        with pytest.raises(httpx.TransportError):
            httpx.patch(path, headers=PIECE | {"Upload-Offset": "0"}, content=pieces(), timeout=60)
        at = there()
        assert 0 < at <= 3 * MIB
        rest = http.patch(f"{UPLOADS}/killed", headers=PIECE | {"Upload-Offset": str(at)}, content=body[at:])
        assert rest.status_code == 204
        with http.stream("GET", f"{JOBS}/killed/events") as stream:
            assert events_of(stream.iter_lines())[-1][2]["state"] == "done"
        assert http.get(f"{UPLOADS}/killed").json()["complete"]


async def test_a_job_that_is_cancelled_deleted_and_retried_at_once_ends_and_leaves_nothing(
    fleet: Fleet, urls: tuple[str, str]
) -> None:
    async with clients(urls) as both:
        body = real_clip("bikes").read_bytes()
        for turn in range(6):
            job = f"ends-{turn}"
            key = {"Idempotency-Key": job}

            async def events(http: Any, job: str = job) -> int:
                async with http.stream("GET", f"{JOBS}/{job}/events") as stream:
                    async for _ in stream.aiter_lines():
                        pass
                    return int(stream.status_code)

            assert (await both[0].post(f"{JOBS}?pipeline=simulated", content=body, headers=key)).status_code == 201
            asked = [http.post(f"{JOBS}/{job}/{what}") for what in ("cancel", "retry") for http in both]
            asked += [http.delete(f"{JOBS}/{job}") for http in both]
            asked += [http.post(f"{JOBS}?pipeline=simulated", content=body, headers=key) for http in both]
            asked += [http.get(f"{JOBS}/{job}/results") for http in both]
            asked = asked[turn:] + asked[:turn]
            async with asyncio.timeout(60):
                followed = [asyncio.create_task(events(http)) for http in both]
                answers = await asyncio.gather(*asked)
                assert not [each.text for each in answers if each.status_code >= 500]
                await both[turn % 2].delete(f"{JOBS}/{job}")
                assert set(await asyncio.gather(*followed)) <= {200, 404}
            async with Broker.connected(fleet.settings, "test") as broker:
                assert await find_manifest(broker, job) is None
                assert (await both[0].get(f"{JOBS}/{job}/results")).status_code == 404


async def test_events_go_on_behind_any_of_them_at_any_gateway(urls: tuple[str, str]) -> None:
    async with clients(urls) as both:
        body = real_clip("bigbuckbunny").read_bytes()
        job = (await both[0].post(f"{JOBS}?pipeline=simulated", content=body)).json()["id"]

        async def events(http: Any, after: int) -> list[tuple[int, str]]:
            async with http.stream("GET", f"{JOBS}/{job}/events", headers={"Last-Event-ID": str(after)}) as stream:
                found = events_of([line async for line in stream.aiter_lines()])
            return [(number, kind) for kind, number, _ in found if kind in ("part", "file", "done")]

        entire = await events(both[0], 0)
        assert len(entire) > 3
        for at, (number, _) in enumerate(entire[:-1]):
            assert [each for each in await events(both[at % 2], number) if each[1] != "part"] == [
                each
                for each in entire[at + 1 :]
                if each[1] != "part"  # those of parts go when the file is there
            ]


async def test_a_file_by_conditions_and_ranges_is_as_http_says(urls: tuple[str, str]) -> None:
    async with clients(urls) as both:
        http = both[0]
        made = await http.post(f"{JOBS}?pipeline=simulated", content=real_clip("bikes").read_bytes())
        await _done(http, made.json()["id"])
        [file] = (await http.get(f"{JOBS}/{made.json()['id']}/results")).json()["files"]
        whole = await http.get(file["url"])
        tag, size = whole.headers["etag"], len(whole.content)

        async def asked(method: str = "GET", **headers: str) -> Any:
            return await http.request(method, file["url"], headers={k.replace("_", "-"): v for k, v in headers.items()})

        for method in ("GET", "HEAD"):
            for given, status in ((tag, 304), (f"W/{tag}", 304), (f'"x", {tag}', 304), ("*", 304), ('"x"', 200)):
                found = await asked(method, If_None_Match=given)
                assert (found.status_code, found.headers["etag"]) == (status, tag), (method, given)
        many = ",".join(f"{at}-{at}" for at in range(1000))
        for wanted, status in (
            (many, 200),
            ("0-0,2-3", 200),
            ("0-0", 206),
            (f"{size}-", 416),
            ("-0", 416),
            ("9-2", 200),
            (f"0-{'9' * 5000}", 206),
            (f"{'9' * 5000}-", 416),
            (f"-{'9' * 5000}", 206),
            (f"{'0' * 5000}2-2", 206),
        ):
            found = await asked(Range=f"bytes={wanted}")
            assert found.status_code == status, wanted
            assert int(found.headers["content-length"]) == len(found.content)
            assert status != 200 or found.content == whole.content
        assert (await asked(Range="Bytes=0-3")).status_code == 206
        assert (await asked(Range="bytes=0-3", If_Range=tag)).content == whole.content[:4]
        for stale in ('"x"', f"W/{tag}", "Wed, 21 Oct 2015 07:28:00 GMT"):
            assert (await asked(Range="bytes=0-3", If_Range=stale)).content == whole.content, stale


async def test_a_body_that_is_packed_is_refused_and_not_taken_for_media(urls: tuple[str, str]) -> None:
    async with clients(urls) as both:
        for coding in ("gzip", "br", "gzip, identity"):
            headers = {"Content-Encoding": coding}
            found = await both[0].post(f"{JOBS}?pipeline=simulated", content=b"\x1f\x8b", headers=headers)
            assert (found.status_code, found.json()["code"]) == (415, "unsupported-media-type"), coding
            text = await both[0].post("/v1/chat/completions", content=b"\x1f\x8b", headers=headers)
            assert (text.status_code, "error" in text.json()) == (415, True)
        plain = await both[0].post(f"{JOBS}?pipeline=simulated", content=b"x", headers={"Content-Encoding": "identity"})
        assert plain.status_code == 201
