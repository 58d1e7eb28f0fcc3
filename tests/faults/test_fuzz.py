"""Law 5 against damaged media: each file is a result or a failure with a reason; no worker dies or hangs of it."""

import asyncio
import os
import random
import re
import time
from collections import Counter
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from benchmarks.measure import rss_bytes
from pipelines.answers import headers_of
from pipelines.broker import Broker
from pipelines.dead import letters
from pipelines.job_records import find_manifest
from pipelines.registry import builtin_pipeline
from schemas.jobs import Priority
from schemas.messages import decode
from schemas.results import Done
from schemas.settings import MIB
from schemas.subjects import HEADER_ID, HEADER_JOB, HEADER_NAME, HEADER_TYPE
from tests.damage import damaged, sources
from tests.fleet import Fleet
from tests.rig import Rig
from workers.definitions import find_models, register

AT_ONCE = 48
HANGS_S = 90.0  # nothing ends for so long
PIPELINES = {"fingerprint": 6, "scenes": 2, "upscale2x": 2}  # and how often each is asked for


class Ends:
    """Hears how jobs end."""

    def __init__(self) -> None:
        self.done: dict[str, Done] = {}
        self.changed = asyncio.Event()

    async def hear(self, message: Msg) -> None:
        if headers_of(message).get(HEADER_TYPE) == "done":
            done, _ = decode(message.data)
            assert isinstance(done, Done)
            self.done[done.job.id] = done
            self.changed.set()


async def fuzz(fleet: Fleet, rig: Rig, folder: Path, count: int, seed: int) -> tuple[dict[str, str], dict[str, Done]]:
    """Send damaged files as raw media; what was done to each, and how each job ended."""
    chance = random.Random(seed)
    whole = sources(folder)
    broker = await Broker.connect(fleet.settings)
    for name in PIPELINES:
        spec = builtin_pipeline(name)
        await register(broker, fleet.settings, spec, find_models(spec, None))
    ends = Ends()
    await broker.connection.nc.subscribe(f"{broker.names.prefix}.results.>", cb=ends.hear)
    sent: dict[str, str] = {}
    while len(sent) < count or len(ends.done) < count:
        ends.changed.clear()  # before it is looked what ended: jobs end while others are sent, too
        while len(sent) < count and len(sent) - len(ends.done) < AT_ONCE:
            name = chance.choice(list(whole))
            how, body = damaged(whole[name], chance, list(whole.values()))
            pipeline = chance.choices(list(PIPELINES), list(PIPELINES.values()))[0]
            if name.startswith("still") and pipeline == "scenes":
                pipeline = "fingerprint"  # scenes takes no images
            job = f"fuzz-{len(sent)}"
            sent[job] = f"{name}, {how}"
            headers = {HEADER_JOB: job, HEADER_NAME: name, HEADER_ID: job}
            await broker.store(broker.names.media("main", pipeline, Priority.BULK), body, headers)
            if len(sent) % 250 == 0:
                print(f"{len(sent):5} sent, workers have {rss_bytes(rig.pids) >> 20} MiB")
        try:
            async with asyncio.timeout(HANGS_S):
                await ends.changed.wait()
        except TimeoutError:
            hanging = {job: sent[job] for job in sent.keys() - ends.done.keys()}
            raise AssertionError(f"nothing ended for {HANGS_S:.0f} s; these hang: {hanging}") from None
    for job, done in ends.done.items():
        async with asyncio.timeout(HANGS_S):  # it is told first, and noted then
            while (manifest := await find_manifest(broker, job)) is None or not manifest.state.ended:
                await asyncio.sleep(0.05)
        assert done.files or done.failures, f"{sent[job]}: neither a result nor a reason"
        assert all(failure.strip() for failure in done.failures)
    dead_letters = [letter.failure async for letter in letters(broker)]
    print(f"\n{len(dead_letters)} dead letters")
    for failure in dead_letters:
        if failure.detail or "attempts" in failure.error:
            print(f"  {sent[failure.key.job.id]}: {failure.stage}: {failure.error} {failure.detail}")
    await broker.close()
    return sent, ends.done


@pytest.mark.parametrize(
    "count", [40, pytest.param(2000, marks=[pytest.mark.slow, pytest.mark.timeout(1500)])], ids=str
)
def test_damaged_media_hurts_nobody(count: int, tmp_path: Path) -> None:
    seed = int(os.environ.get("RIGFLOW_TEST_SEED", "1"))
    began = time.monotonic()
    with (
        Fleet((), tmp_path / "cache", results_bytes=256 * MIB) as fleet,
        Rig(fleet, tmp_path, ack_wait_s=10.0, work_deadline_s=60.0) as rig,
    ):
        rig.until("event=serving")
        sent, ended = asyncio.run(fuzz(fleet, rig, tmp_path, count, seed))
        memory = rss_bytes(rig.pids)
        deaths = re.findall(r"event=(?:died|stuck|silent).*", rig.output)
    failed = {job: done for job, done in ended.items() if done.failures}
    reasons = Counter(re.sub(r"[\d.]+", "N", done.failures[0])[:90] for done in failed.values())
    print(f"\nfuzz, seed {seed}: {count} files in {time.monotonic() - began:.0f} s, {len(deaths)} deaths of workers,")
    print(f"{count - len(failed)} results, {len(failed)} failures; workers have {memory >> 20} MiB at the end")
    for reason, times in reasons.most_common(25):
        print(f"  {times:5} {reason}")
    assert not deaths, f"{deaths}, of which all must be accounted for"
    assert len(sent) == count
