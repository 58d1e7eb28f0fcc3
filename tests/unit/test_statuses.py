"""Statuses of workers and rigs: one with a value that cannot be is left out, and readers never meet that value."""

import json
from typing import Any

import pytest

from pipelines.admission import messages_per_s
from pipelines.fleet_view import fleet_of
from pipelines.values import decoded
from schemas.status import RigStatus, Status, WorkerStatus

DONE = {"pipeline": "p", "stage": "decode", "frames": 10, "seconds": 2.0, "frames_per_s": 5.0, "busy": 1.0}
GPU = {"name": "P106-100", "uuid": "GPU-1", "memory_bytes": 6 << 30, "driver": "570"}
WORKER = {
    "worker": "r-gpu0",
    "rig": "r",
    "host": "h",
    "device": "cuda:0",
    "stages": ["all"],
    "state": "idle",
    "at_s": 1.0,
    "rss_bytes": 1,
    "in_flight": 0,
    "failures": 0,
    "cores": 2,
    "processor": "cpu-1",
}
SLOT = {"worker": "r-gpu0", "stages": ["all"], "state": "idle", "why": "", "deaths": 0, "last_exit": ""}
RIG = {"rig": "r", "host": "h", "state": "working", "at_s": 1.0, "metrics": ""}
PACE = ["p", "decode", 10, 2.0]


def read(model: type[Status], status: dict[str, Any]) -> dict[str, Any] | None:
    found = decoded(model, json.dumps(status).encode(), f"status {status}")
    return None if found is None else found.fields()


def worker(of: dict[str, Any] | None = None, gpu: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {**WORKER, "done": [{**DONE, **(of or {})}], "gpu": {**GPU, **(gpu or {})}, **more}


def test_a_status_is_read_as_it_was_written() -> None:
    written = worker({"message_s": 0.5, "message_bytes": 1e6})
    assert read(WorkerStatus, written) == written
    assert messages_per_s([written], "p", "decode") == (2.0, 1)
    [(_, device)] = fleet_of([written], [], []).places()
    assert device.frame_s == {("p", "decode"): 0.2}
    rig = {**RIG, "workers": [{**SLOT, "device": "cuda:0", "paces": [PACE]}]}
    assert read(RigStatus, rig) == rig
    assert read(WorkerStatus, worker({"parts": 3}, {"sensors": {}}, pid=7)) is not None


@pytest.mark.parametrize("wrong", ["soon", None, -1.0, [], {}, float("inf"), float("nan")])
@pytest.mark.parametrize("name", ["seconds", "message_s", "message_bytes"])
def test_a_worker_whose_work_cannot_be_is_left_out(name: str, wrong: object) -> None:
    assert read(WorkerStatus, worker({name: wrong})) is None


@pytest.mark.parametrize(
    "wrong",
    [
        *({"cores": value} for value in ("many", None, 0, -2, 1.5, 1 << 40)),
        *({"gpu": value} for value in ({"memory_bytes": "6 GB"}, {"memory_bytes": -1}, {"uuid": 1}, {"driver": 570})),
        *({name: 7} for name in ("rig", "host", "processor")),
    ],
)
def test_a_worker_whose_machine_cannot_be_is_left_out(wrong: dict[str, Any]) -> None:
    assert read(WorkerStatus, {**worker(), **wrong}) is None


@pytest.mark.parametrize(
    "paces", ["fast", None, [1], [PACE[:3]], [[*PACE, 1]], [["p", "decode", -1, 2.0]], [["p", "decode", 1, "long"]]]
)
def test_a_rig_whose_paces_cannot_be_is_left_out(paces: object) -> None:
    assert read(RigStatus, {**RIG, "workers": [{**SLOT, "paces": paces}]}) is None
