"""The status and the list of dead letters in a window of 80 columns."""

import io
import time
from collections.abc import Mapping
from typing import Any

import pytest
from rich.console import Console, RenderableType

from cli.dead import _summary
from cli.jobs import describe, seconds
from cli.status import render
from pipelines.broker import Stored
from pipelines.dead import Letter
from pipelines.status import FleetStatus, PriorityStatus, QueueStatus, StreamStatus
from schemas.jobs import JobRef, JobState, Key, Manifest, Priority
from schemas.results import Failure

GPU = "NVIDIA GeForce RTX 3090 Ti Founders Edition"
STREAM = StreamStatus(messages=1234567, nbytes=998_000_000, limit_bytes=2_150_000_000, oldest_s=7300.0)


def shown(made: RenderableType, columns: int = 80) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=columns).print(made)
    return [line.rstrip() for line in text.getvalue().splitlines()]


def worker(name: str, stages: str = "decode resize infer encode", **fields: object) -> Mapping[str, Any]:
    done = [{"pipeline": "p", "stage": "infer", "busy": 1.0, "frames_per_s": 1225.4}]
    status = {"worker": name, "stages": stages.split(), "state": "working", "at_s": time.time(), "in_flight": 128}
    return status | {"done": done, "failures": 0, "rss_bytes": 997e6, "device": "cuda:0", "gpu": {"name": GPU}} | fields


def fleet(*workers: Mapping[str, Any], again: int = 0) -> FleetStatus:
    priorities = {each: PriorityStatus(waiting=123456, in_flight=128, redelivered=again) for each in Priority}
    queue = QueueStatus("a-pipeline-with-a-long-name", "realesr-animevideov3", "infer", STREAM, priorities)
    given_up = {"worker": "rig-7-cuda9", "stages": ["all"], "device": "cuda:9", "deaths": 5, "why": "given up"}
    rig = {
        "rig": "a-machine-with-a-long-name",
        "host": "a-machine-with-a-long-name.example.org",
        "state": "working",
        "at_s": time.time(),
        "metrics": "http://127.0.0.1:9464",
        "workers": [given_up | {"state": "given up", "last_exit": "exit code 7"}],
    }
    return FleetStatus(1, {"p": "r"}, [queue], workers, [rig], STREAM, STREAM)


def test_every_queue_worker_and_rig_is_one_line() -> None:
    silent = worker("a-machine-with-a-long-name-cuda1", at_s=time.time() - 100)
    lines = shown(render(fleet(worker("rig-7-cuda0"), silent), "nats://127.0.0.1:4222"))
    assert all(len(line) <= 80 for line in lines)
    start = next(number for number, line in enumerate(lines) if line.startswith("queue"))
    queues, queue, _, titles, first, second, gone, why, _, rigs, rig = lines[start:]
    assert queues.split() == ["queue", "interactive", "bulk", "held", "size", "oldest", "frames/s"]
    assert queue.split()[-8:] == ["123,456", "123,456", "256", "998", "MB", "2", "h", "0"]
    assert titles.split() == ["worker", "device", "stages", "state", "held", "busy", "frames/s", "memory"]
    assert {"working", "128", "100%", "1,225"} <= set(first.split())
    assert first.split()[:2] == ["rig-7-cuda0", "GeForce"]
    assert "silent for 100 s" in second
    assert gone.split() == ["rig-7-cuda9", "cuda:9", "all", "given", "up"]
    assert why == "worker rig-7-cuda9 is given up, last exit: exit code 7"
    assert rigs.split() == ["rig", "host", "state", "metrics", "workers", "ready", "deaths"]
    assert "http://127.0.0.1:9464" in rig


def test_the_reason_that_workers_are_not_ready_is_reported_once() -> None:
    why = "p: its model ended the process that loaded it (SIGSEGV)"
    workers = [worker(name, why=why) for name in ("w0", "w1")]
    lines = shown(render(fleet(*workers, worker("w2", why="")), "nats://127.0.0.1:4222"), columns=200)
    assert [line for line in lines if "not ready" in line] == [f"not ready: w0, w1: {why}"]


def test_reasons_of_workers_are_no_commands_to_the_terminal() -> None:
    hidden = worker("w", why="a\x1b[2J", declined={"p": "b\x1b[2J"})
    lines = shown(render(fleet(hidden), "nats://127.0.0.1:4222"), columns=200)
    assert "not ready: w: a\\x1b[2J" in lines
    assert "no work of pipeline p goes to w: b\\x1b[2J" in lines


def test_a_column_is_there_when_it_says_something() -> None:
    lines = shown(render(fleet(worker("w", failures=3), again=2), "nats://127.0.0.1:4222"), columns=200)
    queues, queue, _, titles, first, *_ = lines[next(n for n, line in enumerate(lines) if line.startswith("queue")) :]
    assert "again" in queues
    assert " 4 " in queue
    assert "failed" in titles
    assert " 3 " in first
    assert GPU.removeprefix("NVIDIA ") in first


def test_a_dead_letter_has_its_job_and_its_error_in_full() -> None:
    key = Key(job=JobRef(id="5f0c6a4be1d2f7a09c3e", pipeline="fingerprint", revision="r"), segment=3)
    error = "frame 17 of segment 3 cannot be decoded: Invalid data found when processing input"
    failure = Failure(key=key, stage="decode", entire_segment=True, error=f"{error}\x1b[2J", at_s=time.time() - 130)
    letter = Letter(
        "RIGFLOW_DEAD", 12, failure, "rigflow.work.fingerprint.decode.bulk", Stored("s", 1, {}, b"x" * 1000)
    )
    first, *others = shown(_summary(letter, time.time()), columns=72)
    assert first == "5f0c6a4be1d2f7a09c3e, fingerprint decode, segment 3, 1 kB, 2 min ago"
    assert " ".join(others) == error + "\\x1b[2J"


def test_times_of_a_job_are_dates_and_durations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    job = JobRef(id="j", pipeline="p", revision="r")
    try:
        done = Manifest(job=job, name="n", state=JobState.DONE, created_s=1_700_000_000.0, ended_s=1_700_003_725.0)
        fields = dict(describe(done, time.time()))
        assert fields["begun"].startswith("2023-11-14 23:13:20, ")
        assert fields["begun"].endswith(" ago")
        assert fields["ended"] == "2023-11-15 00:15:25, after 1 h 2 min"
    finally:
        monkeypatch.undo()
        time.tzset()
    running = dict(describe(Manifest(job=job, name="n", created_s=1_700_000_000.0), 1_700_000_061.0))
    assert running["begun"].endswith(", 1 min 1 s ago")
    assert running["ended"] == "-"


def test_positions_in_media_are_those_of_players() -> None:
    assert seconds(((3.0, 5.0), (58.0, 61.5))) == "3.00-5.00 s, 0:58.00-1:01.50"
    assert seconds(((3723.0, 7199.999),)) == "1:02:03.00-2:00:00.00"
