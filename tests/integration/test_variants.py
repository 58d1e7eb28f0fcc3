"""Pipelines changed by --model, --set or --stream: for the jobs of that command alone, at a real broker."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from onnx import helper

from pipelines.broker import Broker
from pipelines.job_records import all_manifests
from pipelines.registry import builtin_pipeline, hosted_names, known_pipelines, load_pipeline, pipeline_names
from pipelines.status import fleet_status
from pipelines.topology import apply_topology
from schemas.errors import PipelineError
from schemas.settings import Settings
from tests.cli import rigflow
from tests.clips import Clip, make_clip
from tests.onnx_graphs import BODY, FLOAT, UINT8, model_of, value
from tests.unit.small_pipelines import INFER, pipeline_text
from workers.definitions import find_models, register

PIPELINE = pipeline_text(INFER + 'model = "one"', 'size = [8, 8]\nlayout = "gray"')
VARIED = (("--model", "two"), ("--set", "infer.max_batch=3"), ("--stream", "0"))

Publish = Callable[..., str]  # options -> the id of the job


@pytest.fixture
def publish(settings: Settings, tmp_path: Path) -> Publish:
    """`rigflow publish p.toml clip.mp4` with more options, to a broker without workers."""
    clip = make_clip(tmp_path, Clip(frames=4))
    (tmp_path / "p.toml").write_text(PIPELINE)
    for name, node in (("one", "ReduceMean"), ("two", "ReduceMax")):
        nodes = [BODY[0], helper.make_node(node, ["f"], ["y"], axes=[1, 2], keepdims=0)]
        graph = model_of(nodes, [value("pixels", UINT8, ["N", 8, 8])], [value("y", FLOAT, ["N"])])
        (tmp_path / f"{name}.onnx").write_bytes(graph)

    def publish(*options: str) -> str:
        done = rigflow("publish", tmp_path / "p.toml", clip, "--nats", settings.nats, *options)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return publish


@pytest.mark.parametrize("options", VARIED, ids=["model", "set", "stream"])
async def test_a_variant_is_for_the_jobs_of_its_command(
    settings: Settings, publish: Publish, options: tuple[str, ...]
) -> None:
    first = await asyncio.to_thread(publish)
    async with Broker.connected(settings, name="test") as broker:
        plain = await load_pipeline(broker, "p")
        second = await asyncio.to_thread(publish, *options)
        assert await load_pipeline(broker, "p") == plain, "raw media and other jobs run on this"
        revisions = {manifest.job.id: manifest.job.revision for manifest in await all_manifests(broker)}
        assert revisions[first] == plain.revision != revisions[second]
        variant = await load_pipeline(broker, revisions[second])
        assert variant.name == "p"
        assert ("two" in variant.models) == ("--model" in options)


async def test_a_pipeline_that_has_variants_alone(settings: Settings) -> None:
    spec = builtin_pipeline("scenes")
    models = find_models(spec, None)
    async with Broker.connected(settings, name="test") as broker:
        await apply_topology(broker, settings, [])
        await register(broker, settings, spec.with_fields({"infer.max_batch": 3}), models, variant=True)
        variant = await register(broker, settings, spec.with_stream(0), models, variant=True)
        assert await pipeline_names(broker) == {}
        assert await known_pipelines(broker) == []
        with pytest.raises(PipelineError, match="the broker knows no pipeline scenes"):
            await load_pipeline(broker, "scenes")
        assert await hosted_names(broker) == {"scenes": variant.revision}, "the last is loaded by workers that start"
        status = await fleet_status(broker)
        assert {queue.pipeline for queue in status.queues} == {"scenes"}, "its queues are seen"
        plain = await register(broker, settings, spec, models)
        assert await hosted_names(broker) == await pipeline_names(broker) == {"scenes": plain.revision}
