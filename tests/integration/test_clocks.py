"""Machines whose clocks differ by an hour: all agree on ages, days, keys, and on which cards are wrong."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from cli.status_workers import state_of
from pipelines.api_keys import ApiKeys, make_key
from pipelines.broker import Broker
from pipelines.cards import doubts, good_ms, put_canary, quarantine
from pipelines.jetstream import JetStream
from pipelines.jobs import begin
from pipelines.revisions import AGE_S, sweep_revisions
from pipelines.status import fleet_status
from pipelines.usage import read_usage, record_usage
from schemas.api_roles import ApiRole
from schemas.cards import CanaryRecord, Reason, mark_of
from schemas.jobs import JobRef, JobState, Manifest
from schemas.settings import Settings
from schemas.usage import day_of
from tests.integration.queues import a_fleet
from workers.canaries import Canaries
from workers.trust import Trust

HOUR_S = 3600.0
right = time.time


@contextmanager
def clock(monkeypatch: pytest.MonkeyPatch, ahead_s: float) -> Iterator[None]:
    """In the block the clock of this machine is so far ahead."""
    with monkeypatch.context() as wrong:
        wrong.setattr(time, "time", lambda: right() + ahead_s)
        yield


@asynccontextmanager
async def a_machine(settings: Settings, monkeypatch: pytest.MonkeyPatch, ahead_s: float) -> AsyncIterator[Broker]:
    """A machine whose clock is so far ahead, connected; in the block it is the one at work."""
    with clock(monkeypatch, ahead_s):
        async with Broker.connected(settings, "test") as broker:
            yield broker


@pytest.mark.parametrize("ahead_s", [HOUR_S, -HOUR_S])
async def test_the_broker_s_clock_is_known_from_the_beginning_and_follows_ours_when_it_is_put_right(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    async with a_fleet(settings):
        async with a_machine(settings, monkeypatch, ahead_s) as rig:
            assert abs(rig.now_s() - right()) < HOUR_S / 2
            with clock(monkeypatch, 0.0):
                await rig.api(f"STREAM.INFO.{rig.names.usage_stream}")  # any question whose answer says the time
                assert abs(rig.now_s() - right()) < HOUR_S / 2
        async with Broker.connected(settings, "test") as same:
            before_s = right()
            assert before_s <= same.now_s() <= right(), "on the broker's machine it is the same clock"


async def test_a_broker_that_was_empty_says_the_time_with_its_first_stream(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with clock(monkeypatch, HOUR_S):
        async with a_fleet(settings) as (broker, _):
            assert abs(broker.now_s() - right()) < HOUR_S / 2


@pytest.mark.parametrize("ahead_s", [HOUR_S, -HOUR_S])
async def test_a_card_is_judged_by_the_answers_of_machines_with_other_clocks(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    unused: Any = None
    async with a_fleet(settings) as (broker, _):
        for card, answer in (("b", "right"), ("c", "right"), ("a", "wrong")):
            await put_canary(broker, CanaryRecord(card=card, group="g", first=answer, last=answer, at_s=broker.now_s()))
        async with a_machine(settings, monkeypatch, ahead_s) as rig:
            judge: Any = Canaries(rig, unused, unused, Trust("a", "w"), unused, list, {}, "w", unused, asyncio.Event())
            assert await judge._judge("p", "g") == "it answered the canary of p otherwise than 2 of 3 cards of its kind"


@pytest.mark.parametrize("ahead_s", [HOUR_S, -HOUR_S])
async def test_the_order_of_an_operator_with_a_wrong_clock_puts_in_doubt_what_the_card_does_from_then_on(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    async with a_fleet(settings) as (broker, _):
        before, after = (mark_of("a", broker.now_ms() + int(1000 * each)) for each in (-HOUR_S / 2, HOUR_S / 2))
        async with a_machine(settings, monkeypatch, ahead_s) as operator:
            since_ms = await good_ms(operator, "a")
            record, _ = await quarantine(operator, "a", Reason.ORDER, "by an order", since_ms)
            assert abs(record.at_s - right()) < HOUR_S / 2
        found = await doubts(broker)
        assert (found.has(before), found.has(after)) == (False, True)


async def test_a_time_of_an_earlier_version_whose_clock_was_ahead_is_no_later_than_now(settings: Settings) -> None:
    async with a_fleet(settings) as (broker, _):
        trust, ahead_ms = Trust("a", "w", broker.now_ms), broker.now_ms() + int(1000 * HOUR_S)
        await put_canary(broker, CanaryRecord(card="a", group="g", at_s=broker.now_s(), good_ms=ahead_ms))
        await trust.recall(broker)
        assert trust.good_ms <= trust.begin() < ahead_ms


async def test_jobs_keys_revisions_and_statuses_have_the_same_age_for_all(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_fleet(settings) as (_, publisher):
        async with a_machine(settings, monkeypatch, HOUR_S) as ahead:
            record = await begin(ahead, Manifest(job=publisher.ref("film"), name="film"))
            key, text = await make_key(ahead, "site", "main", [ApiRole.READ], 0.0, 0, ahead.now_s() + HOUR_S / 2)
            assert key.valid_at(ahead.now_s())
            assert await sweep_revisions(ahead, ahead.now_s() - AGE_S) == 0
            at_s = ahead.now_s()
        for moment_s in (record.manifest.created_s, key.created_s):
            assert abs(moment_s - right()) < HOUR_S / 2
        async with a_machine(settings, monkeypatch, -HOUR_S) as late:
            now_s = (await fleet_status(late)).now_s
            assert str(state_of({"state": "idle", "at_s": now_s}, now_s)) == "idle"
            assert abs(now_s - at_s) < HOUR_S / 2
            keys = ApiKeys(late)
            keys._keys[key.id] = key
            assert keys.check(text) == key


async def test_a_session_of_one_gateway_is_valid_at_another_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastapi")
    from fastapi import Request, Response

    from gateway.sessions import Login, key_of_session, log_in

    async with a_fleet(settings):
        async with a_machine(settings, monkeypatch, -24 * HOUR_S) as late:
            key, text = await make_key(late, "site", "main", [ApiRole.READ], 0.0, 0, 0.0)
            keys, answer = ApiKeys(late), Response()
            keys._keys[key.id] = key
            app = SimpleNamespace(state=SimpleNamespace(identify=SimpleNamespace(keys=keys)))
            scope = {"type": "http", "scheme": "http", "path": "/", "headers": [], "server": ("a", 1), "app": app}
            await log_in(Request(scope), answer, Login(key=text))
        cookie = answer.headers["set-cookie"].partition(";")[0].encode()
        request = Request(scope | {"headers": [(b"cookie", cookie)]})
        for ahead_s in (0.0, 24 * HOUR_S):
            async with a_machine(settings, monkeypatch, ahead_s) as other:
                keys = ApiKeys(other)
                keys._keys[key.id] = key
                assert key_of_session(request, keys) == key


def test_a_server_that_does_not_say_its_time_leaves_the_clock_as_it_is() -> None:
    broker = JetStream(None)  # type: ignore[arg-type]
    for given in ("0001-01-01T00:00:00Z", "", None, 5):
        broker._read_clock({"ts": given}, right())
    assert broker._behind_s == 0.0


async def test_a_job_counts_on_the_day_of_the_broker_for_rigs_whose_clock_is_wrong(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no tenant has a quota for the day."""
    async with a_fleet(settings) as (broker, publisher):
        async with a_machine(settings, monkeypatch, 400 * 86400.0) as rig:
            ref: JobRef = publisher.ref("film")
            job = (await begin(rig, Manifest(job=ref, name="film"))).manifest
            await record_usage(rig, job.model_copy(update={"state": JobState.DONE, "ended_s": rig.now_s()}))
        days = day_of(right() - 86400), day_of(right() + 86400)
        [(_, used)] = (await read_usage(broker, "main", *days, [])).items()
    assert used.jobs == 1
