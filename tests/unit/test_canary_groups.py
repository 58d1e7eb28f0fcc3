"""Which cards a canary compares."""

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import engines.canary
from benchmarks.fleet import simulated
from engines.canary import Canary, canary_of, versions
from schemas.cards import CanaryRecord
from schemas.errors import DeviceLost, PipelineError
from schemas.settings import Settings
from workers.canaries import FORGET_S, MOST_FAILURES, Canaries
from workers.canary_run import CanaryFailed, TooLong


def canaries(card: str, gpu: object) -> Any:
    """Canaries of a process that has `gpu`, or none; nothing of them runs."""
    trust: Any = SimpleNamespace(card=card, kind="a kind", good_ms=0, record=None)
    broker: Any = SimpleNamespace(settings=Settings(), now_s=time.time)
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


class Entry(SimpleNamespace):
    """An entry point of a plug-in."""

    dist = SimpleNamespace(name="plug_in")


def test_a_plug_in_whose_code_changes_makes_another_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its release may stay the same; so it is for what it needs."""
    releases = {"plug-in": "1", "needed": "1"}
    needs = {"plug-in": ["needed>=1; extra == 'more'"]}

    def version(name: str) -> str:
        if name not in releases:
            raise engines.canary.PackageNotFoundError(name)
        return releases[name]

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(engines.canary, "entry_points", lambda group: [Entry(module="plug_in_here.operators")])
    monkeypatch.setattr(engines.canary, "version", version)
    monkeypatch.setattr(engines.canary, "requires", needs.get)
    code = tmp_path / "plug_in_here" / "operators.py"
    code.parent.mkdir()
    (code.parent / "__init__.py").touch()
    found = []
    for text, release in (("a = 1", "1"), ("a = 1", "1"), ("a = 2", "1"), ("a = 2", "2")):
        code.write_text(text)
        releases["needed"] = release
        found.append(versions.__wrapped__())
    assert found[0] == found[1]
    assert len(set(found)) == 3


async def test_dead_cards_have_no_vote(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of another software that were switched off for good do not outvote one that works."""
    now_s = time.time()
    given = {"group": "g", "first": "old", "last": "old"}
    dead = [CanaryRecord(card=card, at_s=now_s - 86400, **given) for card in ("b", "c")]
    mine = CanaryRecord(card="a", group="g", first="new", last="new", at_s=now_s)

    async def records(*_: object, **__: object) -> list[CanaryRecord]:
        return [mine, *dead]

    async def none(*_: object) -> set[str]:
        return set()

    monkeypatch.setattr("workers.canaries.canaries", records)
    monkeypatch.setattr("workers.canaries.out_of_work", none)
    one = canaries("a", None)
    one._loaded = lambda: [pipeline(1)]
    assert await one._judge("p", "g") == ""


def test_a_library_that_cannot_draw_a_media_leaves_a_pipeline_without_a_canary(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(frames: int) -> bytes:
        raise ValueError("there is no libx264")

    assert canary_of(simulated()) is not None
    monkeypatch.setattr("engines.canary._film", raises)
    monkeypatch.setattr("engines.canary._picture", lambda: b"")
    assert canary_of(simulated()) is None


def failing(error: Exception) -> Any:
    """Canaries of one pipeline whose canary ends with an error."""

    async def fails(*_: object) -> None:
        raise error

    one = canaries("a", None)
    one._tick = lambda: None
    one._trust.canaries = {"failed": 0}
    one._computing = SimpleNamespace(run_step=fails)
    one._drawn = {"r": Canary([], "sha")}
    one._loaded = lambda: [PIPELINE]
    one._trust.begin = lambda: 1
    one._recent = SimpleNamespace(begin=lambda: None)
    return one


PIPELINE = pipeline(1)


@pytest.mark.parametrize("error", [TooLong("5 s"), RuntimeError("closed")])
async def test_a_canary_that_fails_once_is_not_good_and_is_tried_again(error: Exception) -> None:
    one = failing(error)
    for _ in range(MOST_FAILURES - 1):
        with pytest.raises(CanaryFailed):
            await one.round()
    assert await one._one(PIPELINE) is None
    assert one._drawn == {"r": None}


async def test_a_card_that_computed_a_canary_and_then_fails_is_never_good() -> None:
    one = failing(RuntimeError("an illegal address"))
    one._worked.add("r")
    for _ in range(2 * MOST_FAILURES):
        with pytest.raises(CanaryFailed):
            await one.round()


async def test_a_lost_device_ends_the_process() -> None:
    one = failing(DeviceLost("gone"))
    with pytest.raises(DeviceLost):
        await one.round()


async def test_media_that_do_not_suit_a_pipeline_are_given_up_at_once() -> None:
    one = failing(PipelineError("no text"))
    assert await one._one(PIPELINE) is None
    assert one._drawn == {"r": None}


async def test_a_worker_that_starts_deletes_answers_that_nothing_is_compared_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s, ended_s = time.time(), time.time() - FORGET_S - 1
    known = [
        CanaryRecord(card="a", worker="a", group="before", process="another", at_s=now_s),
        CanaryRecord(card="b", worker="b", group="gone", at_s=ended_s),
        CanaryRecord(card="a", worker="a", group="kept", first="x", last="x", at_s=now_s),
        CanaryRecord(card="a", worker="second", group="beside", process="its", at_s=now_s),
        CanaryRecord(card="c", worker="c", group="quarantined", at_s=ended_s),
    ]
    forgotten, stored = [], []

    async def records(*_: object) -> list[CanaryRecord]:
        return known

    async def out(*_: object) -> set[str]:
        return {"c"}

    async def forget(_: object, record: CanaryRecord) -> None:
        forgotten.append(record.group)

    async def put(_: object, record: CanaryRecord) -> None:
        stored.append(record)

    for name, fake in (("canaries", records), ("out_of_work", out), ("forget_canary", forget), ("put_canary", put)):
        monkeypatch.setattr(f"workers.canaries.{name}", fake)
    one = canaries("a", object())
    one._drawn, one._loaded = {"r": Canary([], "sha")}, lambda: [pipeline(1)]
    await one._recall()
    assert forgotten == ["before", "gone"]
    assert set(one._mine) == {"kept"}
    assert [each.process for each in stored] == [one._process]
    assert "process" not in CanaryRecord(card="a", group="g").model_dump()
