"""What a page asks the gateway for: small pictures of jobs, files in pages, and when the list of jobs changed."""

import asyncio
import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from benchmarks.fleet import simulated  # noqa: E402
from pipelines.broker import Broker  # noqa: E402
from pipelines.registry import builtin_pipeline  # noqa: E402
from schemas.settings import Settings  # noqa: E402
from tests.clips import Clip, make_clip  # noqa: E402
from tests.fleet import ONE_WORKER, Fleet  # noqa: E402
from tests.gateway import Gateway  # noqa: E402
from tests.simulated import models_of  # noqa: E402
from workers.definitions import register  # noqa: E402

JOBS = "/api/v1/jobs"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Fleet(ONE_WORKER, tmp_path_factory.mktemp("cache"), pace_ms=0.0) as fleet:
        asyncio.run(_registered(fleet.settings))
        with Gateway(fleet.settings) as gateway:
            yield gateway.url


async def _registered(settings: Settings) -> None:
    async with Broker.connected(settings, "test") as broker:
        for spec in (simulated(), builtin_pipeline("upscale2x")):
            await register(broker, settings, spec, models_of(spec))


def done(http: Any, pipeline: str, name: str, body: bytes) -> dict[str, Any]:
    job = http.post(f"{JOBS}?pipeline={pipeline}&name={name}", content=body).json()["id"]
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        view: dict[str, Any] = http.get(f"{JOBS}/{job}").json()
        if view["ended_at"] is not None:  # its files are there, too
            return view
        time.sleep(0.05)
    raise AssertionError(view)


def test_a_job_has_a_small_picture_of_its_first_film_and_others_have_none(url: str, tmp_path: Path) -> None:
    film = make_clip(tmp_path, Clip(frames=8)).read_bytes()
    with httpx.Client(base_url=url, timeout=60) as http:
        pictured = done(http, "upscale2x", "bikes.mp4", film)
        small = http.get(pictured["thumbnail"])
        assert (small.status_code, small.headers["content-type"]) == (200, "image/jpeg"), small.text
        assert "private" in small.headers["cache-control"]
        assert len(small.content) < 40_000
        picture = Image.open(io.BytesIO(small.content))
        assert max(picture.width / 320, picture.height / 180) == pytest.approx(1, abs=0.02)
        assert np.asarray(picture).std() > 20  # it shows something
        [file] = http.get(f"{JOBS}/{pictured['id']}/results").json()["files"]
        assert http.get(f"{JOBS}/{pictured['id']}/thumbnail", params={"file": file["name"]}).content == small.content
        assert http.get(file["thumbnail"]).content == small.content
        assert http.get(file["url"].partition("?")[0]).content == http.get(file["url"]).content
        elsewhere = file["url"].rpartition("=")[0] + "=1"  # another message lies there: the file is found by its name
        assert http.get(elsewhere).content == http.get(file["url"]).content
        assert http.get(f"{JOBS}/{pictured['id']}/thumbnail", params={"file": "../x.png"}).status_code == 404

        plain = done(http, "simulated", "bikes.mp4", film)
        assert plain["thumbnail"] is None
        none = http.get(f"{JOBS}/{plain['id']}/thumbnail")
        assert (none.status_code, none.content) == (204, b""), "a browser reports no error"
        missing = http.get(f"{JOBS}/nothing/thumbnail")
        assert (missing.status_code, missing.json()["code"]) == (404, "not-found")


def test_files_come_in_pages_and_one_is_found_by_its_name(url: str, tmp_path: Path) -> None:
    film = make_clip(tmp_path, Clip(frames=8)).read_bytes()
    with httpx.Client(base_url=url, timeout=60) as http:
        job = done(http, "upscale2x", "bikes.mp4", film)
        every = http.get(f"{JOBS}/{job['id']}/results").json()
        assert every["next"] is None
        seen: list[Any] = []
        page = {"next": 0}
        while page["next"] is not None:
            page = http.get(f"{JOBS}/{job['id']}/results", params={"limit": 1, "cursor": page["next"]}).json()
            seen += page["files"]
        assert seen == every["files"]
        assert http.get(f"{JOBS}/{job['id']}/results/nothing.mp4").status_code == 404


def test_the_list_says_how_many_jobs_there_are(url: str) -> None:
    with httpx.Client(base_url=url, timeout=60) as http:
        for number in range(3):
            done(http, "simulated", f"counted-{number}", b"no media")
        first = http.get(JOBS, params={"name": "counted-", "limit": 2}).json()
        second = http.get(JOBS, params={"name": "counted-", "limit": 2, "cursor": first["next"]}).json()
        assert (first["total"], second["total"], second["next"]) == (3, 3, None)
        assert [len(each["jobs"]) for each in (first, second)] == [2, 1]


def test_a_page_gets_an_event_when_jobs_changed(url: str) -> None:
    events: list[float] = []
    begun, enough = threading.Event(), threading.Event()

    def listen() -> None:
        with httpx.Client(base_url=url, timeout=60) as http, http.stream("GET", "/api/v1/changes") as stream:
            for line in stream.iter_lines():
                if line == "event: jobs":
                    events.append(time.monotonic())
                    begun.set()
                    if len(events) > 1:
                        enough.set()
                        return

    thread = threading.Thread(target=listen)
    thread.start()
    assert begun.wait(30)
    with httpx.Client(base_url=url, timeout=60) as http:
        http.post(f"{JOBS}?pipeline=simulated&name=new", content=b"no media")
    assert enough.wait(30)
    thread.join()
