"""Jobs whose last stage takes the entire media: they are not over before that stage is, and end as it ends."""

import asyncio
import json
from pathlib import Path

import pytest

from engines.media.medium import Input
from pipelines.broker import Broker
from pipelines.inventory import take_inventory
from pipelines.job_records import find_manifest
from pipelines.publish import Publisher
from pipelines.waits import why_waiting
from schemas.jobs import JobState, Priority
from schemas.pipeline import parse_pipeline
from tests.cases import written
from tests.cli import rigflow
from tests.fleet import ONE_WORKER, Fleet
from tests.sounds import file_of, voice
from workers.definitions import register

RATE, SECONDS = 16000, 9
SPOKEN = "\n".join(f"second {at}" for at in range(0, SECONDS, 2))


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.wav"
    path.write_bytes(file_of(voice(SECONDS, RATE), RATE))
    return path


def joining(folder: Path) -> Path:
    """The file of a pipeline that joins the texts of a media, unless there is a file `broken`."""
    stages = f"""
    [[stage]]
    kind = "spelled"

    [[stage]]
    kind = "refused"
    broken = "{folder / "broken"}"

    [[stage]]
    kind = "encode"
    format = "jsonl"
    """
    return written(folder, stages, f"rate = {RATE}\nwindow_s = 2.0", '"audio"', "joined")


def test_a_published_job_is_done_once_the_stage_of_the_entire_media_is(film: Path, tmp_path: Path) -> None:
    pipeline = joining(tmp_path)
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        at = ("--nats", fleet.settings.nats)
        published = rigflow("publish", pipeline, film, "--job", "mine", *at)
        assert (published.returncode, published.stdout) == (0, "mine\n"), published.stderr
        assert rigflow("jobs", "wait", "mine", *at).stdout.startswith("mine: done, ")
        got = rigflow("results", "mine", "--out", tmp_path / "out", *at)
        assert got.returncode == 0, got.stderr
        again = rigflow("publish", pipeline, film, "--job", "mine", *at)
        assert "done before; `rigflow results mine` gives its results" in again.stderr
        ran = rigflow("run", pipeline, film, "--out", tmp_path / "run", *at)
        assert ran.returncode == 0, ran.stderr
    result = tmp_path / "out" / "film.joined.jsonl"
    assert json.loads(result.read_text())["text"] == SPOKEN
    assert (tmp_path / "run" / "film.joined.jsonl").read_bytes() == result.read_bytes()


def test_a_job_that_a_worker_collects_is_run_by_its_default_id(film: Path, tmp_path: Path) -> None:
    """Its files are at the broker then, and the parts that `run` would collect are not."""
    pipeline = joining(tmp_path)
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        at = ("--nats", fleet.settings.nats)
        job = rigflow("publish", pipeline, film, *at).stdout.strip()
        assert rigflow("jobs", "wait", job, *at).returncode == 0
        for out in ("first", "second"):
            ran = rigflow("run", pipeline, film, "--out", tmp_path / out, *at)
            assert ran.returncode == 0, ran.stderr
            assert json.loads((tmp_path / out / "film.joined.jsonl").read_text())["text"] == SPOKEN


def test_a_published_job_has_failed_if_the_stage_of_the_entire_media_fails(film: Path, tmp_path: Path) -> None:
    pipeline = joining(tmp_path)
    (tmp_path / "broken").touch()
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        at = ("--nats", fleet.settings.nats)
        assert rigflow("publish", pipeline, film, "--job", "mine", *at).returncode == 0
        waited = rigflow("jobs", "wait", "mine", *at)
        assert (waited.returncode, waited.stdout.split(",")[0]) == (1, "mine: failed")
        shown = rigflow("jobs", "show", "mine", "--json", *at)
        [reason] = json.loads(shown.stdout)["reasons"]
        assert reason.endswith("refused: its text cannot be joined")
        (tmp_path / "broken").unlink()
        assert rigflow("dead", "retry", "--all", *at).returncode == 0
        assert rigflow("jobs", "wait", "mine", *at).stdout.startswith("mine: done, ")


async def test_a_job_without_a_collector_is_not_over_before_that_stage(film: Path, tmp_path: Path) -> None:
    """As one of `rigflow run` that was killed: the stage is run once the results are fetched."""
    path = joining(tmp_path)
    with Fleet((("decode", "spelled"),), tmp_path / "cache") as fleet:
        async with Broker.connected(fleet.settings, "test") as broker:
            spec = await register(broker, fleet.settings, parse_pipeline(path.read_text(), path.name), {})
            publisher = Publisher(broker, spec, "main", Priority.BULK)
            job = publisher.ref("mine")
            await publisher.publish(job, "audio", [Input(film, film.name)])
            async with asyncio.timeout(60):
                while True:
                    manifest = await find_manifest(broker, "mine")
                    assert manifest is not None
                    taken = await take_inventory(broker, manifest)
                    if taken.awaits_gathering:
                        break
                    await asyncio.sleep(0.05)
                while "`rigflow results mine`" not in (why := await why_waiting(broker, [job])):
                    await asyncio.sleep(0.05)
            assert why.startswith("all parts of job mine are done, and the stage that takes them as one is run when")
            assert (taken.complete, taken.over, taken.progress.state) == (False, False, JobState.PUBLISHED)
            fleet.add(("refused", "encode"))
            got = await asyncio.to_thread(rigflow, "results", "mine", "--out", tmp_path, "--nats", fleet.settings.nats)
            assert got.returncode == 0, got.stderr
            manifest = await find_manifest(broker, "mine")
            assert manifest is not None
            assert manifest.state is JobState.DONE
    assert json.loads((tmp_path / "film.joined.jsonl").read_text())["text"] == SPOKEN
