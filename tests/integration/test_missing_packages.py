"""A worker that cannot import a package of a backend takes no work that needs it; another worker does it."""

import asyncio
import json
import socket
import sys
from functools import partial
from pathlib import Path

import pytest

from engines.backends.choice import check_backend
from engines.extras import imported
from engines.needs import check_format
from engines.plan import Plan
from engines.planned import DecodePlan, Tensor
from engines.speech.voices import VOICES
from pipelines.broker import Broker
from pipelines.registry import builtin_pipeline
from pipelines.status import fleet_status
from pipelines.waits import why_waiting
from schemas.errors import PluginMissing
from schemas.jobs import JobRef
from schemas.model import ModelSpec
from schemas.settings import Settings
from tests.clips import Clip, make_clip
from tests.fleet import Fleet
from tests.integration.queues import eventually
from workers.definitions import find_models, register
from workers.forkserver import Entry
from workers.options import WorkerOptions
from workers.process import start_worker


def worker_without(package: str) -> Entry:
    """What a worker process runs in which the import of a package fails."""
    return partial(_start, package)


def _start(package: str, options: WorkerOptions, heartbeats: socket.socket | None) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[module]
    sys.modules.pop(f"engines.inference.{package}", None)  # the process that this one is forked from has it
    sys.modules[package] = None  # type: ignore[assignment]
    start_worker(options, heartbeats)


async def declined(broker: Broker, worker: str, pipeline: str) -> str:
    items = await broker.items(broker.names.rigs, f"worker.{worker}")
    return "".join(json.loads(body).get("declined", {}).get(pipeline, "") for body in items.values())


async def test_work_goes_to_a_worker_that_has_the_package(tmp_path: Path) -> None:
    spec, clip = builtin_pipeline("fingerprint"), make_clip(tmp_path, Clip(frames=60, gop=10))
    with Fleet((), tmp_path / "cache", entry=worker_without("onnxruntime")) as fleet:
        async with Broker.connected(fleet.settings, name="test") as broker:
            published = await register(broker, fleet.settings, spec, find_models(spec, None))
            fleet.add()

            async def declines() -> bool:
                return "onnxruntime" in await declined(broker, "test-0", spec.name)

            await eventually(declines)
            running = asyncio.create_task(fleet.run_async(spec, [clip], tmp_path / "out"))

            async def waits() -> bool:
                job = JobRef(id="x", pipeline=spec.name, revision=published.revision)
                return "cannot be imported here" in await why_waiting(broker, [job])

            await eventually(waits)
            assert not running.done()
            fleet.entry = start_worker
            fleet.add()
            [outcome] = await running
            assert outcome.ok, outcome
            status = {worker["worker"]: worker for worker in (await fleet_status(broker)).workers}
            assert (status["test-0"]["failures"], status["test-0"]["ready"]) == (0, True)


@pytest.mark.parametrize(
    ("backend", "module", "extra"),
    [
        ("onnxruntime-genai", "onnxruntime_genai", "llm"),
        ("ctranslate2", "ctranslate2", "stt"),
        ("diffusion", "tokenizers", "imagine"),
    ],
)
def test_a_backend_says_what_to_install(backend: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    card = ModelSpec(name="m", backend=backend, inputs=(), outputs=(), sha256="0" * 64)
    with pytest.raises(PluginMissing, match=rf"model m needs the package {module}, which .* the extra {extra}: "):
        check_backend(card, Settings())
    check_backend(card.model_copy(update={"backend": None}), Settings())


def test_a_package_that_writes_the_results_is_missed_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels of speakers are computed when all the work is done."""
    spec = builtin_pipeline("transcribe-speakers")
    plan = partial(Plan, spec, DecodePlan(spec.decode, spec.media, spec.grid, {}, {}), {})
    monkeypatch.setitem(sys.modules, "scipy.cluster.hierarchy", None)
    check_format(plan({spec.stage[-2].name: {}}))
    with pytest.raises(PluginMissing, match=r"format transcript of pipeline transcribe-speakers .* extra cluster: "):
        check_format(plan({spec.stage[-2].name: {VOICES: Tensor("int16", ("W", "count", 256), ragged=True)}}))


@pytest.mark.parametrize("name", ["transcribe-speakers", "summarise"])
def test_pipelines_that_transcribe_cut_sound_at_the_same_places(name: str) -> None:
    transcribe, other = builtin_pipeline("transcribe"), builtin_pipeline(name)
    assert (other.decode, other.segment_s) == (transcribe.decode, transcribe.segment_s)


def test_a_package_that_is_damaged_is_not_called_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "damaged_package.py").write_text("raise ImportError('libcudart.so.12 is not there')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(PluginMissing, match=r"cannot be imported here .libcudart.so.12 is not there"):
        imported("damaged_package", "it", "llm")
    with pytest.raises(PluginMissing, match="needs the package no_such_package, which is not installed here"):
        imported("no_such_package", "it", "llm")
