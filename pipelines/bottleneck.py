"""Finds the bottleneck of a fleet: one sentence with its evidence."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.admission import bytes_per_s
from pipelines.status import FleetStatus, QueueStatus
from schemas.rig import runs_stage
from schemas.subjects import COLLECT, SPLIT
from schemas.text import rate, size

Worker = Mapping[str, Any]  # the last status of a worker
FULL = 0.95  # of a stream's limit: publishers wait
STANDING_S = 1.0  # a queue whose oldest message is younger than this limits nothing: messages pass through it
NONE = "no worker has reported"  # there is none, or it has just begun
IDLE = 0.05  # below this share of its time, a worker counts as idle


def bottleneck(fleet: FleetStatus) -> str:
    """One sentence: the stage that the fleet waits for, with figures, or that there is none."""
    if fleet.results.limit_bytes and fleet.results.nbytes > FULL * fleet.results.limit_bytes:
        return (
            f"The bottleneck is the stream of results: {size(fleet.results.nbytes)} of "
            f"{size(fleet.results.limit_bytes)} are kept, so encoders wait until results are collected or too old."
        )
    if fleet.claims.limit_bytes and fleet.claims.nbytes > FULL * fleet.claims.limit_bytes:
        return (
            f"The bottleneck is the store of large bodies: {size(fleet.claims.nbytes)} of "
            f"{size(fleet.claims.limit_bytes)} are kept, so publishers of bodies larger than a message wait."
        )
    late = [queue for queue in fleet.queues if has_backlog(queue)]
    if not late:
        return _nothing_has_backlog(fleet)
    queue = _furthest(late)
    workers = hosts(fleet.workers, queue)
    if not workers:
        why = "no worker hosts it" if fleet.workers else NONE
        return f"The bottleneck is {_name(queue)}: {_backlog(queue, workers)}, and {why}."
    if not any(worker.get("ready", True) for worker in workers):
        return f"The bottleneck is {_name(queue)}: {_backlog(queue, workers)}, while {_loading(workers)}."
    if not _has_worked(workers):
        return f"The bottleneck is {_name(queue)}: {_backlog(queue, workers)}, and its {_no_work(workers)}."
    if queue.stream.oldest_s < STANDING_S:  # it has waited longest of all
        return f"No bottleneck: no message has waited for {STANDING_S:.0f} s, {in_process(fleet)}."
    busiest, share = _busiest(workers)
    if queue.stage in (SPLIT, COLLECT) or share < IDLE:
        return (
            f"The bottleneck is {_name(queue)}: {_backlog(queue, workers)}, and its {_count(workers)} "
            f"{'spends' if len(workers) == 1 else 'spend'} {share:.0%} of the time computing."
        )
    speed = _speed_in_brackets(workers, busiest)
    where = "in front of it" if busiest == (queue.pipeline, queue.stage) else f"in front of {_name(queue)}"
    return (
        f"The bottleneck is {' '.join(busiest)}: it takes {share:.0%} of the time of {_count(workers)}"
        f"{speed}, while {_backlog(queue, workers)} {where}."
    )


def hosts(workers: Sequence[Worker], queue: QueueStatus) -> list[Worker]:
    """Those workers that take from a queue."""
    return [
        worker
        for worker in workers
        if runs_stage(worker["stages"], queue.stage, queue.kind)
        and queue.pipeline not in worker.get("declined", {})
        and _is_given(worker, queue)
    ]


def _is_given(worker: Worker, queue: QueueStatus) -> bool:
    """Whether the placement of the fleet lets a worker take from a queue."""
    role = worker.get("roles", {}).get(queue.pipeline)
    return role is None or queue.stage in (SPLIT, COLLECT, *role["takes"])


def _nothing_has_backlog(fleet: FleetStatus) -> str:
    if not any(queue.stream.messages for queue in fleet.queues):
        return f"No bottleneck: all queues are empty{'' if fleet.workers else f', and {NONE}'}."
    return f"No bottleneck: {in_process(fleet)}."


def in_process(fleet: FleetStatus) -> str:
    """What the workers of a fleet do that has no backlog: messages in process, the busiest stage, the longest step."""
    if not fleet.workers:
        return NONE
    number = sum(priority.in_flight for queue in fleet.queues for priority in queue.priorities.values())
    busy = [min(1.0, sum(of["busy"] for of in worker["done"])) for worker in fleet.workers]
    text = f"{number:,} {'message is' if number == 1 else 'messages are'} in process, and "
    loading = [worker for worker in fleet.workers if not worker.get("ready", True)]
    if loading and len(loading) == len(fleet.workers):
        return text + _loading(loading)
    if _has_worked(fleet.workers):
        text += f"{_count(fleet.workers)} {'is' if len(busy) == 1 else 'are'} {sum(busy) / len(busy):.0%} busy"
    else:
        text += _no_work(fleet.workers)
    busiest, of_time = _busiest(fleet.workers)
    if of_time >= IDLE:
        text += f", {of_time:.0%} of the time with {' '.join(busiest)}{_speed_in_brackets(fleet.workers, busiest)}"
    steps = [step for worker in fleet.workers if (step := worker.get("step"))]
    longest = max(steps, key=lambda step: step["seconds"], default=None)
    if longest is not None and longest["seconds"] >= STANDING_S:
        text += f"; a step of {' '.join(_key(longest))} has run for {longest['seconds']:.0f} s"
    return text


def _furthest(late: Sequence[QueueStatus]) -> QueueStatus:
    """The last queue with a backlog in the pipeline that has waited longest: it blocks the queues before it."""
    oldest = max(late, key=lambda queue: queue.stream.oldest_s)
    alike = [queue for queue in late if queue.pipeline == oldest.pipeline and queue.stream.oldest_s >= STANDING_S]
    return alike[-1] if alike else oldest


def _busiest(workers: Sequence[Worker]) -> tuple[tuple[str, str], float]:
    """The (pipeline, stage) that these workers compute most, and its share of their time."""
    shares: defaultdict[tuple[str, str], float] = defaultdict(float)
    for worker in workers:
        for of in worker["done"]:
            shares[_key(of)] += of["busy"] / len(workers)
    if not shares:
        return ("", ""), 0.0
    busiest = max(shares, key=lambda key: shares[key])
    return busiest, min(1.0, shares[busiest])


def _speed_in_brackets(workers: Sequence[Worker], stage: tuple[str, str]) -> str:
    """Frames a second of a stage on these workers; empty where there are none, as of a chat."""
    speed = sum(float(of["frames_per_s"]) for worker in workers for of in worker["done"] if _key(of) == stage)
    return f" ({rate(speed)} frames/s)" if speed else ""


def _key(of: Mapping[str, Any]) -> tuple[str, str]:
    return of["pipeline"], of["stage"]


def has_backlog(queue: QueueStatus) -> bool:
    """Whether more messages wait than workers have asked for.

    Each priority counts by itself: idle workers ask for both, busy ones may have asked for the other just now.
    """
    return any(priority.waiting > priority.requests for priority in queue.priorities.values())


def _name(queue: QueueStatus) -> str:
    return f"{queue.pipeline} {queue.stage}".strip()


def _backlog(queue: QueueStatus, workers: Sequence[Worker]) -> str:
    """How many messages wait and are held, and the bytes, the work and the age of both together: of the stream."""
    waiting = sum(priority.waiting for priority in queue.priorities.values())
    held = sum(priority.in_flight for priority in queue.priorities.values())
    text = f"{waiting:,} {'message waits' if waiting == 1 else 'messages wait'}"
    if held:
        text += f" and {held:,} {'is' if held == 1 else 'are'} held"
    together = " together" if held else ""
    per_s = bytes_per_s(workers, queue.pipeline, queue.stage)
    work_s = queue.stream.nbytes / per_s if per_s else 0.0
    seconds = f", about {work_s:,.0f} s of work" if work_s >= STANDING_S else ""
    return f"{text} ({size(queue.stream.nbytes)}{together}{seconds}, the oldest for {queue.stream.oldest_s:.0f} s)"


def _count(workers: Sequence[Worker]) -> str:
    return f"{len(workers)} {'worker' if len(workers) == 1 else 'workers'}"


def _has_worked(workers: Sequence[Worker]) -> bool:
    """Whether any of them has reported work: in its first seconds none has."""
    return any(worker["done"] for worker in workers)


def _no_work(workers: Sequence[Worker]) -> str:
    return f"{_count(workers)} {'has' if len(workers) == 1 else 'have'} reported no work yet"


def _loading(workers: Sequence[Worker]) -> str:
    return f"{_count(workers)} {'loads its' if len(workers) == 1 else 'load their'} models"
