"""Measures one contestant in a process of its own: `python -m benchmarks.contest '{"contestant": "pool", ...}'`.

It starts the contestant, compares its answers to the check media with the reference, and then times the workloads, one
after the other. Each workload writes a line of json into the file that the order names. See `Order`.
"""

import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks import measure
from benchmarks.answers import difference, read_answers, summary
from benchmarks.chain import Peer, Task
from benchmarks.peers import CONTESTANTS, make_peer
from benchmarks.workloads import Sizes, inputs_of, items_in

LOOK_S = 0.5  # how often memory is read: a process that exists then counts with its peak since the start


@dataclass(frozen=True, slots=True)
class Order:
    """What one process is to do.

    `workloads` are names and how often each is run. The `reference` writes its answers into `folder/reference`, and
    those of all others are compared with them. `cold`: only start, run the first workload once, and end.
    """

    contestant: str
    pipeline: str
    workloads: tuple[tuple[str, int], ...]
    folder: str
    result: str
    options: dict[str, object] = field(default_factory=dict)
    sizes: Sizes = field(default_factory=Sizes)
    reference: bool = False
    cold: bool = False

    @classmethod
    def parse(cls, text: str) -> "Order":
        """From json."""
        given = json.loads(text)
        given["workloads"] = tuple((name, repeats) for name, repeats in given["workloads"])
        return cls(**{**given, "sizes": Sizes(**given["sizes"])})

    def json(self) -> str:
        """The same as json."""
        return json.dumps(asdict(self))


class Meter:
    """CPU seconds and peak memory of this process and its descendants, from now to `stop`.

    Memory is the sum of each process's own peak. Both are read in between, because the CPU time of a process that has
    ended is counted by its parent, or is lost.
    """

    def __init__(self) -> None:
        measure.forget_peaks(measure.tree())
        self._peak = 0
        self._before = measure.cpu_s(measure.tree())
        self._own: dict[int, float] = {}
        self._own_before = measure.own_cpu_s(measure.tree())
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_S):
            self._look()

    def _look(self) -> list[int]:
        pids = measure.tree()
        self._peak = max(self._peak, measure.peak_bytes(pids))
        self._own |= measure.own_cpu_s(pids)
        return pids

    def stop(self) -> tuple[float, int]:
        """CPU seconds, and the peak in bytes."""
        self._stopping.set()
        self._thread.join()
        after = measure.cpu_s(self._look())
        measured = sum(after.values()) - sum(self._before.values())
        seen = sum(used - self._own_before.get(pid, 0.0) for pid, used in self._own.items())
        return max(measured, seen), self._peak

    def by_role(self, role_of: Callable[[int], str]) -> dict[str, float]:
        """CPU seconds by role of the processes that exist at `stop`."""
        used: dict[str, float] = {}
        for pid in measure.tree():
            role = role_of(pid)
            used[role] = used.get(role, 0.0) + self._own.get(pid, 0.0) - self._own_before.get(pid, 0.0)
        return used


async def contest(order: Order) -> None:
    """Carry out an order."""
    folder = Path(order.folder)
    task = Task(order.pipeline, str(folder / "models"))
    peer = make_peer(order.contestant, task, order.options)
    with tempfile.TemporaryDirectory(dir=folder, prefix="out-") as name:
        out = Path(name)
        began = time.perf_counter()
        await peer.start()
        started_s = time.perf_counter() - began
        try:
            if order.cold:
                await peer.run(inputs_of(order.workloads[0][0], folder, order.sizes), fresh(out), lambda: None)
                return
            if not CONTESTANTS[order.contestant].limit:
                await check(peer, order, fresh(out))
            for workload, repeats in order.workloads:
                record = await timed(peer, workload, repeats, order, out)
                about = {"contestant": order.contestant, "pipeline": order.pipeline, "workload": workload}
                line = {**about, "options": order.options, "start_s": started_s, **record}
                with Path(order.result).open("a") as lines:
                    lines.write(json.dumps(line) + "\n")
        finally:
            await peer.stop()


def checks_of(order: Order) -> list[str]:
    """The workloads whose answers are checked: of the kinds that are timed, and small where those are."""
    names = {name for name, _ in order.workloads}
    checks = ["check-images"] if "images" in names else []
    if names - {"images"}:
        checks.append("small" if "small" in names else "check")
    return checks


async def check(peer: Peer, order: Order, out: Path) -> None:
    """Answer the check media twice, which also warms up; ends the process if the answers differ from the reference."""
    for name in checks_of(order):
        for turn in range(CONTESTANTS[order.contestant].warm_ups):
            answered = fresh(out / f"{name}-{turn}")
            await peer.run(inputs_of(name, Path(order.folder), order.sizes), answered, lambda: None)
        place = Path(order.folder) / "reference" / order.pipeline / name
        if order.reference:
            place.parent.mkdir(parents=True, exist_ok=True)
            answered.rename(place)
        elif wrong := difference(read_answers(answered), read_answers(place)):
            sys.exit(f"{order.contestant} answers {order.pipeline} of {name} differently from the script: {wrong}")


async def timed(peer: Peer, workload: str, repeats: int, order: Order, out: Path) -> dict[str, Any]:
    """A workload, run several times: seconds of each and to its first result, and what they cost together."""
    paths = inputs_of(workload, Path(order.folder), order.sizes)
    if prepare := getattr(peer, "prepare", None):
        prepare(paths)
    seconds: list[float] = []
    firsts: list[float] = []
    sent = peer.broker_bytes()
    meter = Meter()
    for turn in range(repeats):
        answered = fresh(out / f"{workload}-{turn}")
        first: list[float] = []
        began = time.perf_counter()

        def arrived(began: float = began, first: list[float] = first) -> None:
            if not first:
                first.append(time.perf_counter() - began)

        await peer.run(paths, answered, arrived)
        seconds.append(time.perf_counter() - began)
        firsts += first
    used, peak = meter.stop()
    items = items_in(paths)
    record = {
        "items": items,
        "seconds": seconds,
        "rate": items / median(seconds),
        "cpu_s_per_1000": 1000 * used / repeats / items,
        "peak_bytes": peak,
        "broker_bytes": (peer.broker_bytes() - sent) // repeats,
    }
    if role_of := getattr(peer, "role_of", None):
        roles = meter.by_role(role_of).items()
        record["cpu_s_per_1000_by_role"] = {role: 1000 * seconds / repeats / items for role, seconds in roles}
    if firsts:
        record["first_s"] = median(firsts)
    if workload == "clip":
        record |= {"p50_ms": 1000 * median(seconds), "p99_ms": 1000 * percentile(seconds, 99)}
    if not CONTESTANTS[order.contestant].limit and len(paths) < 1000:
        record["answers"] = summary(read_answers(answered))
    return record


def percentile(values: Sequence[float], which: int) -> float:
    """Of few values it is nearly the largest."""
    return quantiles(values, n=100, method="inclusive")[which - 1] if len(values) > 1 else values[0]


def fresh(folder: Path) -> Path:
    """Make an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def main() -> None:
    import uvloop

    uvloop.run(contest(Order.parse(sys.argv[1])))


if __name__ == "__main__":
    main()
