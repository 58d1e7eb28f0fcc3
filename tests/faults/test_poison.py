"""A segment that kills its worker every time: it fails alone, is reported, and is done when it is mended."""

import asyncio
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import nats
import numpy as np
import pytest

from benchmarks.fleet import answers_of, simulated
from cli.app import answer
from engines.media.medium import Input
from engines.part import Array
from pipelines.broker import Broker
from pipelines.dead import Letter, letters
from pipelines.job_records import find_manifest
from pipelines.publish import Publisher
from pipelines.tenant_admin import set_tenants
from schemas.jobs import Manifest, Priority
from schemas.messages import decode
from schemas.results import Done
from schemas.settings import Settings
from schemas.subjects import HEADER_JOB, HEADER_TYPE
from schemas.tenants import Tenant
from tests.fleet import ONE_WORKER, Fleet
from tests.poison import DEADLY, poisoned_clip, start_poisoned
from tests.simulated import models_of
from workers.definitions import register
from workers.options import WorkerOptions
from workers.process import start_worker
from workers.slot import DEATHS
from workers.supervisor import Supervisor

GOP = 8
SEGMENT_S = GOP / 25
SPEC = simulated().model_copy(update={"segment_s": 0.1})


@contextmanager
def revived(fleet: Fleet) -> Iterator[list[int]]:
    """Start dead workers anew meanwhile, as a supervisor does; the list has an entry for each death."""
    deaths: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            deaths.extend(range(fleet.revive()))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield deaths
    finally:
        over.set()
        watching.join()


async def publish(settings: Settings, clips: dict[str, Path]) -> None:
    broker = await Broker.connect(settings)
    spec = await register(broker, settings, SPEC, models_of(SPEC))
    publisher = Publisher(broker, spec, "main", Priority.BULK)
    await asyncio.gather(
        *(publisher.publish(publisher.ref(job), "video", [Input(clip, clip.name)]) for job, clip in clips.items())
    )
    await broker.close()


async def left(settings: Settings, tenant: str = "") -> tuple[list[Letter], Manifest | None]:
    """The dead letters, and what is known of the poisoned job, once all queues are empty: no input stays there.

    A message leaves its queue after its failure is published.
    """
    broker = await Broker.connect(settings)
    while any(
        each["state"]["messages"]
        for each in (await broker.api("STREAM.LIST"))["streams"]
        if "_WORK_" in each["config"]["name"]
    ):
        await asyncio.sleep(0.05)
    found = [letter async for letter in letters(broker, tenant=tenant)], await find_manifest(broker, "poisoned")
    await broker.close()
    return found


async def dead_letters(settings: Settings) -> list[Letter]:
    broker = await Broker.connect(settings)
    found = [letter async for letter in letters(broker)]
    await broker.close()
    return found


def crc32(path: Path) -> Array:
    with np.load(path) as result:
        return result["crc32"]


@pytest.mark.parametrize(
    ("workers", "others", "poison"),
    [(1, 1, (3,)), pytest.param(3, 6, (2, 5, 6), marks=pytest.mark.slow)],
    ids=["one worker", "three workers"],
)
def test_a_segment_that_kills_its_workers_fails_alone(
    workers: int, others: int, poison: tuple[int, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = {"poisoned": poisoned_clip(tmp_path / "poisoned.mp4", 8, GOP, poison)}
    clips |= {f"sound{n}": poisoned_clip(tmp_path / f"sound{n}.mp4", 8, GOP, (), seed=n + 1) for n in range(others)}
    attempts = 3
    given = {"ack_wait_s": 3.0, "max_deliver": attempts, "pace_ms": 2.0}
    with Fleet(ONE_WORKER * workers, tmp_path / "cache", entry=start_poisoned, **given) as fleet:
        where = ("--nats", fleet.settings.nats)
        asyncio.run(publish(fleet.settings, clips))
        with revived(fleet) as deaths:
            for name in clips:
                assert answer(["results", name, "--follow", "--out", str(tmp_path), *where]) == (name == "poisoned")
        dead, manifest = asyncio.run(left(fleet.settings))
        for name in clips.keys() - {"poisoned"}:
            np.testing.assert_array_equal(crc32(tmp_path / f"{name}.simulated.npz"), answers_of(clips[name], SPEC))
        expected = answers_of(clips["poisoned"], SPEC)
        healthy = [number for number in range(len(expected)) if number // GOP not in poison]
        np.testing.assert_array_equal(crc32(tmp_path / "poisoned.simulated.npz"), expected[healthy])

        assert sorted(letter.failure.key.segment for letter in dead) == list(poison)
        assert 0 < len(deaths) <= attempts * len(poison)  # a lease may end before its worker dies, on a busy machine
        for letter in dead:
            failure = letter.failure
            assert failure.error.startswith(f"no worker finished it in {attempts} attempts")
            assert len(failure.attempts) == attempts
            assert {attempt.host for attempt in failure.attempts} == {socket.gethostname()}
            assert all(attempt.worker.startswith("test-") and not attempt.ended for attempt in failure.attempts)
            assert failure.start_s == pytest.approx(failure.key.segment * SEGMENT_S)
        assert manifest is not None
        seconds = sum(end_s - start_s for start_s, end_s in manifest.missing)
        assert seconds == pytest.approx(SEGMENT_S * len(poison))

        capsys.readouterr()
        saved = tmp_path / "segment.mp4"
        assert answer(["dead", "show", str(dead[0].number), "--save", str(saved), *where]) == 0
        shown = capsys.readouterr().out
        assert shown.count(f"({dead[0].failure.attempts[0].device})") == attempts
        with av.open(str(saved)) as video:
            assert sum(1 for _ in video.decode(video=0)) >= GOP
        assert answer(["jobs", "show", "poisoned", *where]) == 0
        start_s = poison[0] * SEGMENT_S
        assert f"missing   {start_s:.2f}-{start_s + SEGMENT_S:.2f} s" in capsys.readouterr().out

        for number in range(workers):  # the engine is mended
            fleet.workers[number].send_signal(signal.SIGKILL)
        fleet.entry = start_worker
        for worker in fleet.workers:
            worker.wait()
        fleet.revive()
        assert answer(["dead", "retry", "--all", *where]) == 0
        assert answer(["results", "poisoned", "--follow", "--overwrite", "--out", str(tmp_path), *where]) == 0
        np.testing.assert_array_equal(crc32(tmp_path / "poisoned.simulated.npz"), expected)
        assert asyncio.run(left(fleet.settings))[0] == []
    print(f"{len(poison)} of {8 * len(clips)} segments kill their worker: {len(deaths)} deaths, nothing else was lost")


@pytest.mark.slow
def test_a_segment_that_loses_its_device_fails_alone_and_each_attempt_says_so(tmp_path: Path) -> None:
    clip = poisoned_clip(tmp_path / "poisoned.mp4", 6, GOP, (2,), level=0)
    given = {"ack_wait_s": 3.0, "max_deliver": 3, "pace_ms": 2.0}
    with Fleet(ONE_WORKER * 2, tmp_path / "cache", entry=start_poisoned, **given) as fleet:
        asyncio.run(publish(fleet.settings, {"poisoned": clip}))
        with revived(fleet) as deaths:
            where = ("--nats", fleet.settings.nats)
            assert answer(["results", "poisoned", "--follow", "--out", str(tmp_path), *where]) == 1
        (letter,), _ = asyncio.run(left(fleet.settings))
    assert letter.failure.key.segment == 2
    assert [attempt.ended[:20] for attempt in letter.failure.attempts] == ["the device's context"] * 3
    assert 2 <= len(deaths) <= 3, "the last one may be on its way"


@pytest.mark.parametrize("tenant", ["main", pytest.param("acme", marks=pytest.mark.slow)])
def test_media_that_kills_each_worker_that_splits_it_fails_and_its_publisher_gets_the_reason(
    tenant: str, tmp_path: Path
) -> None:
    given = {"ack_wait_s": 3.0, "max_deliver": 2, "pace_ms": 2.0}
    with Fleet(ONE_WORKER, tmp_path / "cache", entry=start_poisoned, **given) as fleet:
        asyncio.run(publish(fleet.settings, {}))
        if tenant != fleet.settings.tenant:
            asyncio.run(listed(fleet.settings, tenant))
        with revived(fleet) as deaths:
            done = asyncio.run(published_raw(fleet.settings, tenant, DEADLY))
        (letter,), _ = asyncio.run(left(fleet.settings, tenant))
    assert len(done.failures) == 1
    assert "no worker finished it in 2 attempts" in done.failures[0]
    assert (letter.failure.stage, len(letter.failure.attempts), len(deaths)) == ("split", 2, 2)


async def listed(settings: Settings, tenant: str) -> None:
    """Give a tenant queues of its own."""
    broker = await Broker.connect(settings)
    await set_tenants(broker, settings, {tenant: Tenant()})
    await broker.close()


async def published_raw(settings: Settings, tenant: str, media: bytes) -> Done:
    """What a publisher that has only NATS gets in the end."""
    client = await nats.connect(settings.nats)
    results = await client.subscribe(f"rigflow.results.{tenant}.simulated.raw")
    await client.jetstream().publish(f"rigflow.media.{tenant}.simulated", media, headers={HEADER_JOB: "raw"})
    while (reported := await results.next_msg(60)).headers[HEADER_TYPE] != "done":
        pass
    await client.close()
    done, _ = decode(reported.data)
    assert isinstance(done, Done)
    return done


@pytest.mark.slow
def test_inputs_that_kill_their_worker_do_not_cost_a_rig_its_only_device(tmp_path: Path) -> None:
    clip = poisoned_clip(tmp_path / "poisoned.mp4", 8, GOP, (2, 6))
    events: list[str] = []
    with Fleet((), tmp_path / "cache", ack_wait_s=3.0, max_deliver=4, pace_ms=2.0) as fleet:
        asyncio.run(publish(fleet.settings, {"poisoned": clip}))

        async def supervised() -> int:
            options = WorkerOptions(settings=fleet.settings, name="only")
            supervisor = Supervisor([options], lambda event: events.append(event.text), start_poisoned)
            watching = asyncio.create_task(supervisor.watch())
            wanted = ["results", "poisoned", "--follow", "--out", str(tmp_path), "--nats", fleet.settings.nats]
            following = asyncio.create_task(asyncio.to_thread(answer, wanted))
            await asyncio.wait([watching, following], return_when=asyncio.FIRST_COMPLETED)
            assert not watching.done(), events
            watching.cancel()
            await supervisor.stop(0.0)
            return following.result()

        assert asyncio.run(supervised()) == 1
        dead = asyncio.run(dead_letters(fleet.settings))
    assert sorted(letter.failure.key.segment for letter in dead) == [2, 6]
    assert sum("ended (signal SIGKILL)" in event for event in events) > DEATHS
