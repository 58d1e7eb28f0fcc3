"""Telemetry of workers: counts per stage, a heartbeat every second to the supervisor, log lines.

A worker counts in plain integers; its rig makes metrics of them (`workers/metrics.py`).
"""

import json
import logging
import sys
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Self

from engines.ports import BatchCounts
from schemas.settings import LogFormat, Settings
from schemas.text import printable, without_passwords

LINES, LINES_WITHIN_S = 60, 60.0  # of one kind in the log
KIND_CHARS, KINDS = 40, 1000
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

Fact = str | int | float | bool
log = logging.getLogger("rigflow")
log.addHandler(logging.NullHandler())  # no output before `set_up_logging`: commands show events themselves


@dataclass(slots=True)
class StageCounts:
    """Counts of a stage since its worker started; `steps[n]` of its steps took at most `BUCKETS_S[n]` seconds.

    A step may produce several parts (infer, a batch) or none (the end of a decode). `held` are tiles, see `PartMeta`.
    `batches` are the runs of a model, `rows` the rows in them, `room` the most rows that they could have had.
    `messages` came from its queue, `tasks` are these and parts that its own worker handed on. `failures` are by reason.
    `tokens` are those that a language model wrote, `answers` those with a first token, for which they waited
    `first_seconds` together.
    """

    parts: int = 0
    frames: int = 0
    held: int = 0
    batches: int = 0
    rows: int = 0
    room: int = 0
    seconds: float = 0.0
    steps: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    received_bytes: int = 0
    sent_bytes: int = 0
    redeliveries: int = 0
    messages: int = 0
    tasks: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    answers: int = 0
    first_seconds: float = 0.0

    def add(self, other: "StageCounts") -> None:
        """Add the counts of another worker or of an earlier process."""
        for each in fields(self):
            if each.name not in ("steps", "failures"):
                setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))
        self.steps = [mine + theirs for mine, theirs in zip(self.steps, other.steps, strict=True)]
        for reason, failures in other.failures.items():
            self.failures[reason] = self.failures.get(reason, 0) + failures


class Meter:
    """Counts by (pipeline, stage)."""

    def __init__(self) -> None:
        self.stages: defaultdict[tuple[str, str], StageCounts] = defaultdict(StageCounts)

    def received(self, pipeline: str, stage: str, nbytes: int, deliveries: int) -> None:
        """Count a message from the queue of a stage."""
        counts = self.stages[pipeline, stage]
        counts.received_bytes += nbytes
        counts.messages += 1
        counts.redeliveries += deliveries > 1

    def task(self, pipeline: str, stage: str) -> None:
        """Count a piece of work that comes before a stage."""
        self.stages[pipeline, stage].tasks += 1

    def step(self, pipeline: str, stage: str, seconds: float) -> None:
        """Count a step of a stage."""
        counts = self.stages[pipeline, stage]
        counts.seconds += seconds
        counts.steps[bisect_left(BUCKETS_S, seconds)] += 1

    def part(self, pipeline: str, stage: str, frames: int) -> None:
        """Count a part that a stage finished."""
        counts = self.stages[pipeline, stage]
        counts.parts += 1
        counts.frames += frames

    def held(self, pipeline: str, stage: str, tiles: int) -> None:
        """Count tiles that were not computed because they equal those of the frame before."""
        self.stages[pipeline, stage].held += tiles

    def batched(self, pipeline: str, stage: str, runs: BatchCounts) -> None:
        """Count runs of a model."""
        counts = self.stages[pipeline, stage]
        counts.batches += runs.batches
        counts.rows += runs.rows
        counts.room += runs.room

    def written(self, pipeline: str, stage: str, tokens: int, first_s: Sequence[float]) -> None:
        """Count tokens of a language model, and the seconds from question to first token of answers that begin."""
        counts = self.stages[pipeline, stage]
        counts.tokens += tokens
        counts.answers += len(first_s)
        counts.first_seconds += sum(first_s)

    def sent(self, pipeline: str, stage: str, nbytes: int) -> None:
        """Count bytes that a stage sends to the broker."""
        self.stages[pipeline, stage].sent_bytes += nbytes

    def failed(self, pipeline: str, stage: str, reason: str) -> None:
        """Count a final failure; `reason` is one of a small set."""
        failures = self.stages[pipeline, stage].failures
        failures[reason] = failures.get(reason, 0) + 1


@dataclass(slots=True)
class Heartbeat:
    """What a worker reports to its supervisor every second.

    `ready`: every engine has answered its warm-up; if not, `why` says what is missing. `still_s`: seconds since
    work last moved. `step`: what is being computed now, if anything, for `step_s` seconds.
    `poison_candidate`: it works on an input that may have crashed a worker before. `loading`: sha256 of the models
    being loaded, `loaded`: how many are loaded. `failed`: pipelines whose engines cannot be loaded. `card` is the
    worker's, `quarantined`: it takes no work; `canaries` are counts by outcome.
    """

    state: str
    ready: bool
    why: str = ""
    still_s: float = 0.0
    step: str = ""
    step_s: float = 0.0
    poison_candidate: bool = False
    in_flight: int = 0
    rss_bytes: int = 0
    loading: list[str] = field(default_factory=list)
    loaded: int = 0
    failed: int = 0
    card: str = ""
    quarantined: bool = False
    canaries: Mapping[str, int] = field(default_factory=dict)
    stages: Mapping[tuple[str, str], StageCounts] = field(default_factory=dict)

    def encode(self) -> bytes:
        """For the supervisor's socket."""
        body = _values(self)
        body["stages"] = [[*key, _values(counts)] for key, counts in self.stages.items()]
        return json.dumps(body).encode()

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """The heartbeat in a body that `encode` made."""
        given = json.loads(body)
        stages = {(pipeline, stage): StageCounts(**counts) for pipeline, stage, counts in given.pop("stages")}
        return cls(**given, stages=stages)


def _values(of: Heartbeat | StageCounts) -> dict[str, object]:
    """The fields by name, without the copies of them that `dataclasses.asdict` makes."""
    return {each.name: getattr(of, each.name) for each in fields(of)}


@dataclass(frozen=True, slots=True)
class Event:
    """An event for operators: `text` for people, `what` and `facts` for programs."""

    what: str
    text: str
    level: int = logging.WARNING
    facts: Mapping[str, Fact] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text


def log_event(event: Event) -> None:
    """Write an event as one line of the log."""
    log.log(event.level, event.text, extra={"facts": {"event": event.what, **event.facts}})


def set_up_logging(settings: Settings, **always: Fact) -> None:
    """Have every record go to stderr as one line of `settings.log_format`, `always` in each; limited by `_Limit`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_Limit())
    handler.setFormatter(_LINES[settings.log_format](always))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)


class _Limit(logging.Filter):
    """Drops lines of a kind that come too often; the next one after that minute says how many were dropped.

    Lines are of one kind when their event is the same, or without event the beginning of their text.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[tuple[int, str], _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        facts: Mapping[str, Fact] = getattr(record, "facts", {})
        key = record.levelno, str(facts.get("event", "")) or str(record.msg)[:KIND_CHARS]
        if len(self._kinds) >= KINDS:
            self._kinds.clear()
        kind, now_s = self._kinds.setdefault(key, _Kind(self._clock())), self._clock()
        if now_s - kind.since_s >= LINES_WITHIN_S:
            if kind.count > LINES:
                record.facts = {**facts, "dropped_before": kind.count - LINES}
            kind.since_s, kind.count = now_s, 0
        kind.count += 1
        return kind.count <= LINES


@dataclass(slots=True)
class _Kind:
    since_s: float
    count: int = 0


class _Line(logging.Formatter):
    """`time=... level=... msg="..." key=value`: the format logfmt."""

    def __init__(self, always: Mapping[str, Fact]) -> None:
        super().__init__()
        self._always = always

    def format(self, record: logging.LogRecord) -> str:
        return " ".join(f"{key}={_value(fact)}" for key, fact in self.facts(record).items())

    def facts(self, record: logging.LogRecord) -> dict[str, Fact]:
        """All that a line says."""
        facts: dict[str, Fact] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            **self._always,
            **getattr(record, "facts", {}),
            "msg": record.getMessage(),
        }
        if record.exc_info:
            facts["trace"] = self.formatException(record.exc_info)
        return facts


class _JsonLine(_Line):
    """The same as one object of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        facts = self.facts(record).items()
        return json.dumps(
            {key: _shown(fact) if isinstance(fact, str) else fact for key, fact in facts}, ensure_ascii=False
        )


_LINES = {LogFormat.LOGFMT: _Line, LogFormat.JSON: _JsonLine}


def _shown(text: str) -> str:
    """A text without passwords and control characters."""
    return printable(without_passwords(text), keep="\n\t")  # json escapes these two


def _value(fact: Fact) -> str:
    text = _shown(f"{fact:.3f}".rstrip("0").rstrip(".") if isinstance(fact, float) else str(fact))
    plain = text and not any(char.isspace() or char in '"=' for char in text)
    return text if plain else json.dumps(text, ensure_ascii=False)
