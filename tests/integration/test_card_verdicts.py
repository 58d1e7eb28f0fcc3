"""What a worker does about verdicts on its card."""

import asyncio
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.fleet import simulated
from pipelines.broker import Broker
from pipelines.cards import ask_to_readmit, card_record, doubts, put_canary, quarantine, readmit
from pipelines.cards import canaries as stored
from pipelines.topology import apply_topology
from schemas.cards import CanaryRecord, CardState, Reason
from schemas.errors import BrokerError, PluginMissing, RigflowError, SelfTestFailed
from schemas.settings import Settings
from workers.canaries import Canaries
from workers.card_guard import CardGuard
from workers.messages_in_flight import MessagesInFlight
from workers.pipeline_cache import PipelineCache
from workers.recent import Recent
from workers.trust import Trust

SPEC = simulated()


class Follower:
    """A worker that notes each state that its card comes to."""

    def __init__(self, broker: Broker, good_ms: int) -> None:
        self._broker = broker
        self.trust = Trust("GPU-1", "w")
        self.trust.good_ms = good_ms
        self.states: list[CardState] = []

    async def look(self) -> list[CardState]:
        """The states since the last look."""
        self.states = []
        await self.trust.look(self._broker, self._on_change)
        return self.states

    async def _on_change(self, state: CardState) -> None:
        self.states.append(state)


async def test_a_quarantine_between_two_looks_is_obeyed(settings: Settings) -> None:
    async with Broker.connected(settings, "test") as broker:
        await apply_topology(broker, settings, [SPEC])
        follower = Follower(broker, 1_000)
        assert await follower.look() == []
        await quarantine(broker, "GPU-1", Reason.ORDER, "why", 1_000)
        await ask_to_readmit(broker, "GPU-1")
        assert await follower.look() == [CardState.QUARANTINED, CardState.CHECKING]
        assert await follower.look() == []
        await readmit(broker, "GPU-1")
        assert await follower.look() == [CardState.TRUSTED]
        for _ in range(2):
            await quarantine(broker, "GPU-1", Reason.ORDER, "why", follower.trust.good_ms)
            await ask_to_readmit(broker, "GPU-1")
            await readmit(broker, "GPU-1")
            assert await follower.look() == [CardState.QUARANTINED, CardState.TRUSTED]
            record = await card_record(broker, "GPU-1")
            assert record is not None
            assert follower.trust.good_ms >= record.doubts[-1].until_ms
        assert await follower.look() == []


async def test_an_accusation_that_comes_while_another_is_weighed_is_kept(settings: Settings) -> None:
    async with Broker.connected(settings, "test") as broker:
        await apply_topology(broker, settings, [SPEC])
        follower: Any = Follower(broker, 1_000)

        async def works_elsewhere(*_: object) -> bool:
            follower.trust.accuse(Reason.CANARY, "it answered otherwise")
            return False

        follower.trust._works_elsewhere = works_elsewhere
        follower.trust.accuse(Reason.SELF_TEST, "its error is 0.3", "abc")
        assert await follower.look() == [CardState.QUARANTINED]
        assert follower.trust.record.why == "it answered otherwise"


async def test_a_worker_whose_last_good_canary_is_older_extends_the_second_doubt_as_well(settings: Settings) -> None:
    async with Broker.connected(settings, "test") as broker:
        await apply_topology(broker, settings, [SPEC])
        await quarantine(broker, "GPU-1", Reason.CANARY, "why", 1_000)
        await ask_to_readmit(broker, "GPU-1")
        await readmit(broker, "GPU-1")
        later_ms = Trust("", "now").good_ms + 60_000
        await quarantine(broker, "GPU-1", Reason.CANARY, "why", later_ms)
        for ask in (False, True):  # the order to check it stays
            if ask:
                await ask_to_readmit(broker, "GPU-1")
            follower = Follower(broker, later_ms - 10 - ask)
            await follower.look()
            await guard(broker, follower.trust).do_again()
            record = await card_record(broker, "GPU-1")
            assert record is not None
            assert record.doubts[-1].since_ms == later_ms - 10 - ask
            assert record.state is (CardState.CHECKING if ask else CardState.QUARANTINED)
        assert record.doubts[0].since_ms == 1_000


async def test_a_round_after_whose_beginning_a_verdict_came_certifies_nothing(settings: Settings) -> None:
    async with Broker.connected(settings, "test") as broker:
        await apply_topology(broker, settings, [SPEC])
        trust = Trust("GPU-1", "w")
        trust.good_ms = 1_000
        certified: list[int] = []
        recent: Any = SimpleNamespace(begin=lambda: None, good=lambda: certified.append(trust.good_ms))
        unused: Any = None
        loaded: Any = lambda: ["a pipeline"]  # noqa: E731
        canaries: Any = Canaries(broker, unused, unused, trust, recent, loaded, {}, "w", unused, asyncio.Event())

        async def one(_: object) -> None:
            if not certified:
                return
            await quarantine(broker, "GPU-1", Reason.ORDER, "why", 1_000)

        canaries._one = one
        assert await canaries.round() == ""
        assert certified == [trust.good_ms]
        assert await canaries.round() == ""
        assert certified == [trust.good_ms]


async def test_a_verdict_waits_for_the_round_that_is_going_on(settings: Settings) -> None:
    async with Broker.connected(settings, "test") as broker:
        made = guard(broker, Trust("GPU-1", "w"))
        async with made._canaries.lock:
            obeying = asyncio.create_task(made._on_change(CardState.QUARANTINED))
            while not made._runner.intake.quarantined:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not obeying.done()
        await obeying


async def test_an_input_that_could_not_be_sent_again_is_kept(settings: Settings) -> None:
    async with Broker.connected(settings, "test") as broker:
        await apply_topology(broker, settings, [SPEC])
        recent: Any = Recent(broker, Trust("GPU-1", "w"))
        inputs = [SimpleNamespace(delivery=SimpleNamespace(nbytes=1), job=number, canaries=0) for number in range(3)]
        recent._done.extend(inputs)
        recent._nbytes = 3

        async def fails(_: object) -> bool:
            raise BrokerError("away")

        async def ended(_: object) -> bool:
            recent.begin()
            recent.good()  # whatever removes inputs meanwhile
            return True

        recent._note_ended = fails
        with pytest.raises(BrokerError):
            await recent.do_again(MessagesInFlight())
        assert list(recent._done) == inputs
        recent._note_ended = ended
        await recent.do_again(MessagesInFlight())
        assert recent._nbytes == 0


async def test_a_process_that_starts_after_a_readmission_marks_its_parts_outside_of_the_doubt(
    settings: Settings,
) -> None:
    async with Broker.connected(settings, "test") as broker:
        await apply_topology(broker, settings, [SPEC])
        await put_canary(broker, CanaryRecord(card="GPU-1", group="g", good_ms=2_000))
        await quarantine(broker, "GPU-1", Reason.CANARY, "why", 1_000)
        await ask_to_readmit(broker, "GPU-1")
        await readmit(broker, "GPU-1")
        trust = Trust("GPU-1", "w")
        await trust.recall(broker)
        assert not (await doubts(broker)).has(trust.mark)


async def test_a_check_waits_for_the_pipelines_and_is_not_passed_by_failures(settings: Settings) -> None:
    async with Broker.connected(settings, "test") as broker:
        await apply_topology(broker, settings, [SPEC])
        trust = Trust("GPU-1", "w")
        made: Any = guard(broker, trust)
        steps: list[str] = []

        async def step(name: str) -> str:
            steps.append(name)
            trust.canaries["failed"] += name == "round"
            return ""

        made._reload = partial(step, "reload")
        made._canaries.open, made._canaries.round = partial(step, "open"), partial(step, "round")
        await quarantine(broker, "GPU-1", Reason.CANARY, "why", 1_000)
        record = await ask_to_readmit(broker, "GPU-1")
        await made._on_change(record.state)
        assert steps == ["open", "reload", "round"]
        refused = await card_record(broker, "GPU-1")
        assert refused is not None
        assert (refused.state, refused.why[:16]) == (CardState.QUARANTINED, "its check failed")


async def test_a_passed_check_forgets_answers_that_it_did_not_compute(settings: Settings) -> None:
    async with Broker.connected(settings, "test") as broker:
        await apply_topology(broker, settings, [SPEC])
        unused: Any = None
        canaries: Any = Canaries(
            broker, unused, unused, Trust("GPU-1", "w"), unused, unused, {}, "w", unused, asyncio.Event()
        )
        for group in ("here", "gone"):
            canaries._mine[group] = CanaryRecord(card="GPU-1", group=group, first="right", last="other")
            await put_canary(broker, canaries._mine[group])
        canaries._answered = {"here"}
        await canaries.passed()
        assert [(each.group, each.first) for each in await stored(broker, "GPU-1")] == [("here", "other")]


async def test_a_check_tests_the_engine_that_the_card_is_out_of_work_for(monkeypatch: pytest.MonkeyPatch) -> None:
    unused: Any = None
    errors: dict[str, RigflowError | None] = {
        "a": None,
        "b": PluginMissing("no plug-in"),
        "c": SelfTestFailed("its error is 0.3"),
    }
    pipelines: Any = PipelineCache.__new__(PipelineCache)
    pipelines._names, pipelines._pipelines = {name: name for name in errors}, {"a": unused}

    async def get(_: object, revision: str) -> None:
        if (error := errors[revision]) is not None:
            raise error

    async def nothing(_: object) -> None: ...

    monkeypatch.setattr(PipelineCache, "newest", [SimpleNamespace(spec=SimpleNamespace(revision="a"))])
    monkeypatch.setattr(PipelineCache, "get", get)
    monkeypatch.setattr(PipelineCache, "unload_idle", nothing)
    with pytest.raises(SelfTestFailed):
        await pipelines.reload()
    errors["c"] = None
    await pipelines.reload()


async def test_a_worker_ends_although_a_verdict_cannot_be_obeyed_and_waits_for_one_that_is(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.card_guard.LEAVE_S", 60.0)
    async with Broker.connected(settings, "test") as broker:
        await apply_topology(broker, settings, [SPEC])
        made: Any = guard(broker, Trust("GPU-1", "w"))
        begun, go_on = asyncio.Event(), asyncio.Event()
        obeyed: list[CardState] = []

        async def on_change(state: CardState) -> None:
            begun.set()
            await go_on.wait()
            obeyed.append(state)

        made._on_change = on_change
        await quarantine(broker, "GPU-1", Reason.CANARY, "why", 1_000)
        looking = asyncio.create_task(made._trust.look(broker, on_change))
        await begun.wait()
        leaving = asyncio.create_task(made.leave())
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        await leaving
        assert obeyed == [CardState.QUARANTINED]
        await looking

        async def fails(_: CardState) -> None:
            raise ValueError("unexpected")

        made._on_change = fails
        await ask_to_readmit(broker, "GPU-1")
        await made.leave()


def guard(broker: Broker, trust: Trust) -> CardGuard:
    """A guard of a worker that has nothing in hand."""

    async def nothing(*_: object) -> None: ...

    recent = SimpleNamespace(do_again=nothing)
    intake = SimpleNamespace(quarantined=False, io=SimpleNamespace(hand_back=nothing))
    runner: Any = SimpleNamespace(trust=trust, recent=recent, in_flight=None, intake=intake)
    obedience: Any = SimpleNamespace(obey=lambda: None)
    canaries: Any = SimpleNamespace(lock=asyncio.Lock())
    return CardGuard(broker, runner, obedience, canaries, nothing)
