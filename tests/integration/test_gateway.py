"""The gateway's native API over a real fleet: jobs by upload, their events, results, and what ends early."""

import asyncio
import base64
import io
import json
import time
import zipfile
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from benchmarks.fleet import simulated  # noqa: E402
from pipelines.broker import Broker  # noqa: E402
from pipelines.job_records import all_manifests  # noqa: E402
from schemas.settings import MIB, Settings  # noqa: E402
from tests.clips import real_clip, still  # noqa: E402
from tests.fleet import ONE_WORKER, Fleet  # noqa: E402
from tests.gateway import Gateway  # noqa: E402
from tests.simulated import models_of  # noqa: E402
from workers.definitions import register  # noqa: E402

JOBS = "/api/v1/jobs"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(ONE_WORKER, tmp_path_factory.mktemp("cache"), pace_ms=0.0) as fleet:
        asyncio.run(_registered(fleet.settings))
        yield fleet


@pytest.fixture(scope="module")
def url(fleet: Fleet) -> Iterator[str]:
    with Gateway(fleet.settings) as gateway:
        yield gateway.url


async def _registered(settings: Settings) -> None:
    async with Broker.connected(settings, "test") as broker:
        await register(broker, settings, simulated(), models_of(simulated()))


def client(url: str, **options: Any) -> Any:
    return httpx.Client(base_url=url, timeout=60, **options)


def events_of(lines: Any) -> list[tuple[str, int, dict[str, Any]]]:
    """Kind, id and data of server-sent events."""
    found, number, kind = [], 0, ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "id":
            number = int(value)
        elif name == "event":
            kind = value
        elif name == "data":
            found.append((kind, number, json.loads(value)))
    return found


def test_a_job_by_upload_its_events_and_its_results(url: str) -> None:
    clip = real_clip("bikes")
    with client(url) as http:
        made = http.post(f"{JOBS}?pipeline=simulated&name=bikes.mp4", content=clip.read_bytes())
        assert made.status_code == 201, made.text
        job = made.json()["id"]
        assert made.headers["location"] == f"{JOBS}/{job}"
        with http.stream("GET", f"{JOBS}/{job}/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            events = events_of(stream.iter_lines())
        kinds = [kind for kind, _, _ in events]
        assert kinds[0] == "progress"
        assert {"part", "file"} <= set(kinds)
        assert kinds[-1] == "done"
        assert events[-1][2]["state"] == "done"
        with http.stream("GET", f"{JOBS}/{job}/events") as stream:
            next(stream.iter_lines())  # and then the client goes away
        last = next(number for kind, number, _ in events if kind == "file")
        with http.stream("GET", f"{JOBS}/{job}/events", headers={"Last-Event-ID": str(last)}) as stream:
            assert {kind for kind, _, _ in events_of(stream.iter_lines())} == {"progress", "done"}
        [file] = http.get(f"{JOBS}/{job}/results").json()["files"]
        whole = http.get(file["url"])
        assert (len(whole.content), whole.headers["content-type"]) == (file["size"], file["content_type"])
        part = http.get(file["url"], headers={"Range": "bytes=5-16"})
        assert (part.status_code, part.content) == (206, whole.content[5:17])
        assert part.headers["content-range"] == f"bytes 5-16/{file['size']}"
        assert http.get(file["url"], headers={"Range": "bytes=-3"}).content == whole.content[-3:]
        assert http.get(file["url"], headers={"Range": f"bytes={file['size']}-"}).status_code == 416
        assert http.get(file["url"], headers={"If-None-Match": whole.headers["etag"]}).status_code == 304
        assert http.head(file["url"]).headers["content-length"] == str(file["size"])
        archive = zipfile.ZipFile(io.BytesIO(http.get(f"{JOBS}/{job}/results.zip").content))
        assert archive.testzip() is None
        assert archive.read(file["name"]) == whole.content
        assert http.get(f"{JOBS}/{job}").json()["progress"] == 1.0
        assert http.delete(f"{JOBS}/{job}").status_code == 204
        gone = http.get(f"{JOBS}/{job}")
        assert gone.status_code == 404
        assert gone.headers["content-type"] == "application/problem+json"
        assert gone.json()["hint"]


def test_a_form_is_the_same_job_and_its_key_is_kept_for_its_input(url: str) -> None:
    body = real_clip("bikes").read_bytes()
    key = {"Idempotency-Key": "form-1"}
    with client(url) as http:
        form = {"data": {"pipeline": "simulated", "priority": "bulk"}, "files": {"file": ("büke.mp4", body)}}
        made = http.post(JOBS, headers=key, **form)
        assert (made.status_code, made.json()["name"], made.json()["priority"]) == (201, "büke.mp4", "bulk")
        again = http.post(JOBS, headers=key, **form)
        assert (again.status_code, again.json()["id"]) == (200, "form-1")
        other = http.post(f"{JOBS}?pipeline=simulated", content=body[:-1], headers=key)
        assert (other.status_code, other.json()["code"]) == (409, "other-input")
        listed = http.get(JOBS, params={"name": "BÜKE", "pipeline": "simulated"}).json()
        assert [each["id"] for each in listed["jobs"]] == ["form-1"]


def test_jobs_are_listed_in_pages(url: str) -> None:
    with client(url) as http:
        for number in range(5):
            made = http.post(f"{JOBS}?pipeline=simulated&name=paged-{number}", content=b"no media")
            assert made.status_code == 201
        seen, cursor = [], ""
        while True:
            page = http.get(JOBS, params={"name": "paged-", "limit": 2, "cursor": cursor}).json()
            seen += [each["name"] for each in page["jobs"]]
            cursor = page["next"]
            if cursor is None:
                break
        assert seen == [f"paged-{number}" for number in reversed(range(5))]


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (("POST", f"{JOBS}?pipeline=simulated", {"content": b""}), 422, "media-error"),
        (("POST", f"{JOBS}?pipeline=nothing", {"content": b"x"}), 404, "pipeline-unknown"),
        (("POST", JOBS, {"content": b"x"}), 404, "pipeline-unknown"),
        (("POST", f"{JOBS}?pipeline=simulated", {"content": b"x", "headers": {"Idempotency-Key": "a.b"}}), 422, ""),
        (("POST", JOBS, {"data": {"pipeline": "simulated", "odd": "1"}, "files": {"file": b"x"}}), 400, "bad-request"),
        (("GET", f"{JOBS}/..%2F..%2Fetc", {}), 404, ""),
        (("GET", f"{JOBS}/a*", {}), 404, "not-found"),
        (("GET", f"{JOBS}?cursor=x", {}), 422, "usage-error"),
        (("PUT", JOBS, {}), 405, "method-not-allowed"),
        (("GET", "/nowhere", {}), 404, "not-found"),
        (("GET", JOBS, {"headers": {"Origin": "https://elsewhere.example"}}), 403, "forbidden"),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
def test_errors_are_problems_with_a_hint(url: str, request_: Any, status: int, code: str) -> None:
    method, path, options = request_
    with client(url) as http:
        answered = http.request(method, path, **options)
    assert answered.status_code == status, answered.text
    assert answered.headers["content-type"] == "application/problem+json"
    problem = answered.json()
    assert problem["status"] == status
    assert code in problem["code"]


def test_a_wrong_id_is_refused_in_words(url: str) -> None:
    with client(url) as http:
        wrong = http.post(f"{JOBS}?pipeline=simulated", content=b"x", headers={"Idempotency-Key": "a.b"}).json()
    assert "Idempotency-Key: takes letters, digits, - and _" in wrong["errors"][0]


def test_other_media_under_the_id_of_a_job_that_is_not_over_are_refused_with_what_to_do(settings: Settings) -> None:
    asyncio.run(_registered(settings))  # no worker takes the first one
    asked = "POST", f"{JOBS}?pipeline=simulated"
    with Gateway(settings) as gateway, client(gateway.url) as http:
        _free_as_the_hint_says(http, asked, "same")


def test_other_media_under_the_id_of_a_job_that_is_over_are_refused_with_what_to_do(url: str) -> None:
    with client(url) as http:
        _free_as_the_hint_says(http, ("POST", f"{JOBS}?pipeline=simulated"), "over", wait=True)


def _free_as_the_hint_says(http: Any, asked: tuple[str, str], job: str, wait: bool = False) -> None:
    """Begin a job, send other media under its id, do what the hint of the refusal says, and send them again."""
    key, media = {"Idempotency-Key": job}, still("png", seed=2)
    assert http.request(*asked, content=real_clip("bikes").read_bytes(), headers=key).status_code == 201
    if wait:
        with http.stream("GET", f"{JOBS}/{job}/events") as stream:
            assert events_of(stream.iter_lines())[-1][0] == "done"
    other = http.request(*asked, content=media, headers=key)
    assert other.status_code == 409
    hint = other.json()["hint"]
    assert hint == f"choose another id, or delete that job and its results, DELETE {JOBS}/{job}"
    assert http.request(*hint.rpartition(", ")[2].split()).status_code == 204
    again = http.request(*asked, content=media, headers=key)
    assert (again.status_code, again.json()["generation"]) == (201, 1)


async def test_uploads_that_end_early_or_meet_a_full_fleet_leave_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.uploads.PATIENCE_S", 0.2)
    await _registered(settings)

    async def pieces(number: int) -> AsyncIterator[bytes]:
        for _ in range(number):
            yield bytes(MIB)
            await asyncio.sleep(0)

    async def then_gone() -> AsyncIterator[bytes]:
        yield bytes(5 * MIB)
        raise ConnectionError

    async def stored(broker: Broker) -> tuple[int, int]:
        info = await broker.api(f"STREAM.INFO.OBJ_{broker.names.blobs}")
        return info["state"]["messages"], len(await all_manifests(broker))

    path = f"{JOBS}?pipeline=simulated"
    with Gateway(settings) as gateway:
        async with (
            httpx.AsyncClient(base_url=gateway.url, timeout=60) as http,
            Broker.connected(settings, "test") as broker,
        ):
            for too_large in (pieces(100), bytes(65 * MIB)):  # 64 MiB of media are kept
                refused = await http.post(path, content=too_large)
                assert (refused.status_code, refused.json()["code"]) == (413, "never-fits")
            taken = await http.post(path, content=bytes(40 * MIB))
            assert taken.status_code == 201
            for too_much in (pieces(30), bytes(30 * MIB)):
                full = await http.post(path, content=too_much)
                assert (full.status_code, full.json()["code"]) == (503, "fleet-full")
                assert int(full.headers["retry-after"]) > 0
            begin = {"Tus-Resumable": "1.0.0", "Upload-Length": str(30 * MIB)}
            monkeypatch.setattr("gateway.api.tus.PATIENCE_S", 0.2)
            assert (await http.post("/api/v1/uploads?pipeline=simulated", headers=begin)).status_code == 503
            await http.delete(f"{JOBS}/{taken.json()['id']}")
            with pytest.raises(ConnectionError):
                await http.post(path, content=then_gone())
            async with asyncio.timeout(30):
                while await stored(broker) != (0, 0):
                    await asyncio.sleep(0.05)


def test_an_upload_is_continued_by_another_gateway_from_where_it_was_cut_off(fleet: Fleet, url: str) -> None:
    body = real_clip("bikes").read_bytes()
    tus = {"Tus-Resumable": "1.0.0"}
    piece = {**tus, "Content-Type": "application/offset+octet-stream"}
    names = (
        f"filename {base64.b64encode('tus ü.mp4'.encode()).decode()},pipeline {base64.b64encode(b'simulated').decode()}"
    )
    with client(url) as http, Gateway(fleet.settings) as second, client(second.url) as other:
        assert "creation" in http.options("/api/v1/uploads").headers["tus-extension"]
        assert http.post("/api/v1/uploads", headers={"Tus-Resumable": "0.2"}).status_code == 412
        begin = {**tus, "Upload-Length": str(len(body)), "Upload-Metadata": names, "Idempotency-Key": "tus-1"}
        made = http.post("/api/v1/uploads", headers=begin)
        assert (made.status_code, made.headers["location"]) == (201, "/api/v1/uploads/tus-1")
        path = made.headers["location"]
        assert http.patch(path, headers={**piece, "Upload-Offset": "5"}, content=body[:10]).status_code == 409
        first = http.patch(path, headers={**piece, "Upload-Offset": "0"}, content=body[:1000])
        assert (first.status_code, first.headers["upload-offset"]) == (204, "1000")

        too_much = other.patch(path, headers={**piece, "Upload-Offset": "1000"}, content=body[1000:] + b"x")
        assert (too_much.status_code, too_much.json()["code"]) == (409, "upload-moved")
        at = int(other.head(path, headers=tus).headers["upload-offset"])
        last = other.patch(path, headers={**piece, "Upload-Offset": str(at)}, content=body[at:])
        assert (last.status_code, last.headers["rigflow-job"]) == (204, "tus-1")
        assert http.head(path, headers=tus).headers["upload-offset"] == str(len(body))
        assert http.get(path).json() == {"id": "tus-1", "size": len(body), "offset": len(body), "complete": True}
        assert _ended(http, "tus-1")["state"] == "done"
        assert http.get(f"{JOBS}/tus-1").json()["name"] == "tus ü.mp4"
        plain = http.post(f"{JOBS}?pipeline=simulated", content=body).json()["id"]
        assert _ended(http, plain)["digest"] == _ended(http, "tus-1")["digest"]
        begin |= {"Idempotency-Key": "tus-2", "Upload-Length": str(3 * MIB)}
        path = http.post("/api/v1/uploads", headers=piece | begin, content=body[:10]).headers["location"]

        def there() -> int:
            return int(other.head(path, headers=tus).headers["upload-offset"])

        def cut_off() -> Iterator[bytes]:
            yield bytes(2 * MIB)
            while there() == 10:
                time.sleep(0.05)
            raise ConnectionError

        with pytest.raises(ConnectionError):
            http.patch(path, headers={**piece, "Upload-Offset": "10"}, content=cut_off())
        assert there() > 10
        assert http.delete(path, headers=tus).status_code == 204
        assert http.head(path, headers=tus).status_code == 404


def test_pipelines_say_what_may_be_set_and_a_job_may_set_it(url: str) -> None:
    body = real_clip("bikes").read_bytes()
    with client(url) as http:
        assert [each["name"] for each in http.get("/api/v1/pipelines").json()["pipelines"]] == ["simulated"]
        shown = http.get("/api/v1/pipelines/simulated").json()
        decode = next(stage for stage in shown["stage"] if stage["kind"] == "decode")
        assert "description" in decode["options"]["properties"]["stream"]
        plain = http.post(f"{JOBS}?pipeline=simulated", content=body).json()
        other = http.post(f"{JOBS}?pipeline=simulated&set=decode.fps=1", content=body).json()
        assert other["revision"] != plain["revision"] == shown["revision"]
        ended = [_ended(http, job["id"]) for job in (plain, other)]
        assert {each["state"] for each in ended} == {"done"}
        assert len({each["digest"] for each in ended}) == 2
        wrong = http.post(f"{JOBS}?pipeline=simulated&set=decode.fps=many", content=body)
        assert (wrong.status_code, wrong.json()["code"]) == (422, "pipeline-error")
        missing = http.post(f"{JOBS}?pipeline=simulated&model=other", content=body)
        assert (missing.status_code, missing.json()["hint"]) == (404, "it knows simulated")


def _ended(http: Any, job: str) -> dict[str, Any]:
    """How a job ended."""
    with http.stream("GET", f"{JOBS}/{job}/events") as stream:
        return events_of(stream.iter_lines())[-1][2]


def test_dead_letters_are_shown_sent_again_and_dropped(url: str) -> None:
    with client(url) as http:
        job = http.post(f"{JOBS}?pipeline=simulated", content=b"no media at all").json()["id"]
        assert _ended(http, job)["state"] == "failed"
        [letter] = http.get("/api/v1/dead-letters", params={"job": job}).json()["letters"]
        assert (letter["stage"], letter["segment"]) == ("split", -1)
        path = f"/api/v1/dead-letters/{letter['number']}"
        assert http.get(path).json() == letter
        assert http.post(f"{path}/retry").status_code == 204
        assert http.get(path).status_code == 404
        while not (again := http.get("/api/v1/dead-letters", params={"job": job}).json()["letters"]):
            time.sleep(0.05)
        assert http.delete(f"/api/v1/dead-letters/{again[0]['number']}").status_code == 204
        assert http.post(f"{JOBS}/{job}/retry").status_code == 409


def test_a_cordoned_worker_takes_no_work_until_it_is_resumed(url: str) -> None:
    body = real_clip("bikes").read_bytes()
    with client(url) as http:
        path = f"/api/v1/workers/{_worker(http)['name']}"
        assert http.get("/api/v1/rigs").json() == {"rigs": []}
        assert http.post("/api/v1/workers/other/cordon").status_code == 404
        for action in ("cordon", "drain"):
            assert http.post(f"{path}/{action}").json()["order"] == action
            while _worker(http)["state"] != "cordoned":
                time.sleep(0.05)
            job = http.post(f"{JOBS}?pipeline=simulated", content=body).json()["id"]
            time.sleep(0.5)
            assert http.get(f"{JOBS}/{job}").json()["state"] == "publishing"
            assert http.post(f"{path}/resume").json()["order"] == "work"
            assert _ended(http, job)["state"] == "done"
            while _worker(http)["state"] == "cordoned":  # its last status may be from before the order
                time.sleep(0.05)


def _worker(http: Any) -> dict[str, Any]:
    """The one worker, once it has reported."""
    while not (found := http.get("/api/v1/workers").json()["workers"]):
        time.sleep(0.05)
    return dict(found[0])
