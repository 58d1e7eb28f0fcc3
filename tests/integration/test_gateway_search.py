"""Search by the gateway: what jobs of embed stored is found by words and by a picture, and by its own tenant alone."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("tokenizers")

from engines.models.catalogue import own_model  # noqa: E402
from gateway.callers import Caller  # noqa: E402
from gateway.vectors import Library  # noqa: E402
from pipelines.broker import Broker  # noqa: E402
from pipelines.job_index import JobIndex  # noqa: E402
from pipelines.registry import builtin_pipeline  # noqa: E402
from schemas.settings import Settings  # noqa: E402
from tests.cli import rigflow  # noqa: E402
from tests.clips import Clip, make_clip  # noqa: E402
from tests.fleet import ONE_WORKER, Fleet  # noqa: E402
from tests.gateway import Gateway  # noqa: E402
from tests.integration.test_embed import pictures  # noqa: E402
from tests.towers import clip_folder  # noqa: E402
from workers.definitions import register  # noqa: E402

JOBS, SEARCH = "/api/v1/jobs", "/api/v1/search"


async def by_header(request: Any) -> Caller:
    return Caller(request.headers.get("x-tenant", "main"))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("search")
    before = os.environ["HOME"]
    os.environ["HOME"] = str(folder / "home")
    try:
        added = rigflow("model", "add", clip_folder(folder / "mine"), HOME=os.environ["HOME"])
        assert added.returncode == 0, added.stderr
        with Fleet(ONE_WORKER, folder / "cache") as fleet:
            asyncio.run(_registered(fleet.settings))
            yield fleet
    finally:
        os.environ["HOME"] = before


async def _registered(settings: Settings) -> None:
    async with Broker.connected(settings, "test") as broker:
        spec = builtin_pipeline("embed").with_model("mine")
        await register(broker, settings, spec, {"mine": own_model("mine")})


def submit(http: Any, paths: list[Path]) -> None:
    jobs = [http.post(f"{JOBS}?pipeline=embed&name={path.name}", content=path.read_bytes()).json() for path in paths]
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        if all(http.get(f"{JOBS}/{job['id']}").json()["ended_at"] for job in jobs):
            return
        time.sleep(0.05)
    raise AssertionError("not done")


def test_pictures_are_found_by_words_and_by_a_picture(fleet: Fleet, tmp_path: Path) -> None:
    pictures(tmp_path)
    own = {"x-tenant": "own"}  # the other test has jobs of main
    with (
        Gateway(fleet.settings, identify=by_header) as gateway,
        httpx.Client(base_url=gateway.url, timeout=60, headers=own) as http,
    ):
        assert http.get(f"{SEARCH}/models").json() == {"models": [], "left_out": 0}
        nothing = http.get(SEARCH, params={"words": "red"})
        assert (nothing.status_code, nothing.json()["detail"]) == (409, "no vectors are stored in the fleet")
        assert "embed" in nothing.json()["hint"]

        names = ("red.png", "green.png", "blue.png")
        submit(http, [*(tmp_path / name for name in names), make_clip(tmp_path, Clip(frames=30))])
        [model] = http.get(f"{SEARCH}/models").json()["models"]
        assert (model["model"], model["media"], model["words"], model["why"]) == ("mine", 4, True, "")
        for name in names:
            found = http.get(SEARCH, params={"words": f"picture of {name[:-4]}"}).json()
            assert found["hits"][0]["name"] == name
            scores = [hit["score"] for hit in found["hits"]]
            assert scores == sorted(scores, reverse=True)
            job = http.get(f"{JOBS}/{found['hits'][0]['job']}").json()
            assert job["name"] == name
        [film] = [hit for hit in found["hits"] if hit["time_s"] is not None]
        assert film["name"].endswith(".mp4")

        like = http.post(SEARCH, content=(tmp_path / "small.jpg").read_bytes(), params={"most": 1}).json()
        assert [hit["name"] for hit in like["hits"]] == ["red.png"]  # of which it is a copy
        assert like["hits"][0]["score"] > 0.9
        wrong = http.post(SEARCH, content=b"no picture")
        assert (wrong.status_code, wrong.headers["content-type"]) == (422, "application/problem+json")
        assert http.get(SEARCH, params={"words": "red", "model": "other"}).status_code == 409
        assert http.get(SEARCH, params={"words": ""}).status_code == 422
        assert http.get(f"{SEARCH}/models", headers={"x-tenant": "other"}).json()["models"] == []

        http.delete(f"{JOBS}/{like['hits'][0]['job']}")
        left = http.get(SEARCH, params={"words": "red"}).json()
        assert "red.png" not in [hit["name"] for hit in left["hits"]]


async def test_what_a_gateway_holds_is_bounded(fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path)
    with Gateway(fleet.settings) as gateway, httpx.Client(base_url=gateway.url, timeout=60) as http:
        submit(http, [tmp_path / "red.png", tmp_path / "blue.png"])
    monkeypatch.setattr("gateway.vectors.AT_ONCE", 1)
    monkeypatch.setattr("gateway.vectors.KEPT_BYTES", 1)
    async with Broker.connected(fleet.settings, "test") as broker:
        library, jobs = Library(), await JobIndex(broker).jobs("main")
        found = await library.collection(broker, jobs)
        assert len(found.jobs) == 1
        assert found.jobs[0].job.created_s == max(each.created_s for each in jobs)
        assert found.left_out == sum(each.job.pipeline == "embed" for each in jobs) - 1
