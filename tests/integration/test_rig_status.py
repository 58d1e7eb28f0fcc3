"""`status --watch` and a rig's pages while real work goes on."""

import asyncio
import json
import re
import signal
import time
from pathlib import Path

from benchmarks.fleet import simulated
from engines.media.medium import Input
from pipelines.broker import Broker
from pipelines.publish import Publisher
from schemas.errors import ExitCode
from schemas.jobs import Priority
from tests.cli import Running, rigflow
from tests.clips import Clip, make_clip
from tests.fleet import ONE_WORKER, Fleet
from tests.simulated import models_of
from workers.definitions import register


async def publish(fleet: Fleet, clip: Path) -> None:
    broker = await Broker.connect(fleet.settings)
    try:
        spec = await register(broker, fleet.settings, simulated(), models_of(simulated()))
        publisher = Publisher(broker, spec, "main", Priority.BULK)
        await publisher.publish(publisher.ref("job"), "video", [Input(clip, clip.name)])
    finally:
        await broker.close()


def test_watch_names_the_bottleneck_of_a_fleet_at_work(tmp_path: Path) -> None:
    clip = make_clip(tmp_path, Clip(frames=2000, gop=1, b_frames=0, size=(32, 32)))
    with Fleet(ONE_WORKER, tmp_path / "cache", [100.0]) as fleet:  # more work than the test takes anywhere
        asyncio.run(publish(fleet, clip))
        with Running("status", "--watch", "--nats", fleet.settings.nats) as watch:
            while watch.output.count("The bottleneck is simulated infer: it takes ") < 2:
                time.sleep(0.1)
            output = watch.output
            assert watch.end(signal.SIGINT) == ExitCode.INTERRUPTED
        reported = json.loads(rigflow("status", "--json", "--nats", fleet.settings.nats).stdout)
    assert len(re.findall(r"^\d\d:\d\d:\d\d$", output, re.MULTILINE)) > 1, "it is shown again and again"
    assert re.search(r"test-0 +cpu +all +working +\d+ +\d+% +\d+", output)
    held, work = r"( and \d+ (is|are) held)?", r"( together)?(, about [\d,]+ s of work)?"
    backlog = rf"messages wait{held} \([\d.]+ [kM]?B{work}, the oldest for \d+ s\)"
    assert re.search(rf"{backlog} in front of simulated decode\.", output)
    assert reported["bottleneck"].startswith("The bottleneck is simulated infer")
    (worker,) = reported["workers"]
    (infer,) = [of for of in worker["done"] if of["stage"] == "infer"]
    assert 0.0 < infer["busy"] <= 1.0
    assert infer["frames_per_s"] > 0
