"""A rig's metrics: docs/metrics.md against the code, the text against Prometheus's own parser, logs and pages."""

import asyncio
import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from engines.device.sensors import GpuReading
from pipelines.status import Depths, StreamStatus
from schemas.errors import UsageError
from schemas.rig import parse_rig, rig_name
from schemas.settings import LogFormat, LogLevel, Settings
from schemas.usage import EndedJob
from workers.endpoints import Endpoints, Response
from workers.gpu_metrics import COUNTERS, GAUGES, CareCounts
from workers.job_metrics import EndedJobs
from workers.metrics import Snapshot, exposition, families
from workers.options import WorkerOptions
from workers.slot import Slot
from workers.telemetry import (
    BUCKETS_S,
    LINES,
    LINES_WITHIN_S,
    Event,
    Heartbeat,
    Meter,
    StageCounts,
    _Limit,
    log_event,
    set_up_logging,
)

DOC = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
KEY = ("up", "infer")


def snapshot() -> Snapshot:
    """A rig with one worker and a sample of everything."""
    meter = Meter()
    meter.received(*KEY, nbytes=1000, deliveries=2)
    for seconds in (0.0005, 0.3, 99.0):
        meter.step(*KEY, seconds)
    meter.part(*KEY, frames=12)
    meter.sent(*KEY, 300)
    meter.task(*KEY)
    meter.failed(*KEY, "out-of-memory")
    meter.failed(*KEY, "bad-media")
    meter.failed(*KEY, "bad-media")
    queue = StreamStatus(3, 5000, 10_000, 7.5)
    depths = Depths({KEY: queue}, StreamStatus(6, 60), StreamStatus(2, 700, 900), StreamStatus(5, 50, 70))
    ended = EndedJobs()
    for subject, took_s in (("a", 0.2), ("b", 40.0), ("a", 0.2)):  # the end of job a is stored twice
        job = EndedJob(jobs=1, failed=subject == "b", frames=12, media_s=2.0, took_s=took_s)
        ended.count(subject, "main", "website", "up", job)
    beat = Heartbeat("working", ready=False, why="loads", still_s=3.0, step_s=2.5, in_flight=2, rss_bytes=10**8)
    beat.loading, beat.loaded, beat.failed = ["m"], 4, 1
    beat.card, beat.quarantined, beat.canaries = "w", True, {"good": 8}
    slot = Slot(WorkerOptions(settings=Settings(), stages=("infer",), name="w"), heartbeat=beat, died=4)
    slot.process = cast(Any, object())
    gpu = GpuReading("0", "P104", "GPU-1", "535", dict.fromkeys((*GAUGES, *COUNTERS), 0.5))
    gpu = replace(gpu, clocks={"sm": 1.5e9}, throttled={"power-cap": 1.0}, pcie={"sent": 2e8})
    care = CareCounts({("0", "79"): 1.0}, {"0": 1.0}, {"0": 0.0}, 5e6, {"frames": 9e6, "device-seconds": 2e4})
    return Snapshot(meter.stages, [slot], depths, ended.counts, ended.by_key, [gpu], care, "r")


def values() -> dict[str, float]:
    """Every sample of `snapshot` as Prometheus reads it."""
    read = text_string_to_metric_families(exposition(snapshot()).decode())
    samples = [sample for family in read for sample in family.samples]
    labels = ("direction", "reason", "le")
    return {sample.name + "".join(sample.labels.get(label, "") for label in labels): sample.value for sample in samples}


def test_the_table_in_the_docs_has_the_metrics_that_there_are() -> None:
    rows = []
    for family in families(snapshot()):
        suffix = "_total" if family.type == "counter" else ""
        labels = ", ".join(name for name in family.samples[0].labels if name != "le")
        rows.append(f"| `{family.name}{suffix}` | {family.type} | {labels} | {family.documentation} |")
    table = "\n".join(rows)
    assert table in DOC, f"put this table into docs/metrics.md:\n{table}"


def test_every_event_in_the_code_is_in_the_docs_and_no_other() -> None:
    workers = Path(__file__).parents[2] / "workers"
    code = "".join(path.read_text() for path in workers.glob("*.py"))
    reported = set(re.findall(r"(?:Event\(|_(?:report|kill)\(slot, )\"([a-z-]+)\"", code))
    assert reported == set(re.findall(r"^\| `([a-z-]+)` \|", DOC, re.MULTILINE))


def test_what_prometheus_reads() -> None:
    found = values()
    assert found["rigflow_parts_total"] == 1
    assert found["rigflow_frames_total"] == 12
    assert (found["rigflow_step_seconds_count"], found["rigflow_step_seconds_sum"]) == (3, pytest.approx(99.3005))
    assert [found[f"rigflow_step_seconds_bucket{le}"] for le in ("0.001", "0.25", "0.5", "30.0", "+Inf")] == [
        1,
        1,
        2,
        2,
        3,
    ]
    assert (found["rigflow_stage_bytes_totalin"], found["rigflow_stage_bytes_totalout"]) == (1000, 300)
    assert found["rigflow_redeliveries_total"] == 1
    reasons = [found[f"rigflow_failures_total{reason}"] for reason in ("out-of-memory", "bad-media")]
    assert reasons == [1, 2]
    assert found["rigflow_queue_predicted_seconds"] == pytest.approx(3 * 99.3005)  # messages, seconds of the one task
    assert (found["rigflow_jobs_total"], found["rigflow_job_failures_total"]) == (2, 1)
    assert (found["rigflow_job_seconds_bucket0.25"], found["rigflow_job_seconds_bucket60.0"]) == (1, 2)
    assert found["rigflow_job_seconds_sum"] == pytest.approx(40.2)
    assert (found["rigflow_worker_engines_loaded"], found["rigflow_worker_engines_loading"]) == (4, 1)
    assert (found["rigflow_worker_ready"], found["rigflow_worker_given_up"], found["rigflow_broker_up"]) == (0, 0, 1)
    assert (found["rigflow_gpu_power_watts"], found["rigflow_gpu_throttledpower-cap"]) == (0.5, 1)
    assert (found["rigflow_queue_messages"], found["rigflow_claim_check_limit_bytes"]) == (3, 900)
    assert (found["rigflow_worker_in_flight"], found["rigflow_worker_resident_memory_bytes"]) == (2, 10**8)
    assert found["rigflow_claim_check_bytes"] == 700
    assert (found["rigflow_worker_deaths_total"], found["rigflow_dead_letters"]) == (4, 6)
    assert (found["rigflow_queue_bytes"], found["rigflow_queue_oldest_seconds"]) == (5000, 7.5)


def test_what_is_not_known_is_left_out() -> None:
    text = exposition(Snapshot()).decode()
    assert re.findall(r"^rigflow\w+", text, re.MULTILINE) == ["rigflow_build_info", "rigflow_broker_up"]


UNITS = ("seconds", "bytes", "ratio", "joules", "watts", "celsius", "hertz")  # base units, always the last word
OTHER_UNITS = "ms|milliseconds|minutes|hours|kb|mb|kib|mib|percent|mhz|milliwatts|fahrenheit|bits"


def test_names_are_by_the_conventions_of_prometheus() -> None:
    """What `promtool check metrics` looks at, and the guide to names."""
    found = list(families(snapshot()))
    assert len(found) >= 60
    for family in found:
        assert re.fullmatch(r"rigflow(_[a-z0-9]+)+", family.name), family.name
        assert not re.search(rf"_({OTHER_UNITS})(_|$)|_(total|count|sum|bucket)$", family.name), family.name
        assert family.documentation.endswith("."), family.name
        assert family.type != "unknown", family.name
        words = family.name.split("_")
        assert not {"counter", "gauge", "histogram", "metric"} & set(words), family.name
        unit = [word for word in words if word in UNITS]
        per_second = family.name.endswith("_bytes_per_second")
        assert not unit or words[-1] in UNITS or per_second, f"{family.name}: its unit is not the last word"
        assert family.type != "histogram" or words[-1] in UNITS, family.name
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name
            for label in sample.labels:
                assert re.fullmatch(r"[a-z][a-z0-9_]*", label), label
                assert label not in ("job", "instance", "exported_job"), f"{label} is Prometheus's own"
    assert len({family.name for family in found}) == len(found)


def test_a_heartbeat_travels_and_counts_add_up() -> None:
    beat = Heartbeat(
        "working", ready=False, why="why", still_s=1.5, step="up infer", in_flight=3, stages=snapshot().stages
    )
    assert Heartbeat.decode(beat.encode()) == beat
    twice = StageCounts()
    twice.add(beat.stages[KEY])
    twice.add(beat.stages[KEY])
    assert (twice.frames, twice.received_bytes, sum(twice.steps), len(twice.steps)) == (24, 2000, 6, len(BUCKETS_S) + 1)


def test_a_log_line_is_one_line_of_keys_and_values(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    try:
        set_up_logging(Settings(), rig="r")
        log_event(Event("died", 'it "fell"\nover', facts={"pause_s": 0.2, "exit": "signal SIGKILL"}))
    finally:
        root.handlers, root.level = before
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    expected = r' level=warning rig=r event=died pause_s=0.2 exit="signal SIGKILL" msg="it \"fell\"\nover"'
    assert re.match(r"time=\d{4}-\d\d-\d\dT[\d:.]+\+00:00", line)
    assert line.rstrip().endswith(expected)


def test_a_log_line_as_json_without_control_characters_and_passwords(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    try:
        set_up_logging(Settings(log_format=LogFormat.JSON, log_level=LogLevel.WARNING), rig="r")
        log_event(Event("ready", "below the level", logging.INFO))
        log_event(Event("died", "nats://me:secret@host \x1b[31m", facts={"pause_s": 0.25, "pid": 7}))
    finally:
        root.handlers, root.level = before
    (line,) = capsys.readouterr().err.splitlines()
    found = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", found.pop("time"))
    assert "secret" not in line
    assert "\x1b" not in found.pop("msg")
    assert found == {"level": "warning", "rig": "r", "event": "died", "pause_s": 0.25, "pid": 7}


def test_lines_of_one_kind_are_limited_and_the_next_says_how_many_were_dropped() -> None:
    now_s = 0.0
    limit = _Limit(lambda: now_s)

    def shown(text: str) -> list[logging.LogRecord]:
        records = [logging.LogRecord("rigflow", logging.ERROR, "", 0, text, None, None) for _ in range(LINES + 10)]
        return [record for record in records if limit.filter(record)]

    assert len(shown("asking RIGFLOW_RESULTS for messages failed")) == LINES
    assert len(shown("another")) == LINES
    now_s = LINES_WITHIN_S
    first, *_ = shown("asking RIGFLOW_RESULTS for messages failed")
    assert vars(first)["facts"] == {"dropped_before": 10}


async def test_pages_and_what_is_no_page() -> None:
    async def hello() -> Response:
        return Response(b"hello\n")

    endpoints = Endpoints("127.0.0.1:0", {"/hello": hello})
    url = await endpoints.open()
    port = int(url.rpartition(":")[2])

    async def ask(request: bytes) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        writer.write_eof()
        answer = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
        return answer

    assert (await ask(b"GET /hello?x HTTP/1.1\r\n\r\n")).endswith("\r\n\r\nhello\n")
    assert (await ask(b"HEAD /hello HTTP/1.1\r\n\r\n")).endswith("Content-Length: 6\r\nConnection: close\r\n\r\n")
    assert (await ask(b"GET /other HTTP/1.1\r\n\r\n")).startswith("HTTP/1.1 404 Not Found")
    assert (await ask(b"POST /hello HTTP/1.1\r\n\r\n")).startswith("HTTP/1.1 405 ")
    assert await ask(b"\r\n") == ""
    assert await ask(b"GET /" + b"x" * 20_000) == ""
    with pytest.raises(
        UsageError, match=f"metrics address 127.0.0.1:{port}: Address already in use: choose .*--metrics"
    ):
        await Endpoints(f"127.0.0.1:{port}", {}).open()
    await endpoints.close()


@pytest.mark.parametrize("address", ["9464", "127.0.0.1:http", ":1", "127.0.0.1:99999"])
async def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(UsageError, match="metrics address"):
        await Endpoints(address, {}).open()


def test_a_rigs_file() -> None:
    spec = parse_rig('name = "rig-7"\n[[worker]]\ncount = 7\nstages = ["decode"]\n[[worker]]\n', "rig.toml")
    assert [(group.count, group.stages) for group in spec.worker] == [(7, ("decode",)), (1, ())]
    assert rig_name("rig.7.example") == "rig-7-example"


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("[[worker]\n", "rig.toml: not TOML"),
        ("", "rig.toml, worker: missing"),
        ('[[worker]]\ndevice = "gpu"\n', "rig.toml, worker.0.device: "),
        ("[[worker]]\ncount = 0\n", "rig.toml, worker.0.count: should be greater than or equal to 1"),
        ('[[worker]]\nstages = ["de code"]\n', "rig.toml, worker.0.stages.0: takes letters, digits, - and _"),
        ('name = "a.b"\n[[worker]]\n', "rig.toml, name"),
    ],
)
def test_what_is_wrong_with_a_rigs_file(text: str, output: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_rig(text, "rig.toml")
    assert str(raised.value).startswith(output)
    assert str(raised.value).endswith("see docs/cli.md, rigflow rig")
