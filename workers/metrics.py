"""A rig's Prometheus metrics: counts of its workers, summed by stage, and the depths of the broker's queues."""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from pipelines.status import Depths
from workers.telemetry import BUCKETS_S, StageCounts

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STAGE = ("pipeline", "stage")
WORKER = ("worker",)


@dataclass(slots=True)
class Snapshot:
    """The values of a rig at one moment: messages in flight and bytes of memory by running worker, `deaths` by worker.

    `depths` is None while the broker is away: its metrics are then left out, and no old values are repeated.
    """

    stages: Mapping[tuple[str, str], StageCounts] = field(default_factory=dict)
    in_flight: Mapping[str, int] = field(default_factory=dict)
    memory: Mapping[str, int] = field(default_factory=dict)
    deaths: Mapping[str, int] = field(default_factory=dict)
    depths: Depths | None = None


def families(now: Snapshot) -> Iterator[Metric]:
    """Every metric family, in the order of docs/metrics.md."""
    stages = now.stages.items()
    build = version("rigflow"), platform.python_version()
    yield _gauge("rigflow_build_info", "1, with what the rig runs.", ("version", "python"), [(build, 1)])

    def count(name: str, text: str, of: Callable[[StageCounts], float]) -> CounterMetricFamily:
        return _counter(name, text, STAGE, ((key, of(counts)) for key, counts in stages))

    yield count("rigflow_parts", "Parts that a stage finished.", lambda counts: counts.parts)
    yield count("rigflow_frames", "Frames in the parts that a stage finished.", lambda counts: counts.frames)
    yield count(
        "rigflow_held_tiles",
        "Tiles that a model did not compute because they equal those of the frame before.",
        lambda counts: counts.held,
    )
    yield count("rigflow_batches", "Runs of a stage's model.", lambda counts: counts.batches)
    yield count("rigflow_batch_rows", "Rows in the runs of a stage's model.", lambda counts: counts.rows)
    yield count(
        "rigflow_batch_room",
        "The most rows that the runs of a stage's model could have had.",
        lambda counts: counts.room,
    )
    yield count("rigflow_tokens", "Tokens that a language model wrote.", lambda counts: counts.tokens)
    yield count("rigflow_answers", "Answers of a language model that have begun.", lambda counts: counts.answers)
    yield count(
        "rigflow_first_token_seconds",
        "Seconds from question to first token, of all answers together.",
        lambda counts: counts.first_seconds,
    )
    yield _steps(now.stages)
    yield _stage_bytes(now.stages)
    yield count(
        "rigflow_redeliveries",
        "Messages taken that had been delivered before.",
        lambda counts: counts.redeliveries,
    )
    yield count("rigflow_failures", "Pieces of work that failed for good.", lambda counts: counts.failures)
    yield _gauge("rigflow_worker_in_flight", "Messages that a worker holds.", WORKER, _alone(now.in_flight))
    yield _gauge("rigflow_worker_resident_memory_bytes", "Resident memory of a worker.", WORKER, _alone(now.memory))
    yield _counter("rigflow_worker_deaths", "Worker processes that ended unexpectedly.", WORKER, _alone(now.deaths))
    yield from _families_of_depths(now.depths)


def _families_of_depths(depths: Depths | None) -> Iterator[Metric]:
    """What the broker holds; without values while it does not answer."""
    queues = {} if depths is None else depths.queues
    yield _gauge(
        "rigflow_queue_bytes",
        "Bytes in the queue in front of a stage, those in workers' hands included.",
        STAGE,
        ((key, queue.nbytes) for key, queue in queues.items()),
    )
    yield _gauge(
        "rigflow_queue_oldest_seconds",
        "Age of the oldest message in the queue in front of a stage.",
        STAGE,
        ((key, queue.oldest_s) for key, queue in queues.items()),
    )
    claims = [] if depths is None else [((), depths.claims.nbytes)]
    text = "Bytes of bodies that are larger than a message, whatever stream their messages are in."
    yield _gauge("rigflow_claim_check_bytes", text, (), claims)
    dead = [] if depths is None else [((), depths.dead)]
    yield _gauge("rigflow_dead_letters", "Dead letters at the broker.", (), dead)


def exposition(now: Snapshot) -> bytes:
    """The text that Prometheus scrapes."""

    class Once(Collector):
        def collect(self) -> Iterable[Metric]:
            return families(now)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Once())
    return generate_latest(registry)


Samples = Iterable[tuple[tuple[str, ...], float]]


def _alone(values: Mapping[str, float]) -> Samples:
    return (((name,), value) for name, value in values.items())


def _counter(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _gauge(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _steps(stages: Mapping[tuple[str, str], StageCounts]) -> HistogramMetricFamily:
    family = HistogramMetricFamily("rigflow_step_seconds", "Time of one step of a stage's computing.", labels=STAGE)
    for key, counts in stages.items():
        buckets, total = [], 0
        for limit_s, steps in zip((*BUCKETS_S, float("inf")), counts.steps, strict=True):
            total += steps
            buckets.append(("+Inf" if limit_s == float("inf") else str(limit_s), float(total)))
        family.add_metric(key, buckets, counts.seconds)
    return family


def _stage_bytes(stages: Mapping[tuple[str, str], StageCounts]) -> CounterMetricFamily:
    text = "Bytes that a stage took from its queue (in) and gave to the broker (out)."
    family = CounterMetricFamily("rigflow_stage_bytes", text, labels=(*STAGE, "direction"))
    for key, counts in stages.items():
        family.add_metric((*key, "in"), counts.received_bytes)
        family.add_metric((*key, "out"), counts.sent_bytes)
    return family
