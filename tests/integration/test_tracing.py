"""Traces of jobs across rigs, by a real receiver of OTLP: one trace a job, however often its work is done again."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.fleet import simulated
from pipelines.broker import Broker
from pipelines.tracing import Context, Span, context_of_job
from schemas.jobs import JobRef
from schemas.settings import Settings
from tests.clips import Clip, make_clip
from tests.fleet import ONE_STAGE_EACH, ONE_WORKER, Fleet, Killing
from tests.gateway import Gateway
from tests.otlp import Received, facts_of, receiver
from tests.rig import eventually
from workers.definitions import register_builtin

GIVEN = Context(bytes(range(16)), bytes(range(1, 9)))
QUEUES = ("split", "collect", "decode", "infer", "encode")
STEPS = ("publish", *QUEUES, *(f"queue {name}" for name in QUEUES))


def until(received: Received, name: str, count: int = 1) -> list[Any]:
    """The spans of a name, when there are so many and all that is above them, below a caller's own, has come."""
    deadline = time.monotonic() + 60
    while len(found := received.named(name)) < count or not whole(received):
        assert time.monotonic() < deadline, f"no span {name}: {[span.name for _, span in received.spans]}"
        time.sleep(0.05)
    return found


def whole(received: Received) -> bool:
    """Whether the spans that others name, as what they are part of or linked with, are there: each process sends what
    it has once a second."""
    spans = [span for _, span in list(received.spans)]
    named = {span.parent_span_id for span in spans} | {link.span_id for span in spans for link in span.links}
    return named <= {b"", GIVEN.span, *(span.span_id for span in spans)}


def check_tree(spans: list[Any], above: bytes = b"") -> None:
    """One beginning, whose parent is `above`; every other span has a parent in the trace, and ends after it begins."""
    ids = {span.span_id for span in spans}
    [first] = [span for span in spans if span.parent_span_id == above]
    assert first.name.startswith("job ")
    assert all(span.parent_span_id in ids for span in spans if span is not first)
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in spans)
    assert len(ids) == len(spans), "each span came once"


def test_a_job_by_http_is_one_trace_over_all_stages(tmp_path: Path) -> None:
    """With the caller's own trace above it, in processes that have one stage each."""
    clip = make_clip(tmp_path, Clip(frames=130))
    with receiver() as received, Fleet(ONE_STAGE_EACH, tmp_path / "cache", otlp=received.url) as fleet:
        asyncio.run(register_builtin(fleet.settings))
        with Gateway(fleet.settings) as gateway:
            headers = {"traceparent": GIVEN.header, "Idempotency-Key": "traced"}
            form = {"data": {"pipeline": "fingerprint"}, "files": {"file": ("clip.mp4", clip.read_bytes())}}
            made = httpx.post(f"{gateway.url}/api/v1/jobs", headers=headers, timeout=60, **form)
            assert made.status_code in (200, 201, 202), made.text
        for name in STEPS:
            until(received, name)
        [first] = until(received, "job fingerprint")
        [(trace, spans)] = received.traces().items()
    assert trace == GIVEN.trace
    ref = JobRef(id="traced", pipeline="fingerprint", revision=str(facts_of(first)["rigflow.revision"]))
    assert first.span_id == context_of_job(ref).span
    check_tree(spans, GIVEN.span)
    assert {process for process, span in received.spans if span.name in ("decode", "infer", "publish")} >= {
        "rigflow-gateway",
        "test-0",
        "test-2",
    }
    facts = facts_of(first)
    assert (facts["rigflow.job"], facts["rigflow.state"]) == ("traced", "done")
    [infer] = [span for span in spans if span.name == "infer"][:1]
    assert facts_of(infer)["rigflow.batch_rows"] > 0
    queue = next(span for span in spans if span.name == "queue infer")
    decode = next(span for span in spans if span.span_id == queue.parent_span_id)
    assert decode.name in ("decode", "resize")


def test_work_that_is_done_again_begins_no_second_trace(tmp_path: Path) -> None:
    clip = make_clip(tmp_path, Clip(frames=260, gop=26))
    with receiver() as received:
        fleet = Fleet(ONE_WORKER, tmp_path / "cache", pace_ms=20.0, otlp=received.url, ack_wait_s=3.0)
        with fleet:  # steps are slow: when the worker is killed, it still has messages
            [outcome] = fleet.run(simulated(), [clip], tmp_path, Killing(fleet))
            assert outcome.ok
            until(received, "job simulated")
            eventually(lambda: bool(again(received)) and whole(received))
        [(trace, spans)] = received.traces().items()
    assert trace == context_of_job(outcome.job).trace
    [_] = [span for span in spans if not span.parent_span_id]
    assert len({span.span_id for span in spans}) == len(spans)


def again(received: Received) -> list[Any]:
    """What was done again, for the killed worker had a message."""
    return [span for _, span in list(received.spans) if facts_of(span).get("rigflow.deliveries", 1) > 1]


def test_a_batch_of_two_jobs_is_linked(tmp_path: Path) -> None:
    clips = []
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        clips.append(make_clip(tmp_path / str(number), Clip(frames=60 + number)))
    with receiver() as received, Fleet(ONE_WORKER, tmp_path / "cache", pace_ms=10.0, otlp=received.url) as fleet:
        outcomes = fleet.run(simulated(), clips, tmp_path / "out")  # steps are slow: other clips wait for the next one
        until(received, "job simulated", 3)
        eventually(lambda: whole(received) and any(span.links for _, span in list(received.spans)))
    assert len(received.traces()) == 3
    places = {(span.trace_id, span.span_id) for _, span in received.spans}
    linked = [(span.trace_id, link) for _, span in received.spans for link in span.links]
    assert all(outcome.ok for outcome in outcomes)
    assert linked, "the clips shared no batch"
    assert all((link.trace_id, link.span_id) in places for _, link in linked)
    assert any(link.trace_id != trace for trace, link in linked)


async def test_a_receiver_that_refuses_delays_nothing(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    with receiver() as received:
        received.refuses = True
        given = settings.model_copy(update={"otlp": received.url.replace("//", "//me:secret@") + "/"})
        broker = await Broker.connect(given, "test")
        assert broker.tracer is not None
        for number in range(10_000):
            broker.tracer.record(Span("x", GIVEN.child(number), b"", 1, 2))
        await broker.close()
        assert received.requests[0][0] == "/v1/traces"
        assert received.requests[0][1]["Authorization"].startswith("Basic ")
    assert "spans were not taken by" in caplog.text
    assert "secret" not in caplog.text


def test_nothing_is_imported_without_the_setting() -> None:
    code = (
        "import sys, asyncio; from pipelines.broker import Broker; import workers.process, gateway\n"
        "assert not [name for name in sys.modules if name.startswith(('opentelemetry', 'google.protobuf.'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00-" + "0" * 32 + "-0102030405060708-01",
        "00-0102030405060708090a0b0c0d0e0f10-0000000000000000-01",
        "ff-0102030405060708090a0b0c0d0e0f10-0102030405060708-01",
        "00-0102030405060708090A0B0C0D0E0F10-0102030405060708-01",
        "00-0102030405060708090a0b0c0d0e0f10-0102030405060708",
        "00-0102030405060708090a0b0c0d0e0f10-0102030405060708-01\n",
    ],
)
def test_what_is_no_place_in_a_trace(header: str) -> None:
    assert Context.parse(header) is None
    job = JobRef(id="a", pipeline="p", revision="r")
    assert context_of_job(job, header) == context_of_job(job)


def test_the_ids_of_a_job_are_its_own() -> None:
    job = JobRef(id="a", pipeline="p", revision="r")
    others = [job.model_copy(update={"generation": 1}), job.model_copy(update={"tenant": "other"})]
    assert len({context_of_job(each).trace for each in (job, *others)}) == 3
    assert Context.parse(GIVEN.header) == GIVEN
    unsampled = Context.parse(GIVEN.header[:-2] + "00")
    assert unsampled is not None
    assert not unsampled.sampled
    assert not context_of_job(job, unsampled.header).child("x").sampled
