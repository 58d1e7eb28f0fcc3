"""An OpenTelemetry collector for tests: takes OTLP over HTTP on the loopback, and keeps the spans."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass
class Received:
    """What came: requests as they are, and their spans with the process that sent each."""

    url: str = ""
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    spans: list[tuple[str, Any]] = field(default_factory=list)
    refuses: bool = False

    def named(self, name: str) -> list[Any]:
        """The spans of a name."""
        return [span for _, span in list(self.spans) if span.name == name]

    def traces(self) -> dict[bytes, list[Any]]:
        """The spans by their trace."""
        found: dict[bytes, list[Any]] = {}
        for _, span in list(self.spans):
            found.setdefault(span.trace_id, []).append(span)
        return found


def facts_of(span: Any) -> dict[str, Any]:
    """The attributes of a span."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


@contextmanager
def receiver() -> Iterator[Received]:
    """A collector that runs for a block."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.requests.append((self.path, dict(self.headers)))
            if received.refuses:
                self.send_error(503)
                return
            request = ExportTraceServiceRequest.FromString(body)
            for resource in request.resource_spans:
                about = facts_of(resource.resource)
                for scope in resource.scope_spans:
                    received.spans += [(about["service.instance.id"], span) for span in scope.spans]
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    received.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
