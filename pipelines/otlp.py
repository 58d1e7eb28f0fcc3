"""Sends spans to an OpenTelemetry collector: OTLP over HTTP, protobuf, in a thread of its own.

Work never waits for it. What the collector does not take is dropped, counted and logged.
"""

import base64
import logging
import platform
import threading
import time
import urllib.request
from collections import deque
from importlib.metadata import version
from typing import Any
from urllib.parse import unquote, urlsplit

from engines.extras import imported
from pipelines.tracing import Fact, Span
from schemas.errors import UsageError
from schemas.settings import Settings
from schemas.text import without_passwords

WAITING = 8192  # spans; further ones are dropped
AT_ONCE = 512
PAUSE_S = 1.0  # between two requests
ANSWER_S = 5.0
CLOSE_S = 2.0  # longest wait for the last spans at the end of a process
REPORT_S = 60.0  # between two lines of the log
_OK, _ERROR = 1, 2  # of a span's status
_KINDS = {"publish": 4, "split": 5}  # a producer's and a consumer's; the others are internal
log = logging.getLogger("rigflow")


def open_exporter(settings: Settings, name: str) -> "OtlpExporter | None":
    """The exporter of the setting `otlp`; None where it is empty. Raises UsageError, PluginMissing."""
    if not settings.otlp:
        return None
    url = urlsplit(settings.otlp)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise UsageError(f"setting otlp: {settings.otlp} is no URL of a collector", "it is http://host:4318")
    imported("opentelemetry.proto.collector.trace.v1.trace_service_pb2", "the setting otlp", "otel")
    return OtlpExporter(settings.otlp, name)


class OtlpExporter:
    """Takes spans with `record`; `close` sends the last ones. Its thread begins with the first span."""

    def __init__(self, url: str, name: str) -> None:
        split = urlsplit(url)
        path = split.path.rstrip("/")
        path = path if path.endswith("/v1/traces") else f"{path}/v1/traces"
        self._url = split._replace(netloc=split.netloc.rpartition("@")[2], path=path, query="", fragment="").geturl()
        self._shown = without_passwords(url)
        self._headers = {"Content-Type": "application/x-protobuf"}
        if split.username is not None:
            login = f"{unquote(split.username)}:{unquote(split.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
        self._name = name
        self._waiting: deque[Span] = deque()
        self._dropped = 0
        self._reported_s = -REPORT_S
        self._wake, self._closed = threading.Event(), False
        self._thread: threading.Thread | None = None

    def record(self, span: Span) -> None:
        """Take a span that has ended; never waits."""
        if not span.context.sampled or self._closed:
            return
        if len(self._waiting) >= WAITING:
            self._dropped += 1
            return
        self._waiting.append(span)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="otlp", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Send what waits, for `CLOSE_S` at most."""
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while not (self._closed and not self._waiting):
            if len(self._waiting) < AT_ONCE:
                self._wake.wait(PAUSE_S)
            spans = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            if spans:
                self._send(spans)

    def _send(self, spans: list[Span]) -> None:
        body = encoded(spans, self._name)
        try:
            request = urllib.request.Request(self._url, body, self._headers, method="POST")
            with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
                answer.read()
        except (OSError, ValueError) as error:  # of urllib too
            self._dropped += len(spans)
            self._report(error)

    def _report(self, error: Exception) -> None:
        if time.monotonic() - self._reported_s >= REPORT_S:
            self._reported_s = time.monotonic()
            log.warning("%d spans were not taken by %s: %s", self._dropped, self._shown, error)
            self._dropped = 0


def encoded(spans: list[Span], name: str) -> bytes:
    """The body of a request with these spans, of the process with this name."""
    service: Any = imported("opentelemetry.proto.collector.trace.v1.trace_service_pb2", "the setting otlp", "otel")
    request = service.ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    about = {"service.name": "rigflow", "service.instance.id": name, "service.version": version("rigflow")}
    _describe(resource.resource.attributes, about | {"host.name": platform.node()})
    scope = resource.scope_spans.add()
    scope.scope.name = "rigflow"
    for span in spans:
        made = scope.spans.add(
            trace_id=span.context.trace,
            span_id=span.context.span,
            parent_span_id=span.parent,
            name=span.name,
            kind=_KINDS.get(span.name, 1),
            start_time_unix_nano=span.start_ns,
            end_time_unix_nano=max(span.start_ns, span.end_ns),
        )
        _describe(made.attributes, span.facts)
        for link in span.links:
            made.links.add(trace_id=link.trace, span_id=link.span)
        made.status.code = _ERROR if span.error else _OK
        made.status.message = span.error
    return bytes(request.SerializeToString())


def _describe(attributes: Any, facts: "dict[str, Fact] | Any") -> None:
    for key, fact in facts.items():
        value = attributes.add(key=key).value
        if isinstance(fact, bool):
            value.bool_value = fact
        elif isinstance(fact, int):
            value.int_value = fact
        elif isinstance(fact, float):
            value.double_value = fact
        else:
            value.string_value = fact
