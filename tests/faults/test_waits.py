"""Publishers wait while nothing can be taken (a full queue, a full disk, no broker), go on, and lose nothing."""

import asyncio
import time
from pathlib import Path

import pytest

from benchmarks.workloads import looped
from pipelines.broker import Broker
from pipelines.registry import builtin_pipeline
from schemas.settings import MIB, Settings
from tests.faults.mix import check
from tests.fleet import ONE_WORKER, Fleet, Silent
from workers.inputs import JobOutcome
from workers.local import local_fleet

SPEC = builtin_pipeline("fingerprint").model_copy(update={"segment_s": 1.0})
GENEROUS_S = 60.0


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return looped(tmp_path / "clip.mp4", 60, "carphone_pristine")


class Told(Silent):
    """Knows how much was sent last, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.segments = 0

    def sent(self, job: str, seconds: float, segments: int) -> None:
        self.segments = segments

    async def halted(self) -> int:
        """Wait until nothing more is sent; the number of segments that were."""
        deadline = time.monotonic() + GENEROUS_S
        while time.monotonic() < deadline:
            before = self.segments
            await asyncio.sleep(1.5)
            if 0 < before == self.segments:
                return before
        raise AssertionError("it never waited")

    async def until_reported(self, text: str) -> None:
        async with asyncio.timeout(GENEROUS_S):
            while not any(text in event for event in self.events):
                await asyncio.sleep(0.05)


@pytest.mark.slow
def test_a_full_stream(clip: Path, tmp_path: Path) -> None:
    async def trial(fleet: Fleet) -> JobOutcome:
        listener = Told()
        running = asyncio.create_task(fleet.run_async(SPEC, [clip], tmp_path / "out", listener))
        halted = await listener.halted()
        assert not running.done()
        await asyncio.to_thread(fleet.add)
        (outcome,) = await running
        assert outcome.done is not None, outcome.error
        assert halted < outcome.done.segments
        print(f"\nthe stream was full after {halted} of {outcome.done.segments} segments")
        return outcome

    with Fleet((), tmp_path / "cache", queue_bytes=MIB) as fleet:
        check(asyncio.run(trial(fleet)), SPEC)


def test_a_full_disk(clip: Path, small_disk: Path, tmp_path: Path) -> None:
    ballast = small_disk / "somebody else's"
    assert small_disk.stat().st_dev != tmp_path.stat().st_dev
    settings = Settings(store=str(small_disk / "store"), cache=str(tmp_path / "cache"))
    listener = Told()

    async def trial() -> JobOutcome:
        async with local_fleet(settings, 0, listener) as here:
            broker = await Broker.connect(here)
            await broker.close()
            ballast.write_bytes(bytes(58 * MIB))
            with Fleet((), tmp_path / "cache", nats=here.nats) as fleet:
                running = asyncio.create_task(fleet.run_async(SPEC, [clip], tmp_path / "out", listener))
                await listener.until_reported("is full: rigflow waits")
                halted = await listener.halted()
                assert not running.done()
                ballast.unlink()
                await listener.until_reported("was started again")
                fleet.add()
                began = time.monotonic()
                (outcome,) = await running
        assert outcome.done is not None, outcome.error
        assert halted < outcome.done.segments
        took_s = time.monotonic() - began
        print(f"\nthe disk was full after {halted} of {outcome.done.segments} segments; all done {took_s:.1f} s later")
        return outcome

    check(asyncio.run(trial()), SPEC)


@pytest.mark.slow
@pytest.mark.parametrize("away_s", [2.0, 60.0])
def test_a_server_that_is_away(away_s: float, clip: Path, tmp_path: Path) -> None:
    async def trial(fleet: Fleet) -> JobOutcome:
        listener = Told()
        running = asyncio.create_task(fleet.run_async(SPEC, [clip], tmp_path / "out", listener))
        while listener.parts < 2:
            await asyncio.sleep(0.005)
        await asyncio.to_thread(fleet.server.kill)
        sent = listener.segments
        await asyncio.sleep(away_s)
        assert not running.done()
        await asyncio.to_thread(fleet.server.restart)
        began = time.monotonic()
        (outcome,) = await running
        assert outcome.done is not None, outcome.error
        took_s = time.monotonic() - began
        print(f"\naway for {away_s:.0f} s after {sent} of {outcome.done.segments} segments; done {took_s:.1f} s later")
        return outcome

    with Fleet(ONE_WORKER, tmp_path / "cache", ack_wait_s=3.0, queue_bytes=MIB) as fleet:
        check(asyncio.run(trial(fleet)), SPEC)


def test_a_process_that_is_stopped_while_the_server_is_away_ends(clip: Path, tmp_path: Path) -> None:
    async def trial(fleet: Fleet) -> None:
        listener = Told()
        running = asyncio.create_task(fleet.run_async(SPEC, [clip], tmp_path / "out", listener))
        await listener.halted()
        await asyncio.to_thread(fleet.server.kill)
        running.cancel()
        await asyncio.wait([running], timeout=GENEROUS_S)
        assert running.cancelled(), "it waits for a broker that is gone"

    with Fleet((), tmp_path / "cache", queue_bytes=MIB) as fleet:
        asyncio.run(trial(fleet))
