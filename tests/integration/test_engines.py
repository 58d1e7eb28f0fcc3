"""Engines shared through a real broker, and `rigflow engine` as a person uses it."""

import json
from asyncio import Lock
from pathlib import Path

import pytest

from cli.app import answer
from engines.backends.tensorrt import TensorRtRtx
from engines.building.engine import Recipe, obtain
from engines.building.store import EngineStore
from engines.inference.bindings import installed
from pipelines.broker import Broker
from pipelines.engines import fleet_engines, pull_engine, push_engine
from pipelines.server import EmbeddedServer
from pipelines.topology import ensure_topology
from schemas.errors import ExitCode, ModelError, UsageError
from schemas.settings import Settings
from tests.clips import Clip, generated
from tests.nets import kept_engine, resnet
from workers.engines import engine_for, engine_store

rtx = pytest.mark.skipif(not installed("tensorrt_rtx"), reason="tensorrt-rtx is not installed")


async def shared(settings: Settings) -> Broker:
    broker = await Broker.connect(settings)
    await ensure_topology(broker, settings, [])
    return broker


async def test_an_engine_is_pushed_once_and_pulled_whole(settings: Settings, tmp_path: Path) -> None:
    store, spec = kept_engine(tmp_path, precision="int8")
    plan, graph = store.load(spec.key)[1], store.graph(spec)
    assert graph
    broker = await shared(settings)
    try:
        assert await fleet_engines(broker) == []
        assert await push_engine(broker, spec, plan, graph)
        assert not await push_engine(broker, spec, plan, graph)
        assert await fleet_engines(broker) == [spec]
        assert await pull_engine(broker, spec.key) == (spec, plan, graph)
        with pytest.raises(UsageError, match="the fleet has no engine nothing"):
            await pull_engine(broker, "nothing")
    finally:
        await broker.close()


async def test_a_plan_that_is_not_its_sidecars_is_not_pulled(settings: Settings, tmp_path: Path) -> None:
    _, spec = kept_engine(tmp_path)
    broker = await shared(settings)
    try:
        await push_engine(broker, spec, b"another plan")
        with pytest.raises(ModelError, match="is damaged at the broker"):
            await pull_engine(broker, spec.key)
    finally:
        await broker.close()


@rtx
async def test_a_gpu_takes_its_engine_from_here_then_from_the_fleet_and_builds_what_nobody_has(
    settings: Settings, tmp_path: Path
) -> None:
    card, model = resnet()
    settings = settings.model_copy(update={"backend": "tensorrt_rtx"})
    compiler = TensorRtRtx(settings)
    broker = await shared(settings)

    async def ready(machine: str, capability: tuple[int, int] = (8, 6)) -> tuple[str, bytes]:
        found = await engine_for(
            compiler, broker, settings, tmp_path / machine, model, card, capability, "a GPU", Lock()
        )
        assert found.reference == model
        return found.spec.key, found.plan

    try:
        built = await ready("first")
        assert [spec.key for spec in await fleet_engines(broker)] == [built[0]]
        assert await ready("second") == built  # byte for byte: not built there
        for machine in ("first", "second"):
            (engine_store(tmp_path / machine).folder / f"{built[0]}.plan").write_bytes(b"vtrt")
            assert await ready(machine) == built
        turing, _ = await ready("first", (7, 5))
        assert turing != built[0]
        assert len(await fleet_engines(broker)) == 2
        with pytest.raises(UsageError, match="no engine for sm61"):
            await ready("first", (6, 1))
    finally:
        await broker.close()


@rtx
async def test_a_damaged_engine_of_the_fleet_is_passed_over_and_replaced(settings: Settings, tmp_path: Path) -> None:
    card, model = resnet()
    settings = settings.model_copy(update={"backend": "tensorrt_rtx"})
    compiler = TensorRtRtx(settings)
    broker = await shared(settings)
    try:
        recipe = Recipe.make(card, model, "fp16", {})
        spec, _ = obtain(EngineStore(tmp_path / "a"), recipe, recipe.basis("tensorrt_rtx", ("sm86",)))
        await push_engine(broker, spec, b"not the plan")
        found = await engine_for(compiler, broker, settings, tmp_path / "b", model, card, (8, 6), "a GPU", Lock())
        assert found.spec.key == spec.key
        assert (await pull_engine(broker, spec.key))[1] == found.plan
    finally:
        await broker.close()


def test_the_whole_way_on_the_command_line(
    server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "net.onnx").write_bytes(resnet()[1])
    (tmp_path / "net.toml").write_text('name = "sorter"\nversion = "3"\n')
    here, there = {"cache": tmp_path / "here"}, {"cache": tmp_path / "there"}

    def output(*arguments: str, cache: Path, code: int = ExitCode.OK) -> str:
        monkeypatch.setenv("RIGFLOW_CACHE", str(cache))
        ended = answer([*(() if arguments[0] == "model" else ("engine",)), *arguments])
        out, err = capsys.readouterr()
        assert ended == code, err
        return out + err

    assert "sorter@3" in output("model", "add", "net.onnx", "--card", "net.toml", **here)
    bench = json.loads(
        output("bench", "sorter", "--batches", "1,4", "--seconds", "0.05", "--out", "bench.json", "--json", **here)
    )
    assert bench == json.loads((tmp_path / "bench.json").read_text())
    assert [point["batch"] for point in bench["points"]] == [1, 4]
    assert all(0 < point["p50_ms"] <= point["p99_ms"] and point["runs"] >= 5 for point in bench["points"])
    assert bench["best_batch"] in (1, 4)
    assert "model nothing is missing" in output("bench", "nothing", code=ExitCode.USAGE, **here)
    if not installed("tensorrt_rtx"):
        assert "install tensorrt-rtx" in output("build", "sorter", "--for", "sm86", code=ExitCode.USAGE, **here)
        return
    built = output("build", "sorter", "--for", "sm75,sm86", **here)
    assert built.count("built in") == 2
    assert output("build", "sorter", "--for", "sm75,sm86", **here).count("is here already") == 2
    assert output("check", **here).count("graph: error") == 2
    first, second = (line.split()[0] for line in built.splitlines())
    assert "sorter@3" in output("show", first, **here)
    assert output("push", "--nats", server.url, **here).count("shared") == 2
    assert answer(["audit", "--action", "engine-pushed", "--json", "--nats", server.url]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert [each["target"] for each in entries] == ["sorter@3", "sorter@3"]
    assert first in output("list", "--nats", server.url, **there)
    assert second in output("pull", second, "--nats", server.url, **there)
    assert [spec["key"][:12] for spec in json.loads(output("list", "--json", **there))] == [second]
    plan = next((tmp_path / "here" / "engines").glob(f"{first}*.plan"))
    plan.write_bytes(plan.read_bytes()[:-1])
    assert "its plan is not the one that was built" in output("check", first, code=ExitCode.SOME_FAILED, **here)


@rtx
def test_int8_takes_its_ranges_from_media(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = generated(Clip(frames=24))
    (tmp_path / "net.onnx").write_bytes(resnet()[1])
    monkeypatch.setenv("RIGFLOW_CACHE", str(tmp_path / "cache"))
    order = ["engine", "build", str(tmp_path / "net.onnx"), "--for", "sm86", "--precision", "int8"]
    assert answer(order) == ExitCode.USAGE
    assert "add --calibrate FILE" in capsys.readouterr().err
    assert answer([*order, "--calibrate", str(clip)]) == ExitCode.OK
    assert " int8 " in capsys.readouterr().out
