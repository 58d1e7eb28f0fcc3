"""A card that a person takes out of work, and back."""

import asyncio
from pathlib import Path

import pytest

from benchmarks.fleet import simulated
from pipelines.audit import read_audit
from pipelines.broker import Broker
from pipelines.card_orders import order_quarantine, order_readmit
from pipelines.cards import card_record, card_records, good_ms, put_canary, quarantine
from pipelines.client import Client
from pipelines.collect import Collector
from pipelines.job_records import find_manifest
from pipelines.status import running_statuses
from pipelines.topology import apply_topology
from schemas.cards import CanaryRecord, CardState, Reason, mark_of
from schemas.errors import ExitCode, NotFound
from schemas.jobs import Key
from schemas.results import Failure
from schemas.settings import Settings
from schemas.subjects import HEADER_TYPE
from tests.cards import lines, states, until, until_state
from tests.cli import rigflow
from tests.clips import Clip, make_clip
from tests.fleet import Fleet
from tests.integration.queues import a_fleet
from tests.integration.test_one_done import begun, send_result, stored
from tests.simulated import models_of
from workers.definitions import register
from workers.trust import Trust, setup_of

SPEC = simulated()


async def results_of(broker: Broker) -> dict[str, int]:
    """How many results each worker made."""
    workers, _ = await running_statuses(broker)
    return {str(worker["worker"]): int(worker["results"]) for worker in workers}


def test_a_quarantined_card_takes_no_work_until_it_is_readmitted(tmp_path: Path) -> None:
    media = make_clip(tmp_path, Clip(frames=60, gop=5)).read_bytes()
    with Fleet([("all",)] * 2, tmp_path / "cache") as fleet:
        asyncio.run(_out_and_in(fleet, media))


async def _out_and_in(fleet: Fleet, media: bytes) -> None:
    at = ("--nats", fleet.settings.nats)
    async with Broker.connected(fleet.settings, name="test") as broker:
        spec = await register(broker, fleet.settings, SPEC, models_of(SPEC))
        for worker in ("test-0", "test-1"):
            await until_state(broker, worker, "idle")
        assert {card: line.state for card, line in (await lines(broker)).items()} == {
            "test-0": CardState.TRUSTED,
            "test-1": CardState.TRUSTED,
        }
        unknown = await asyncio.to_thread(rigflow, "cards", "quarantine", "test-7", *at)
        assert unknown.stderr == "rigflow: there is no card 'test-7': known are test-0, test-1\n"
        taken = await asyncio.to_thread(rigflow, "cards", "quarantine", "test-0", "--why", "it smells", *at)
        assert taken.stdout == "test-0: is quarantined, and takes no more work\n"
        await until_state(broker, "test-0", "quarantined")
        line = (await lines(broker))["test-0"]
        assert (line.state, line.reason, line.why) == (CardState.QUARANTINED, "order", "it smells")

        await asyncio.to_thread(fleet.kill, 0)  # it stays quarantined
        await broker.delete_key(broker.names.rigs, "worker.test-0")
        await until_state(broker, "test-0", "quarantined")
        done = await (await Client(broker).submit(spec, media, job="without")).done()
        assert (done.frames, done.failures) == (60, ())
        counts = await results_of(broker)
        assert counts["test-0"] == 0

        shown = await asyncio.to_thread(rigflow, "cards", *at)
        assert "it smells" in shown.stdout.splitlines()[1], "what is out of work comes first"
        back = await asyncio.to_thread(rigflow, "cards", "readmit", "test-0", *at)
        assert (back.returncode, back.stdout) == (ExitCode.OK, "test-0: works again\n")
        await until_state(broker, "test-0", "idle", "working")
        actions = [(each.entry.action, each.entry.target) async for each in read_audit(broker)]
        assert actions[-2:] == [("card-quarantined", "test-0"), ("card-readmitted", "test-0")]
        again = await asyncio.to_thread(rigflow, "cards", "readmit", "test-0", *at)
        assert again.stderr == "rigflow: card test-0 works already: see `rigflow cards`\n"
        assert (await states(broker))["test-0"] != "quarantined"

        await order_quarantine(broker, "test-1", "its fan stands still")  # the job without test-0 is over
        await until(lambda: _is_in_doubt(broker, "without"))
        shown = await asyncio.to_thread(rigflow, "jobs", "show", "without", *at)
        assert "in doubt  card test-1 was found to answer wrongly after it computed parts of this job" in shown.stdout


async def _is_in_doubt(broker: Broker, job: str) -> bool:
    manifest = await find_manifest(broker, job)
    return manifest is not None and bool(manifest.doubt)


async def test_the_first_verdict_stays_and_its_doubt_only_grows(settings: Settings) -> None:
    async with Broker.connected(settings, "test") as broker:
        await apply_topology(broker, settings, [SPEC])
        first, new = await quarantine(broker, "a", Reason.CANARY, "first", 1_000)
        second, again = await quarantine(broker, "a", Reason.FAULT, "second", 500)
        third, _ = await quarantine(broker, "a", Reason.FAULT, "third", 2_000)
    assert (new, again) == (True, False)
    assert (second.why, second.reason, second.at_s) == ("first", Reason.CANARY, first.at_s)
    assert [each.since_ms for each in third.doubts] == [500]


async def test_a_card_that_no_name_is_readmits_no_other_and_is_not_audited(settings: Settings) -> None:
    async with Broker.connected(settings, "test") as broker:
        await apply_topology(broker, settings, [SPEC])
        await quarantine(broker, "a", Reason.ORDER, "by an order", 1_000)
        for name in ("*", ">", "b", "a.b"):
            with pytest.raises(NotFound, match="no card"):
                await order_readmit(broker, name)
            assert await card_record(broker, name) is None
        assert [each async for each in read_audit(broker)] == []
        (record,) = await card_records(broker)
    assert (record.card, record.state) == ("a", CardState.QUARANTINED)


async def test_an_engine_that_fails_its_test_quarantines_a_card_only_where_others_of_its_kind_pass(
    settings: Settings,
) -> None:
    async def nothing(_: CardState) -> None: ...

    async with Broker.connected(settings, "test") as broker:
        await apply_topology(broker, settings, [SPEC])
        trust = Trust("GPU-1", "w", rig="r", kind="P104")
        other_way = settings.model_copy(update={"precision": "fp16"})
        other = CanaryRecord(card="GPU-2", group="g", kind="T4", revision="abc", last="x")
        here = setup_of(settings)
        cases = (("T4", here, None), ("P104", setup_of(other_way), None), ("P104", here, Reason.SELF_TEST))
        for kind, setup, expected in cases:
            await put_canary(broker, other.model_copy(update={"kind": kind, "setup": setup}))
            trust.accuse(Reason.SELF_TEST, "its error is 0.3", "abc")
            await trust.look(broker, nothing)
            record = await card_record(broker, "GPU-1")
            assert (record and record.reason) == expected
    assert trust.quarantined


async def test_what_a_card_failed_at_is_in_doubt_too(settings: Settings, tmp_path: Path) -> None:
    async with a_fleet(settings) as (broker, publisher), Broker.connected(settings, name="collector") as collecting:
        job = (await begun(broker, publisher, "film")).manifest.job
        key = Key(job=job, segment=0, final=True)
        failure = Failure(key=key, stage="decode", error="not finite", cards=(mark_of("a", 1_000),))
        await broker.publish(broker.names.results(job), failure.encode(), "failure", {HEADER_TYPE: "failure"})
        await quarantine(broker, "a", Reason.CANARY, "it errs", 500)
        collector = Collector(collecting, publisher.spec)
        await collector.open({job: tmp_path / "film"})
        waiting = asyncio.create_task(collector.wait(job.id))

        async def dropped() -> bool:
            return waiting.done() or (await stored(broker, job))[1] == []

        await until(dropped)
        await send_result(broker, job)
        async with asyncio.timeout(60.0):
            done = await waiting
        await collector.close()
    assert (done.failures, done.frames) == ((), 1)


async def test_a_card_was_good_until_the_first_of_its_workers_was_not(settings: Settings) -> None:
    async with Broker.connected(settings, "test") as broker:
        await apply_topology(broker, settings, [SPEC])
        round_ms = int(60_000 * settings.canary_minutes)
        now_ms = 1_000 * round_ms
        answers = (("w1", now_ms - round_ms), ("w1", now_ms - 9 * round_ms), ("w2", now_ms), ("gone", 5), ("new", 0))
        for number, (worker, at_ms) in enumerate(answers):
            await put_canary(broker, CanaryRecord(card="a", group=f"g{number}", worker=worker, good_ms=at_ms))
        assert await good_ms(broker, "a") == now_ms - round_ms
        assert await good_ms(broker, "b") > now_ms
