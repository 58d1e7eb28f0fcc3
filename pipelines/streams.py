"""The streams and consumers that pipelines need, in the fields of JetStream's API."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from schemas.jobs import Priority
from schemas.pipeline import PipelineSpec
from schemas.settings import Settings
from schemas.subjects import COLLECT, Names

DEDUPLICATION_S = 120.0
DAY_S = 86400.0
MEDIA_AGE_S = 7 * DAY_S  # raw media that no worker takes
BLOB_AGE_S = 7 * DAY_S  # the object of a message that is never settled
JOB_AGE_S = 7 * DAY_S  # what is known of a job
DEAD_AGE_S = 30 * DAY_S
USAGE_AGE_S = 400 * DAY_S  # what jobs used: more than a year
ATTEMPT_AGE_S = DAY_S  # records of attempts at a message that was not finished
RIG_AGE_S = 10.0  # the status of a worker that sends no status any more
SMALL_BYTES = 64 << 20  # buckets of small entries: manifests, status, attempts
SEEN_BYTES = 16 << 20  # of rigs that run or ran: some thousands
AUDIT_BYTES = 64 << 20  # about 200,000 changes; the oldest go when it is full
USAGE_BYTES = 512 << 20  # about a million jobs
CANCEL_BYTES, CANCEL_MESSAGE_BYTES = 16 << 20, 4096  # of requests to cancel jobs, headers included
UNBOUNDED = -1  # limited only by the size of the broker's store
IN_FLIGHT = 50_000  # messages of one queue that all workers together may hold
REQUESTS = 10_000  # pull requests of all workers together that one queue may have
Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """One stream as it should be, and its durable consumers, in the fields of JetStream's API."""

    config: Config
    consumers: tuple[Config, ...] = ()

    @property
    def name(self) -> str:
        """The stream's name."""
        return str(self.config["name"])


def desired(names: Names, settings: Settings, specs: Sequence[PipelineSpec]) -> list[StreamPlan]:
    """What the broker should have for these pipelines."""
    prefix = names.prefix
    queues = [(spec.name, stage) for spec in specs for stage in (*(stage.name for stage in spec.stage), COLLECT)]
    results_age_s = settings.results_age_s
    plans = [
        StreamPlan(_bucket(names.pipelines, UNBOUNDED)),
        StreamPlan(_bucket(names.jobs, SMALL_BYTES, JOB_AGE_S, discard="old")),
        StreamPlan(_bucket(names.keys, SMALL_BYTES)),
        StreamPlan(_bucket(names.profiles, SMALL_BYTES)),
        StreamPlan(_bucket(names.rigs, SMALL_BYTES, RIG_AGE_S, discard="old")),
        StreamPlan(_bucket(names.last_seen, SEEN_BYTES, settings.rigs_age_s, discard="old")),
        StreamPlan(_bucket(names.attempts, SMALL_BYTES, ATTEMPT_AGE_S, discard="old")),
        StreamPlan(_objects(names.models, UNBOUNDED)),
        StreamPlan(_objects(names.engines, UNBOUNDED)),
        StreamPlan(_objects(names.blobs, settings.results_bytes, BLOB_AGE_S)),
        StreamPlan(_stream(names.results_stream, [f"{prefix}.results.>"], settings.results_bytes, results_age_s)),
        StreamPlan(_stream(names.dead_stream, [f"{prefix}.dead.>"], settings.dead_bytes, DEAD_AGE_S, discard="old")),
    ]
    usage = {"max_msgs_per_subject": 1, "discard": "old"}
    plans.append(StreamPlan(_stream(names.usage_stream, [f"{prefix}.usage.>"], USAGE_BYTES, USAGE_AGE_S, **usage)))
    append_only: Config = {"deny_delete": True, "deny_purge": True, "discard": "old"}
    plans.append(StreamPlan(_stream(names.audit_stream, [f"{prefix}.audit.>"], AUDIT_BYTES, **append_only)))
    plans.append(_cancel(names, settings))
    plans += [_media(names, settings, spec.name) for spec in specs]
    plans += [_work_queue(names, settings, pipeline, stage) for pipeline, stage in queues]
    return [replicated(plan, settings.durability.replicas) for plan in plans]


def replicated(stream: StreamPlan, replicas: int) -> StreamPlan:
    """`stream` with so many copies."""
    return replace(stream, config=stream.config | {"num_replicas": replicas})


def _stream(name: str, subjects: list[str], max_bytes: int, max_age_s: float = 0.0, **config: Any) -> Config:
    return {
        "name": name,
        "subjects": subjects,
        "max_bytes": max_bytes,
        "max_age": _ns(max_age_s),
        "duplicate_window": _ns(min(DEDUPLICATION_S, max_age_s or DEDUPLICATION_S)),
        "retention": "limits",
        "discard": "new",  # a full stream refuses messages and the publisher waits; nothing is dropped
        "storage": "file",
        "allow_direct": True,
        "allow_rollup_hdrs": False,  # one message with such a header deletes all others
    } | config


def _bucket(name: str, max_bytes: int, max_age_s: float = 0.0, discard: str = "new") -> Config:
    """A key-value bucket as every NATS client lays it out."""
    config = {"deny_delete": True, "max_msgs_per_subject": 1, "discard": discard}
    return _stream(f"KV_{name}", [f"$KV.{name}.>"], max_bytes, max_age_s, **config)


def _objects(name: str, max_bytes: int, max_age_s: float = 0.0) -> Config:
    """An object store as every NATS client lays it out."""
    return _stream(f"OBJ_{name}", [f"$O.{name}.C.>", f"$O.{name}.M.>"], max_bytes, max_age_s)


def _queue(name: str, subjects: list[str], max_bytes: int, max_age_s: float = 0.0) -> Config:
    return _stream(name, subjects, max_bytes, max_age_s, retention="workqueue")


def _media(names: Names, settings: Settings, pipeline: str) -> StreamPlan:
    """The queue of raw media for one pipeline.

    A message for a pipeline without this stream gets "no responders" at once. Each pipeline has its own stream, because
    processes that add subjects to one stream at the same time overwrite each other's change.
    """
    subjects = {priority: names.media("*", pipeline, priority) for priority in Priority}
    return _prioritised(names.media_stream(pipeline), subjects, settings, MEDIA_AGE_S)


def _cancel(names: Names, settings: Settings) -> StreamPlan:
    """The queue of requests to cancel jobs; a request has no body."""
    subject = names.cancel("*", "*", "*")
    queue = _queue(names.cancel_stream, [subject], CANCEL_BYTES, JOB_AGE_S) | {"max_msg_size": CANCEL_MESSAGE_BYTES}
    return StreamPlan(queue, (_consumer(settings, Priority.INTERACTIVE.value, subject),))


def _work_queue(names: Names, settings: Settings, pipeline: str, stage: str) -> StreamPlan:
    subjects = {priority: names.work(pipeline, stage, priority) for priority in Priority}
    return _prioritised(names.work_stream(pipeline, stage), subjects, settings)


def _prioritised(name: str, subjects: Mapping[Priority, str], settings: Settings, max_age_s: float = 0.0) -> StreamPlan:
    """A work queue with a consumer for each priority."""
    consumers = tuple(_consumer(settings, priority.value, subject) for priority, subject in subjects.items())
    return StreamPlan(_queue(name, list(subjects.values()), settings.queue_bytes, max_age_s), consumers)


def _consumer(settings: Settings, name: str, subject: str) -> Config:
    return {
        "durable_name": name,
        "filter_subject": subject,
        "ack_policy": "explicit",
        "ack_wait": _ns(settings.ack_wait_s),
        "max_deliver": -1,  # the server counts hand-backs too; workers count failures (pipelines.attempts)
        "max_ack_pending": IN_FLIGHT,
        "max_waiting": REQUESTS,
    }


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
