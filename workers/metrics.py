"""A rig's Prometheus metrics: counts of its workers summed by stage, the broker's queues, ended jobs, its GPUs."""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from engines.device.sensors import GpuReading
from pipelines.status import Depths, StreamStatus
from schemas.usage import Used
from workers.card_metrics import card_families
from workers.gpu_metrics import CareCounts, care_families, gpu_families
from workers.job_metrics import JobCounts, job_families
from workers.samples import Samples, alone, counter, gauge, histogram
from workers.slot import Slot
from workers.telemetry import BUCKETS_S, StageCounts

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STAGE = ("pipeline", "stage")
WORKER = ("worker",)
COUNTERS: Mapping[str, tuple[str, Callable[[StageCounts], float]]] = {
    "messages": ("Messages that a stage took from its queue.", lambda counts: counts.messages),
    "tasks": ("These, and parts that a worker handed to its own next stage.", lambda counts: counts.tasks),
    "parts": ("Parts that a stage finished.", lambda counts: counts.parts),
    "frames": ("Frames in the parts that a stage finished.", lambda counts: counts.frames),
    "held_tiles": (
        "Tiles that a model did not compute because they equal those of the frame before.",
        lambda counts: counts.held,
    ),
    "batches": ("Runs of a stage's model.", lambda counts: counts.batches),
    "batch_rows": ("Rows in the runs of a stage's model.", lambda counts: counts.rows),
    "batch_room": ("The most rows that the runs of a stage's model could have had.", lambda counts: counts.room),
    "tokens": ("Tokens that a language model wrote.", lambda counts: counts.tokens),
    "answers": ("Answers of a language model that have begun.", lambda counts: counts.answers),
    "first_token_seconds": (
        "Seconds from when a worker took a question to its first token, of all answers together.",
        lambda counts: counts.first_seconds,
    ),
    "redeliveries": ("Messages taken that had been delivered before.", lambda counts: counts.redeliveries),
}


@dataclass(slots=True)
class Snapshot:
    """The values of a rig at one moment: counts by stage, its workers, its GPUs, and jobs by (tenant, pipeline),
    and by (tenant, API key, pipeline).

    `depths` is None while the broker is away: its metrics are then left out, and no old values are repeated.
    """

    stages: Mapping[tuple[str, str], StageCounts] = field(default_factory=dict)
    workers: Sequence[Slot] = ()
    depths: Depths | None = None
    jobs: Mapping[tuple[str, str], JobCounts] = field(default_factory=dict)
    jobs_by_key: Mapping[tuple[str, str, str], Used] = field(default_factory=dict)
    gpus: Sequence[GpuReading] = ()
    care: CareCounts = field(default_factory=CareCounts)
    rig: str = ""


def families(now: Snapshot) -> Iterator[Metric]:
    """Every metric family, in the order of docs/metrics.md."""
    about = [((version("rigflow"), platform.python_version(), now.rig), 1.0)]
    yield gauge("rigflow_build_info", "Versions of a rig, always 1.", ("version", "python", "rig"), about)
    yield from job_families(now.jobs, now.jobs_by_key)
    yield from _families_of_stages(now.stages)
    yield from _families_of_workers(now.workers)
    yield from card_families(now.workers)
    yield from _families_of_queues(now)
    yield from _families_of_stores(now.depths)
    yield from gpu_families(now.gpus)
    yield from care_families(now.care)


def _families_of_stages(stages: Mapping[tuple[str, str], StageCounts]) -> Iterator[Metric]:
    for name, (text, of) in COUNTERS.items():
        yield counter(f"rigflow_{name}", text, STAGE, ((key, of(counts)) for key, counts in stages.items()))
    steps = ((key, counts.steps, counts.seconds) for key, counts in stages.items())
    yield histogram("rigflow_step_seconds", "Time of one step of a stage's computing.", STAGE, BUCKETS_S, steps)
    moved = (
        ((*key, way), value)
        for key, counts in stages.items()
        for way, value in (("in", counts.received_bytes), ("out", counts.sent_bytes))
    )
    text = "Bytes that a stage took from its queue (in) and gave to the broker (out)."
    yield counter("rigflow_stage_bytes", text, (*STAGE, "direction"), moved)
    failed = (
        ((*key, reason), failures) for key, counts in stages.items() for reason, failures in counts.failures.items()
    )
    text = "Pieces of work that failed for good, by the kind of the error."
    yield counter("rigflow_failures", text, (*STAGE, "reason"), failed)


def _families_of_workers(slots: Sequence[Slot]) -> Iterator[Metric]:
    beats = {slot.options.name: slot.heartbeat for slot in slots if slot.heartbeat}

    def of(name: str, text: str, values: Mapping[str, float]) -> Metric:
        return gauge(f"rigflow_worker_{name}", text, WORKER, alone(values))

    states = (((slot.options.name, slot.state.replace(" ", "-")), 1.0) for slot in slots)
    yield gauge("rigflow_worker_state", "State of a worker, always 1.", (*WORKER, "state"), states)
    ready = {slot.options.name: float(not slot.unready) for slot in slots}
    yield of("ready", "1 when a worker runs and its engines have answered their warm-up.", ready)
    loaded = {name: beat.loaded for name, beat in beats.items()}
    yield of("engines_loaded", "Models that a worker has loaded.", loaded)
    loading = {name: len(beat.loading) for name, beat in beats.items()}
    yield of("engines_loading", "Models that a worker loads now.", loading)
    failed = {name: beat.failed for name, beat in beats.items()}
    yield of("engines_failed", "Pipelines whose engines a worker cannot load.", failed)
    yield of("in_flight", "Messages that a worker holds.", {name: beat.in_flight for name, beat in beats.items()})
    still = {name: beat.still_s for name, beat in beats.items()}
    yield of("still_seconds", "Seconds since the work of a worker moved.", still)
    step = {name: beat.step_s for name, beat in beats.items()}
    yield of("step_age_seconds", "Seconds that the running step of a worker has taken.", step)
    memory = {name: beat.rss_bytes for name, beat in beats.items()}
    yield of("resident_memory_bytes", "Resident memory of a worker.", memory)
    deaths = alone({slot.options.name: slot.died for slot in slots})
    yield counter("rigflow_worker_deaths", "Worker processes that ended unexpectedly.", WORKER, deaths)
    given_up = {slot.options.name: float(slot.given_up) for slot in slots}
    yield of("given_up", "1 when a worker died too often and is not started again.", given_up)


def _families_of_queues(now: Snapshot) -> Iterator[Metric]:
    """The queues of the broker; without values while it does not answer."""
    queues = {} if now.depths is None else now.depths.queues

    def of(name: str, text: str, value: Callable[[StreamStatus], float]) -> Metric:
        return gauge(f"rigflow_queue_{name}", text, STAGE, ((key, value(queue)) for key, queue in queues.items()))

    text = "Messages in the queue in front of a stage, those in workers' hands included."
    yield of("messages", text, lambda queue: queue.messages)
    yield of("bytes", "Bytes of these messages.", lambda queue: queue.nbytes)
    yield of(
        "limit_bytes",
        "Bytes that the queue may hold; publishers wait when it is full.",
        lambda queue: queue.limit_bytes,
    )
    yield of(
        "oldest_seconds", "Age of the oldest message in the queue in front of a stage.", lambda queue: queue.oldest_s
    )
    text = "Computing time of the queue in front of a stage, by the mean of what this rig computed there."
    yield gauge("rigflow_queue_predicted_seconds", text, STAGE, _predicted(now.stages, queues))


def _predicted(
    stages: Mapping[tuple[str, str], StageCounts], queues: Mapping[tuple[str, str], StreamStatus]
) -> Samples:
    """Messages of a queue times the mean time of one, where this rig has computed some."""
    for key, queue in queues.items():
        counts = stages.get(key)
        if counts is not None and counts.tasks and counts.seconds:
            yield key, queue.messages * counts.seconds / counts.tasks


def _families_of_stores(depths: Depths | None) -> Iterator[Metric]:
    """What else the broker holds."""
    yield gauge("rigflow_broker_up", "1 while this rig reaches the broker.", (), [((), float(depths is not None))])
    known = [] if depths is None else [depths]

    def of(name: str, text: str, value: Callable[[Depths], float]) -> Metric:
        return gauge(f"rigflow_{name}", text, (), (((), value(depths)) for depths in known))

    text = "Bytes of bodies that are larger than a message, whatever stream their messages are in."
    yield of("claim_check_bytes", text, lambda depths: depths.claims.nbytes)
    yield of("claim_check_limit_bytes", "Bytes that these may have.", lambda depths: depths.claims.limit_bytes)
    yield of("results_bytes", "Bytes of results that are not collected.", lambda depths: depths.results.nbytes)
    text = "Bytes that these may have; workers wait when there are as many."
    yield of("results_limit_bytes", text, lambda depths: depths.results.limit_bytes)
    yield of("dead_letters", "Dead letters at the broker.", lambda depths: depths.dead.messages)
    yield of("dead_letter_bytes", "Bytes of dead letters.", lambda depths: depths.dead.nbytes)


def exposition(now: Snapshot) -> bytes:
    """The text that Prometheus scrapes."""

    class Once(Collector):
        def collect(self) -> Iterable[Metric]:
            return families(now)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Once())
    return generate_latest(registry)
