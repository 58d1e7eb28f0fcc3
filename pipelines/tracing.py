"""Traces of jobs as OpenTelemetry has them: the place of each span, and the header that carries it (W3C Trace Context).

A job's trace and its first span have ids that are derived from the job. A message that is delivered again, and a job
that is collected twice, therefore add spans to the same trace, and never a second beginning of one. A publisher may
give the job a place in a trace of its own: the header `traceparent` of its media.
"""

import hashlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol, Self

from schemas.jobs import JobRef, Manifest
from schemas.subjects import HEADER_TRACE

Fact = str | int | float | bool
_HEADER = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII)
_NONE = {bytes(16), bytes(8)}  # ids that the standard forbids
incoming: ContextVar[str] = ContextVar("traceparent", default="")  # of the request that this process answers


@dataclass(frozen=True, slots=True)
class Context:
    """A span's place: its trace, 16 bytes, and its own id, 8 bytes. Spans that are not `sampled` are not recorded."""

    trace: bytes
    span: bytes
    sampled: bool = True

    @property
    def header(self) -> str:
        """The value of `traceparent`."""
        return f"00-{self.trace.hex()}-{self.span.hex()}-{int(self.sampled):02x}"

    @classmethod
    def parse(cls, header: str) -> Self | None:
        """The place in a value of `traceparent`; None when it is none."""
        if (match := _HEADER.fullmatch(header)) is None:
            return None
        trace, span = bytes.fromhex(match[1]), bytes.fromhex(match[2])
        return None if {trace, span} & _NONE else cls(trace, span, bool(int(match[3], 16) & 1))

    def child(self, *parts: object) -> "Context":
        """The place of another span of the trace, whose id is derived from `parts`."""
        return Context(self.trace, _derived(*parts)[:8], self.sampled)


@dataclass(frozen=True, slots=True)
class Span:
    """What took from `start_ns` to `end_ns`, nanoseconds since 1970. `parent` is the id of the span that caused it.

    `links` are spans that it shares its work with. `error` is the reason when it failed.
    """

    name: str
    context: Context
    parent: bytes
    start_ns: int
    end_ns: int
    facts: Mapping[str, Fact] = field(default_factory=dict)
    links: Sequence[Context] = ()
    error: str = ""


class Tracer(Protocol):
    """Takes spans; never waits, and never raises."""

    def record(self, span: Span) -> None:
        """Take a span that has ended."""
        ...


def _derived(*parts: object) -> bytes:
    return hashlib.sha256("/".join(map(str, parts)).encode(errors="surrogateescape")).digest()


def context_of_job(job: JobRef, given: str = "") -> Context:
    """The place of a job's first span; `given`: the `traceparent` that it came with."""
    above, span = Context.parse(given), _derived(job.identity, "job")[:8]
    return Context(_derived(job.identity)[:16], span) if above is None else Context(above.trace, span, above.sampled)


def place_of(manifest: Manifest) -> dict[str, str]:
    """The header of a message about a job, where workers cannot derive the job's place themselves."""
    return {HEADER_TRACE: context_of_job(manifest.job, manifest.trace).header} if manifest.trace else {}


def facts_of(job: JobRef) -> dict[str, Fact]:
    """What each span of a job says."""
    return {"rigflow.job": job.id, "rigflow.pipeline": job.pipeline, "rigflow.tenant": job.tenant}


def trace_job(tracer: Tracer | None, ended: Manifest) -> None:
    """Record the first span of a job, from its arrival to its end."""
    if tracer is None:
        return
    above, job = Context.parse(ended.trace), ended.job
    facts = facts_of(job) | {
        "rigflow.state": ended.state.value,
        "rigflow.revision": job.revision,
        "rigflow.frames": ended.frames,
        "rigflow.failures": ended.failures,
    }
    span = Span(
        f"job {job.pipeline}",
        context_of_job(job, ended.trace),
        b"" if above is None else above.span,
        int(ended.created_s * 1e9),
        int(ended.ended_s * 1e9),
        facts,
        error=ended.reasons[0] if ended.failures and ended.reasons else "",
    )
    tracer.record(span)


@contextmanager
def traced(tracer: Tracer | None, name: str, manifest: Manifest, attempt: object = "") -> Iterator[dict[str, str]]:
    """A span of a job around a block; gives the headers of the messages that the block sends."""
    if tracer is None:
        yield {HEADER_TRACE: manifest.trace} if manifest.trace else {}
        return
    job = context_of_job(manifest.job, manifest.trace)
    context, start_ns, error = job.child(manifest.job.identity, name, attempt), time.time_ns(), ""
    try:
        yield {HEADER_TRACE: context.header}
    except Exception as failure:
        error = str(failure) or type(failure).__name__
        raise
    finally:
        tracer.record(Span(name, context, job.span, start_ns, time.time_ns(), facts_of(manifest.job), error=error))
