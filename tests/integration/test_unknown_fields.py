"""Workers of another version: messages with unknown fields, and pipelines with what a worker does not know."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from engines.operators.resize import Resize
from engines.plugins import check_plugins
from pipelines.broker import Broker
from pipelines.client import Client
from pipelines.registry import builtin_pipeline
from schemas import base
from schemas.declared import Spec
from schemas.errors import PluginMissing
from schemas.jobs import JobRef
from schemas.messages import CollectRequest, decode
from schemas.pipeline import PipelineSpec, parse_pipeline
from schemas.rig import ALL_STAGES
from schemas.wire import Buffer, Pieces, pack_pieces, unpack
from tests import own_pass
from tests.clips import Clip, generated
from tests.fleet import Fleet
from tests.integration.queues import eventually
from tests.integration.test_missing_packages import declined
from workers.definitions import find_models, register
from workers.forkserver import Entry
from workers.options import WorkerOptions
from workers.process import start_worker

LATER = "added_later"


def extended(value: Any, dumped: Any) -> Any:
    """What a message is dumped as, with a field more in it and in each model within it."""
    if isinstance(value, BaseModel):
        known = type(value).model_fields
        inner = {name: extended(getattr(value, name), each) if name in known else each for name, each in dumped.items()}
        return {**inner, LATER: {"deep": [1, 2]}}
    if isinstance(value, dict):
        return {key: extended(each, dumped[str(key)]) for key, each in value.items()}
    if isinstance(value, list | tuple) and isinstance(dumped, list):
        return [extended(*each) for each in zip(value, dumped, strict=True)]
    return dumped


def later_pieces(message: base.Message, buffers: Any = ()) -> Pieces:
    return pack_pieces(extended(message, message.model_dump(mode="json")), buffers)


def start_later(options: WorkerOptions, heartbeats: socket.socket | None) -> None:
    base.Message.pieces = later_pieces  # type: ignore[method-assign]
    start_worker(options, heartbeats)


def test_results_are_those_of_one_pass_with_a_worker_of_a_later_version(tmp_path: Path) -> None:
    spec, clip = builtin_pipeline("fingerprint"), generated(Clip(frames=60))
    with Fleet((("decode", "infer"),), tmp_path / "cache") as fleet:
        fleet.entry = start_later
        fleet.add(("resize", "encode", "split", "collect"))
        (outcome,) = fleet.run(spec, [clip], tmp_path / "out")
    assert outcome.ok, outcome.error
    times, answers = own_pass.answers_of(clip, spec)
    with np.load(tmp_path / "out" / f"{clip.stem}.fingerprint.npz") as made:
        assert made["times"].tolist() == times.tolist()
        assert made["descriptor"].tobytes() == answers.tobytes()


class EarlierOptions(Spec):
    size: tuple[int, int]


def start_without_option(options: WorkerOptions, heartbeats: socket.socket | None) -> None:
    Resize.options_class = EarlierOptions  # type: ignore[assignment]
    start_worker(options, heartbeats)


def start_without_field(options: WorkerOptions, heartbeats: socket.socket | None) -> None:
    del PipelineSpec.__pydantic_fields__["segment_s"]
    PipelineSpec.model_rebuild(force=True)
    start_worker(options, heartbeats)


SHARPENED = """
name = "sharpened"
media = ["video"]

[[stage]]
kind = "decode"

[[stage]]
kind = "sharpened"

[[stage]]
kind = "encode"
format = "npz"
"""
EARLIER = {
    start_without_option: "has no option `layout`",
    start_without_field: "has a field segment_s that is not known here",
}


@pytest.mark.parametrize("entry", EARLIER, ids=lambda entry: entry.__name__)
async def test_an_earlier_worker_leaves_a_pipeline_that_it_cannot_read_to_others(entry: Entry, tmp_path: Path) -> None:
    spec, clip = builtin_pipeline("fingerprint"), generated(Clip(frames=60))
    with Fleet((ALL_STAGES,), tmp_path / "cache", entry=entry) as fleet:
        async with Broker.connected(fleet.settings, name="test") as broker:
            await register(broker, fleet.settings, spec, find_models(spec, None))

            async def declines() -> bool:
                return EARLIER[entry] in await declined(broker, "test-0", spec.name)

            await eventually(declines)
            async with Client.connected(fleet.settings, "test") as client:
                job = await client.submit("fingerprint", clip.read_bytes(), job="raw")
                fleet.entry = start_worker
                fleet.add()
                done = await asyncio.wait_for(job.done(), 120)
    assert (done.failures, done.lost, done.cancelled) == ((), 0, False)
    assert done.frames == 60


def test_an_operator_of_a_later_version_is_left_to_others() -> None:
    with pytest.raises(PluginMissing, match="needs operators/sharpened, which is not in this rigflow"):
        check_plugins(parse_pipeline(SHARPENED, "sharpened.toml"))


def test_such_messages_have_what_this_version_does_not_know() -> None:
    job = JobRef(id="a", pipeline="p", revision="r")
    body: Buffer = bytes(later_pieces(CollectRequest(job=job)))
    meta, _ = unpack(body)
    assert meta[LATER] == meta["job"][LATER]
    assert decode(body)[0] == CollectRequest(job=job)
