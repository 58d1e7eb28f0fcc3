"""Workers compute a model with the options that their kind of device agreed on, which one of them tries."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engines.backends.onnxruntime import OnnxRuntime
from engines.models.catalogue import builtin_model
from engines.profiling.apart import Task
from engines.profiling.batches import shapes_of
from engines.profiling.models import device_name, model_on
from engines.profiling.store import kept_model_profiles
from engines.profiling.tuning import Allowed, Report, Tuned, Tuner
from pipelines.broker import Broker
from pipelines.profiles import agreed_choice, model_profiles, share_model_profile
from pipelines.topology import ensure_topology
from schemas.model_profile import ComputeOptions, ModelChoice
from schemas.settings import Settings
from tests.unit.test_tuning import CARD, Various, use_clock
from workers.costs import ModelCosts
from workers.tuning import ModelTuning

FACTS = SimpleNamespace(uuid="GPU-1", name="a GPU")
OTHER = SimpleNamespace(uuid="GPU-2", name="a GPU")


def gpu(facts: Any) -> Any:
    return SimpleNamespace(gpu=SimpleNamespace(facts=facts), name=f"cuda:{facts.uuid}")


async def test_a_processor_computes_as_the_fleet_agreed(settings: Settings, tmp_path: Path) -> None:
    device: Any = SimpleNamespace(gpu=None)
    card, model = builtin_model("shotchange")
    async with Broker.connected(settings, name="test") as broker:
        await ensure_topology(broker, settings, [])
        found = ModelTuning(broker, tmp_path, device)
        backend = OnnxRuntime(settings)
        assert await found.options(card, model, backend) == ComputeOptions()
        choice = ModelChoice(
            kind=device_name(device).kind,
            what=model_on(card, "onnxruntime", shapes_of(card, {})),
            library=backend.library(),
            allowed=str(Allowed.by(settings, card)),
            options=ComputeOptions(batch=8),
            measured_s=1.0,
        )
        await agreed_choice(broker, choice)
        assert await found.options(card, model, backend) == ComputeOptions(batch=8)
        any_length, graph = builtin_model("fingerprint")
        assert await found.options(any_length, graph, backend) == ComputeOptions()


async def test_one_gpu_of_a_kind_tries_options_for_all(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_clock(monkeypatch)
    monkeypatch.setattr("engines.profiling.models.driver_version", lambda: "580")
    settings = settings.model_copy(update={"tuning_s": 30.0})
    backends = [Various({"defaults": (4e-3, 0), "NHWC": (1e-3, 1e-7)}, layout=("nhwc",)) for _ in range(4)]
    tries: list[str] = []

    def tune(task: Task, report: Report) -> Tuned:
        """In this process, for this device is none."""
        tries.append(task.device)
        given = (task.model, task.card, gpu(FACTS), task.shapes, Allowed.by(task.settings, task.card))
        return Tuner(backends[3], *given, task.seconds, report).tune()

    monkeypatch.setattr("workers.tuning.tune_apart", tune)
    async with Broker.connected(settings, name="test") as broker:
        await ensure_topology(broker, settings, [])
        workers = [ModelTuning(broker, tmp_path, gpu(facts)) for facts in (FACTS, FACTS, OTHER)]
        tried = [worker.options(CARD, b"", backend) for worker, backend in zip(workers, backends[:3], strict=True)]
        assert await asyncio.gather(*tried) == [ComputeOptions(layout="nhwc")] * 3
        assert tries.count("cuda:GPU-1") == 1, "two workers of one GPU measure each other"
        tries.clear()
        late = ModelTuning(broker, tmp_path / "elsewhere", gpu(OTHER))
        assert await late.options(CARD, b"", backends[3]) == ComputeOptions(layout="nhwc")
        assert not tries
        profiles = await model_profiles(broker, CARD.identity)
        assert "GPU-1" in {each.device for each in profiles}
        assert kept_model_profiles(tmp_path, CARD.identity) == profiles
        assert profiles[0].driver == "580"
    settings = settings.model_copy(update={"tuning_s": 0.0, "tf32": True})  # another permission, another choice
    async with Broker.connected(settings, name="test") as broker:
        never = ModelTuning(broker, tmp_path, gpu(FACTS))
        assert await never.options(CARD, b"", backends[3]) == ComputeOptions()
    assert not tries


async def test_what_a_worker_measures_is_stored(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.costs.CHECK_S", 0.01)
    device: Any = SimpleNamespace(gpu=None)
    card, _ = builtin_model("shotchange")
    chosen = {card.identity: ComputeOptions(batch=8)}
    async with Broker.connected(settings, name="test") as broker:
        await ensure_topology(broker, settings, [])
        costs = ModelCosts()
        costs.ran(card, [(8, 8, 0.004)] * 8)
        async with asyncio.timeout(20):
            following = asyncio.create_task(costs.follow(broker, tmp_path, device, chosen))
            while not (found := await model_profiles(broker)):
                await asyncio.sleep(0.01)
        following.cancel()
        [profile] = found
        assert (profile.source, profile.batch_s, profile.chosen.batch) == ("work", {8: 0.004}, 8)
        assert kept_model_profiles(tmp_path, card.identity) == [profile]
        newer = profile.model_copy(update={"library": "0", "batch_s": {8: 9.0}})  # of another version of the library
        await share_model_profile(broker, newer)
        again = ModelCosts()
        again.ran(card, [(8, 8, 0.004)] * 8)
        async with asyncio.timeout(20):
            following = asyncio.create_task(again.follow(broker, tmp_path, device, chosen))
            while (await model_profiles(broker))[0] == newer:
                await asyncio.sleep(0.01)
        following.cancel()
        assert (await model_profiles(broker))[0].batch_s == {8: 0.004}
