"""What plans of streams and consumers are made of, in the fields of JetStream's API."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from schemas.jobs import Priority
from schemas.settings import Settings
from schemas.subjects import Names

DEDUPLICATION_S = 120.0
DAY_S = 86400.0
MEDIA_AGE_S = 7 * DAY_S  # raw media that no worker takes
BLOB_AGE_S = 7 * DAY_S  # the object of a message that is never settled
JOB_AGE_S = 7 * DAY_S  # what is known of a job
DEAD_AGE_S = 30 * DAY_S
SMALL_BYTES = 64 << 20  # buckets of small entries: manifests, status, attempts
CANCEL_BYTES, CANCEL_MESSAGE_BYTES = 16 << 20, 4096  # of requests to cancel jobs, headers included
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


def replicated(plan: StreamPlan, replicas: int) -> StreamPlan:
    """The stream of `plan` with so many copies."""
    return replace(plan, config=plan.config | {"num_replicas": replicas})


def stream(name: str, subjects: list[str], max_bytes: int, max_age_s: float = 0.0, **config: Any) -> Config:
    """A stream that refuses what it has no room for."""
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


def bucket(name: str, max_bytes: int, max_age_s: float = 0.0, discard: str = "new", **more: Any) -> Config:
    """A key-value bucket as every NATS client lays it out."""
    config = {"deny_delete": True, "max_msgs_per_subject": 1, "discard": discard} | more
    return stream(f"KV_{name}", [f"$KV.{name}.>"], max_bytes, max_age_s, **config)


def jobs_bucket(name: str, max_bytes: int) -> Config:
    """The bucket of the jobs of a tenant, or of all that are not listed: the oldest make room for new ones."""
    return bucket(name, max_bytes, JOB_AGE_S, discard="old")


def objects(name: str, max_bytes: int, max_age_s: float = 0.0) -> Config:
    """An object store as every NATS client lays it out."""
    return stream(f"OBJ_{name}", [f"$O.{name}.C.>", f"$O.{name}.M.>"], max_bytes, max_age_s)


def _queue(name: str, subjects: list[str], max_bytes: int, max_age_s: float = 0.0) -> Config:
    return stream(name, subjects, max_bytes, max_age_s, retention="workqueue")


def prioritised(name: str, subjects: Mapping[str, str], settings: Settings, max_age_s: float = 0.0) -> StreamPlan:
    """A work queue with a consumer for each priority: name of a consumer -> its subject."""
    consumers = tuple(consumer(settings, named, subject) for named, subject in subjects.items())
    return StreamPlan(_queue(name, list(subjects.values()), settings.queue_bytes, max_age_s), consumers)


def dead_letters(names: Names, tenant: str, max_bytes: int) -> StreamPlan:
    """The dead letters of a tenant, or "" those of all that are not listed: the oldest make room for new ones."""
    subject = names.dead("*", "*", tenant) if names.tenants else f"{names.prefix}.dead.>"
    return StreamPlan(stream(names.dead_of(tenant), [subject], max_bytes, DEAD_AGE_S, discard="old"))


def cancel_queue(names: Names, settings: Settings, tenant: str) -> StreamPlan:
    """The queue of requests to cancel jobs of a tenant, `*` for any; a request has no body."""
    subject = names.cancel(tenant, "*", "*")
    queue = _queue(names.cancel_of(tenant), [subject], CANCEL_BYTES, JOB_AGE_S)
    queue |= {"max_msg_size": CANCEL_MESSAGE_BYTES}
    return StreamPlan(queue, (consumer(settings, Priority.INTERACTIVE.value, subject),))


def consumer(settings: Settings, name: str, subject: str) -> Config:
    """A consumer from which workers take what they have credit for."""
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
