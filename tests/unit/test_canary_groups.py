"""Which cards a canary compares."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from engines.canary import Canary
from schemas.settings import Settings
from workers.canaries import Canaries


def canaries(card: str, gpu: object) -> Any:
    """Canaries of a process that has `gpu`, or none; nothing of them runs."""
    trust: Any = SimpleNamespace(card=card, kind="a kind", good_ms=0)
    broker: Any = SimpleNamespace(settings=Settings())
    device: Any = SimpleNamespace(gpu=gpu)
    unused: Any = None
    made: Any = Canaries(broker, device, unused, trust, unused, unused, {}, card, unused, asyncio.Event())
    made._shared = ("a kind", "a driver")
    return made


def pipeline(models: int, load: int = 1) -> Any:
    spec = SimpleNamespace(revision="r", name="p")
    return SimpleNamespace(spec=spec, models=[SimpleNamespace(identity="m")] * models, load=load)


@pytest.fixture(autouse=True)
def stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.canaries.covered", lambda _: ("decode", "infer"))
    monkeypatch.setattr("workers.canaries.backend_of", lambda *_: object())


@pytest.mark.parametrize(("gpu", "models", "compared"), [(None, 1, True), (object(), 0, True), (object(), 1, False)])
async def test_processes_that_infer_on_a_gpu_are_compared_with_themselves(
    gpu: object, models: int, compared: bool
) -> None:
    """cuDNN tries its algorithms in each session, and their last bits differ."""
    one, other = canaries("a", gpu), canaries("b", gpu)
    groups = [await each._group(pipeline(models), Canary([], "sha")) for each in (one, one, other)]
    assert groups[0] == groups[1]
    assert (groups[1] == groups[2]) is compared


@pytest.mark.parametrize(("gpu", "models", "compared"), [(None, 1, True), (object(), 0, True), (object(), 1, False)])
async def test_a_model_that_is_loaded_again_on_a_gpu_is_not_compared_with_before(
    gpu: object, models: int, compared: bool
) -> None:
    """Its new session tries the algorithms anew: an honest card may answer with other last bits."""
    one = canaries("a", gpu)
    before, after = [await one._group(pipeline(models, load), Canary([], "sha")) for load in (1, 2)]
    assert (before == after) is compared
