"""A connection of HTTP/1.1 with limits: a request that is too slow, too large or broken is answered by an error.

uvicorn's own protocol waits without limit for the rest of a request, and for a client that does not read.
"""

import asyncio
import json
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.problems import MEDIA_TYPE, Problem, body_of, code_of_status

READ_BYTES = 64 << 10  # at once from a client, which also bounds what its parser holds
WRITTEN_BYTES = 16 << 10  # more than these wait for nothing to be sent with them


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a client may take."""

    head_s: float = 20.0  # for the head of a request
    body_s: float = 30.0  # in two such spans, one after the other, in which the gateway reads, a body has ...
    body_bytes: int = 15_000  # ... so many bytes in one of them
    unread_s: float = 60.0  # until some of an answer is read
    linger_s: float = 10.0  # an answer that came before the end of its request is there for so long


class _Transport:
    """A transport whose `close` leaves the client time to read an answer while it still sends.

    What is written in one step of the event loop, as the head of an answer and its body, is sent by one system call.
    """

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._transport = transport
        self._close = close
        self._loop = asyncio.get_running_loop()
        self._written = list[bytes]()
        self._written_bytes = 0
        self.lingers = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not data:
            return
        if not self._written:
            self._loop.call_soon(self.flush)
        self._written.append(data)
        self._written_bytes += len(data)
        if self._written_bytes > WRITTEN_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._written:
            data = b"".join(self._written)
            self._written, self._written_bytes = [], 0
            if not self._transport.is_closing():  # else its client has gone, and asyncio would log each further write
                self._transport.write(data)

    def is_closing(self) -> bool:
        return self.lingers or self._transport.is_closing()

    def close(self) -> None:
        self._close()


class _Incoming(threading.local):
    """Where bytes lie between the system and a connection's parser, for all connections of a thread.

    asyncio allocates 256 KiB for each read otherwise: with many uploads the heap is full of holes, and never shrinks.
    """

    def __init__(self) -> None:
        self.view = memoryview(bytearray(READ_BYTES))


class Connection(H11Protocol, asyncio.BufferedProtocol):
    """What comes from one client, within `limits`."""

    limits: ClassVar[Limits] = Limits()
    _incoming: ClassVar[_Incoming] = _Incoming()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Give the place for the next bytes."""
        return self._incoming.view

    def buffer_updated(self, nbytes: int) -> None:
        """Take so many bytes from there; the parser copies them."""
        self.data_received(self._incoming.view[:nbytes])

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        self._real = transport
        self._reading: asyncio.Handle | None = None
        self._waits_for = ""
        self._stop_waiting()
        self._writing: asyncio.TimerHandle | None = None
        self._wrapped = _Transport(transport, self._close)
        super().connection_made(self._wrapped)  # type: ignore[arg-type]
        self._watch()

    def data_received(self, data: bytes | memoryview) -> None:
        """Take bytes; those behind an answer that ends the connection are dropped."""
        if self._wrapped.lingers:
            return
        self._came += len(data)
        super().data_received(data)  # type: ignore[arg-type]  # h11 takes both
        self._was_paused |= self.flow.read_paused
        self._watch()

    def eof_received(self) -> None:
        """Say what is wrong with a request that has no end: its sender may still read."""
        if not self._wrapped.lingers and self._next() in ("head", "body"):
            self._refuse(HTTPStatus.BAD_REQUEST, "the request ends before its end", "send all of it")

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._stop_waiting()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads more slowly than the gateway sends; one that does not read at all is cut off."""
        self._writing = self._writing or self.loop.call_later(self.limits.unread_s, self._real.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        """The client has read."""
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        super().resume_writing()

    def _should_upgrade(self) -> bool:
        """No: a request that may also be one of another protocol is one of HTTP/1.1. uvicorn logs lines of each."""
        return False

    def send_400_response(self, msg: str) -> None:
        """Refuse bytes that are no HTTP."""
        error = sys.exc_info()[1]
        if getattr(error, "error_status_hint", 400) == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            what, hint = "the request's line and headers are too long", "send shorter ones"
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, what, hint)
        else:
            reason = str(error or msg).partition(": bytearray")[0]  # h11 shows bytes as Python does
            self._refuse(HTTPStatus.BAD_REQUEST, f"this is no HTTP/1.1: {reason[:200]}", "")

    def on_response_complete(self) -> None:
        """An answer is sent. One that came before the end of the body leaves its sender a moment to end it."""
        super().on_response_complete()
        self._watch()

    def shutdown(self) -> None:
        """The server stops."""
        if self._wrapped.lingers:
            self._real.close()
        else:
            super().shutdown()

    def cut_off(self) -> None:
        """Close it at once, whatever is under way."""
        self._real.abort()

    def _watch(self) -> None:
        """Wait for what has to come next; the time for it goes on while parts of it come."""
        what = self._next()
        if what == self._waits_for or self._wrapped.is_closing():
            return
        self._stop_waiting()
        self._waits_for = what
        waits: dict[str, tuple[float, Callable[[], None]]] = {
            "start": (self.limits.head_s, self._real.close),
            "head": (self.limits.head_s, self._on_slow),
            "body": (self.limits.body_s, self._check_body_soon),
            "end": (self.limits.linger_s, self._real.close),
        }
        if what in waits:
            self._reading = self.loop.call_later(*waits[what])

    def _next(self) -> str:
        """What has to come next: the rest of a head or of a body, the end of a body that is answered, or nothing."""
        state = self.conn.their_state
        if state is h11.IDLE:
            begun = self.conn.trailing_data[0]
            return "head" if begun else "start" if self.cycle is None else ""
        if state is h11.SEND_BODY:
            return "end" if self.cycle.response_complete else "body"
        return ""

    def _stop_waiting(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        self._reading, self._waits_for = None, ""
        self._came, self._was_slow, self._was_paused = 0, False, False

    def _check_body_soon(self) -> None:
        """Check it once the app could take what came in this step of the event loop."""
        self._reading = self.loop.call_soon(self._check_body)

    def _check_body(self) -> None:
        """Refuse a body whose bytes come too slowly although the gateway reads them."""
        gateway_waits = self._was_paused or self.cycle.body or self.cycle.waiting_for_100_continue
        slow = self._came < self.limits.body_bytes and not gateway_waits
        if slow and self._was_slow:
            self._on_slow()
            return
        self._came, self._was_slow, self._was_paused = 0, slow, self.flow.read_paused
        self._reading = self.loop.call_later(self.limits.body_s, self._check_body_soon)

    def _on_slow(self) -> None:
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the request comes too slowly", "send it again, or by tus in parts")

    def _refuse(self, status: HTTPStatus, what: str, hint: str) -> None:
        """Answer, unless an answer was begun, and close."""
        code = code_of_status(status)
        problem = Problem(
            type=f"urn:rigflow:error:{code}", title=status.phrase, status=status, detail=what, code=code, hint=hint
        )
        body = json.dumps(body_of(problem)).encode()
        headers = {"content-type": MEDIA_TYPE, "content-length": str(len(body)), "connection": "close"}
        response = h11.Response(status_code=status, headers=list(headers.items()), reason=status.phrase)
        with suppress(h11.LocalProtocolError):
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self._wrapped.write(self.conn.send(event) or b"")
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._close()

    def _close(self) -> None:
        """Close, at once or when the client had time to read the answer: bytes that are not read would discard it."""
        if self._wrapped.is_closing():
            return
        self._wrapped.flush()
        state = self.conn.their_state
        if state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED) or (state is h11.IDLE and self._next() != "head"):
            self._real.close()
            return
        self._stop_waiting()
        self._wrapped.lingers = True
        if self._real.can_write_eof():
            with suppress(OSError):  # the client has gone
                self._real.write_eof()
        self._real.resume_reading()
        self._reading = self.loop.call_later(self.limits.linger_s, self._real.close)
