"""The contestants: one small file for each, as its own documentation recommends, behind `benchmarks.chain.Peer`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from benchmarks.chain import Peer, Task


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to do the work.

    `options` are the peer's own, besides `workers`; of those in `sweep` the best is kept. `needs` is the package
    without which it is left out. `takes` is what it is given: `files`, `segments`, or `itself` where it reads and cuts
    by itself. `queue` marks peers that keep work in a queue or service of their own. It is warmed up so many times, and
    takes part in so many rounds at most.
    """

    module: str
    title: str
    takes: str
    options: Mapping[str, object] = field(default_factory=dict)
    sweep: tuple[Mapping[str, object], ...] = ()
    needs: str = ""
    queue: bool = False
    warm_ups: int = 2
    rounds: int = 1000
    limit: bool = False


_WORKERS = ({"workers": 2}, {"workers": 3})
_ONCE: dict[str, Any] = {"rounds": 1}  # it is so slow that the others get the time
# it starts its actors again for every data set, which takes longer than all else here
_RAY: dict[str, Any] = {"needs": "ray", "queue": True, "warm_ups": 1, **_ONCE}
_FILES, _SEGMENTS = {"split": False}, {"split": True}

CONTESTANTS: dict[str, Contestant] = {
    "script": Contestant("script", "script: PyAV AUTO threads, ONNX Runtime as it comes", "itself"),
    "script-tuned": Contestant(
        "script",
        "script, tuned",
        "itself",
        sweep=({"model_threads": 1}, {"model_threads": 1, "decode_threads": "NONE"}),
        **_ONCE,
    ),
    "pool-files": Contestant("pool", "process pool, a file a task", "files", _FILES, **_ONCE),
    "pool": Contestant("pool", "process pool, segments: rigflow without a broker", "segments", _SEGMENTS, _WORKERS),
    "ray-files": Contestant("ray_data", "Ray Data, a file a row", "files", _FILES, **_RAY),
    "ray": Contestant("ray_data", "Ray Data, segments", "segments", _SEGMENTS, **_RAY),
    "mosec-files": Contestant(
        "mosec_service", "mosec, a file a request", "files", _FILES, needs="mosec", queue=True, **_ONCE
    ),
    "mosec": Contestant(
        "mosec_service",
        "mosec, a segment a request",
        "segments",
        _SEGMENTS,
        ({"workers": 2, "batch": 64}, {"workers": 3, "batch": 64}, {"workers": 2, "batch": 8}),
        needs="mosec",
        queue=True,
    ),
    "queue-files": Contestant(
        "queue_worker", "FastStream on NATS, a file a task", "files", _FILES, needs="faststream", queue=True, **_ONCE
    ),
    "queue": Contestant(
        "queue_worker",
        "FastStream on NATS, a segment a task",
        "segments",
        _SEGMENTS,
        _WORKERS,
        needs="faststream",
        queue=True,
    ),
    "rigflow": Contestant("rigflow", "rigflow", "itself", queue=True),
    "decode": Contestant(
        "limits", "decode alone, one process, AUTO threads", "itself", {"what": "decode"}, limit=True, **_ONCE
    ),
    "decode-2": Contestant("limits", "decode alone, two processes", "segments", {"what": "decode-2"}, limit=True),
    "engine": Contestant("limits", "the model alone, one thread", "segments", {"what": "engine"}, limit=True, **_ONCE),
    "copy": Contestant("limits", "one copy of the raw frames", "segments", {"what": "copy"}, limit=True, **_ONCE),
}
SAME_SETTINGS = {"pool-files": "pool", "mosec-files": "mosec", "queue-files": "queue"}  # swept once for both


def make_peer(name: str, task: Task, options: Mapping[str, object]) -> Peer:
    """A contestant that has not been started; `options` go over its own. Raises ImportError without its package."""
    contestant = CONTESTANTS[name]
    make: Callable[..., Peer] = import_module(f"benchmarks.peers.{contestant.module}").make
    return make(task, **{"workers": 2, **contestant.options, **options})
