"""Commands that take a pipeline: one that comes with rigflow, one that only the fleet knows, and one by its file."""

import asyncio
import json
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.broker import Broker
from pipelines.registry import builtin_pipeline
from schemas.errors import ExitCode
from schemas.pipeline import PipelineSpec, parse_pipeline
from schemas.settings import Settings
from tests.cases import put, written
from tests.cli import Running, rigflow
from tests.clips import Clip, make_clip
from tests.convolutions import convolutions
from tests.fleet import ONE_WORKER, Fleet
from workers.definitions import find_models, register

CARD = "[[inputs]]\nname = 'input'\ntile = [40, 32]\noverlap = 4\n[[heads]]\nkind = 'image'\n"
STAGES = "[[stage]]\nkind = 'infer'\nmodel = 'm'\n[[stage]]\nkind = 'encode'\nformat = 'image'\n"
WAYS = ("built in", "of the fleet", "by its file")


@dataclass(frozen=True)
class Known:
    """A fleet that knows the pipeline `own`, whose file and model are not where commands look for them."""

    settings: Settings
    clip: Path
    names: dict[str, str]  # of a pipeline in commands, by how it is named

    def called(self, way: str) -> str:
        return {"built in": "scenes", "of the fleet": "own", "by its file": "filed"}[way]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Known]:
    folder = tmp_path_factory.mktemp("known")
    put(folder, convolutions(4), CARD)
    own = written(folder, STAGES, name="own")
    filed = written(folder, STAGES, name="filed")
    with Fleet(ONE_WORKER, folder / "cache") as fleet:
        asyncio.run(_publish(fleet.settings, parse_pipeline(own.read_text(), own.name), folder))
        asyncio.run(_publish(fleet.settings, builtin_pipeline("upscale").with_model("m"), folder))
        names = dict(zip(WAYS, ("scenes", "own", str(filed)), strict=True))
        yield Known(fleet.settings, make_clip(folder, Clip(frames=10, size=(32, 40))), names)


async def _publish(settings: Settings, spec: PipelineSpec, folder: Path) -> None:
    async with Broker.connected(settings, "test") as broker:
        await register(broker, settings, spec, find_models(spec, folder))


@pytest.mark.parametrize("way", WAYS)
def test_a_pipeline_is_published_and_run_by_what_it_is_called(way: str, known: Known, tmp_path: Path) -> None:
    name, at = known.names[way], ("--nats", known.settings.nats)
    job = f"published-{known.called(way)}"
    published = rigflow("publish", name, known.clip, "--job", job, *at)
    assert (published.returncode, published.stdout) == (0, f"{job}\n"), published.stderr
    got = rigflow("results", job, "--follow", "--out", tmp_path / "published", *at)
    ran = rigflow("run", name, known.clip, "--out", tmp_path / "run", *at)
    assert (got.returncode, ran.returncode) == (0, 0), got.stderr + ran.stderr
    results = [{file.name: file.read_bytes() for file in (tmp_path / each).iterdir()} for each in ("published", "run")]
    assert results[0] == results[1]
    assert all(file.startswith(f"{known.clip.stem}.{known.called(way)}.") for file in results[0])


@pytest.mark.parametrize("way", WAYS)
def test_a_pipeline_is_planned_and_watched_by_what_it_is_called(way: str, known: Known, tmp_path: Path) -> None:
    name, at = known.names[way], ("--nats", known.settings.nats)
    plan = rigflow("plan", name, known.clip, "--json", *at)
    assert plan.returncode == 0, plan.stderr
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "film.mp4").write_bytes(known.clip.read_bytes())
    with Running("watch", name, tmp_path / "in", "--out", tmp_path / "out", "--quiet", "0.1", *at) as watching:
        watching.until(f"film.{known.called(way)}.")
        watching.end(signal.SIGTERM)
    assert any(file.name.startswith(f"film.{known.called(way)}.") for file in (tmp_path / "out").iterdir())


def test_a_pipeline_whose_model_is_not_here_is_that_of_the_fleet(known: Known, tmp_path: Path) -> None:
    at = ("--nats", known.settings.nats)
    ran = rigflow("run", "upscale", known.clip, "--out", tmp_path, *at)
    assert ran.returncode == 0, ran.stderr
    assert [file.name for file in tmp_path.iterdir()] == [f"{known.clip.stem}.upscale.mp4"]
    for missing in (("upscale", "--model", "nosuch"), ("detect",)):
        done = rigflow("publish", *missing, known.clip, *at)
        assert done.returncode == ExitCode.USAGE
        assert re.match(r"rigflow: model [\w-]+ is missing", done.stderr), "neither here nor there"


@pytest.mark.parametrize("command", ["run", "publish"])
def test_options_change_a_pipeline_of_the_fleet_for_one_command(command: str, known: Known, tmp_path: Path) -> None:
    at = ("--nats", known.settings.nats)
    out = ("--out", tmp_path) if command == "run" else ("--job", "changed")
    done = rigflow(command, "own", known.clip, "--set", "encode.crf=40", *out, *at)
    assert done.returncode == 0, done.stderr
    [own] = [each for each in json.loads(rigflow("pipelines", "list", "--json", *at).stdout) if each["name"] == "own"]
    assert "crf" not in json.dumps(own), "the pipeline is as it was"
    wrong = rigflow(command, "own", known.clip, "--model", "nosuch", *out, *at)
    assert wrong.returncode == ExitCode.USAGE
    assert wrong.stderr.startswith("rigflow: the fleet knows no model nosuch: it knows m")


@pytest.mark.parametrize("command", ["run", "publish", "plan", "watch"])
def test_a_name_that_nobody_knows_is_answered_with_those_that_there_are(
    command: str, known: Known, tmp_path: Path
) -> None:
    given = (tmp_path, "--out", tmp_path / "out") if command == "watch" else (known.clip,)
    unknown = rigflow(command, "nosuch", *given, "--nats", known.settings.nats)
    assert unknown.returncode == ExitCode.USAGE
    assert unknown.stderr.startswith("rigflow: no pipeline is called nosuch, here or in the fleet: there are ")
    assert ", own, " in unknown.stderr
    assert unknown.stderr.endswith("; for one of your own give its file\n")
    near = rigflow(command, "ow", *given, "--nats", known.settings.nats)
    assert near.stderr == "rigflow: no pipeline is called ow, here or in the fleet: did you mean own?\n"


def test_without_a_fleet_only_what_comes_with_rigflow_has_a_name(known: Known, tmp_path: Path) -> None:
    for words in (("run", "own", known.clip, "--out", tmp_path), ("pipelines", "show", "own")):
        done = rigflow(*words)
        assert done.returncode == ExitCode.USAGE
        assert done.stderr.startswith("rigflow: no pipeline is called own here: there are ")
        assert done.stderr.endswith("; for one of your own give its file, and for one of a fleet --nats\n")
    simulated = rigflow("simulate", "--pipeline", "own", "--job", "2h 1080p h264", "--rigs", "1 x T4")
    assert simulated.stderr.startswith("rigflow: no pipeline is called own here: there are ")


def test_commands_that_take_jobs_say_that_a_pipeline_is_none(known: Known) -> None:
    for words in (("results", "own"), ("jobs", "wait", "own"), ("jobs", "show", "own")):
        done = rigflow(*words, "--nats", known.settings.nats)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "rigflow: the broker knows no job own: see `rigflow jobs list`\n"
