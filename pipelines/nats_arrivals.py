"""Takes messages of a connection by TCP as they arrive, without the task that reads: a large payload in its own memory.

Only messages of `NatsClient.subscribe_now`; all else goes to the reader, and from there to the parser. As in
`pipelines.nats_client`, names that begin with an underscore may change in any release of nats-py.
"""

import asyncio
import ctypes
import re
from typing import Any, Protocol
from urllib.parse import ParseResult

from nats.aio.transport import TcpTransport
from nats.protocol.parser import AWAITING_CONTROL_LINE

from pipelines.nats_parser import LARGE_BYTES, SUBJECT, Parser, Reader

_MSG = re.compile(rb"MSG " + SUBJECT + rb"(\d+)\r\n")
_HMSG = re.compile(rb"HMSG " + SUBJECT + rb"(\d+) (\d+)\r\n")
_CRLF_BYTES = 2
_FIRST_BYTES = 1 << 14  # read at first: of a large payload they are copied twice
_WRITABLE = 0x200  # PyBUF_WRITE

_new_bytes: Any = ctypes.pythonapi.PyBytes_FromStringAndSize
_new_bytes.argtypes, _new_bytes.restype = (ctypes.c_void_p, ctypes.c_ssize_t), ctypes.py_object
_address_of: Any = ctypes.pythonapi.PyBytes_AsString
_address_of.argtypes, _address_of.restype = (ctypes.py_object,), ctypes.c_void_p
_view_of: Any = ctypes.pythonapi.PyMemoryView_FromMemory
_view_of.argtypes, _view_of.restype = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int), ctypes.py_object


class Delivers(Protocol):
    """What this needs of a client."""

    def takes_now(self, sid: int) -> bool:
        """Whether messages of a subscription are taken as they arrive."""
        ...

    def deliver(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        """Take one."""
        ...


class Arrivals:
    """What arrives: `take` the bytes of a read; where `room` is not empty, the next ones belong there: `filled`."""

    def __init__(self, client: Delivers) -> None:
        self._client = client
        self.room = memoryview(b"")  # of the payload that is being read
        self._payload = b""
        self._message = 0, b"", b"", b""
        self._skip = 0  # bytes that end the payload before

    def take(self, data: bytes) -> bytes:
        """Hand over the messages at the beginning of `data`; the rest is for the parser."""
        at, self._skip = min(self._skip, len(data)), max(0, self._skip - len(data))
        while at < len(data) and (found := _MSG.match(data, at) or _HMSG.match(data, at)):
            subject, sid, _, reply, *sizes = found.groups()
            if not sid.isdigit() or not self._client.takes_now(int(sid)):
                break
            body = found.end() + (int(sizes[0]) if len(sizes) > 1 else 0)
            end = found.end() + int(sizes[-1])
            if body > min(end, len(data)):
                break
            message = int(sid), subject, reply or b"", data[found.end() : body]
            if end + _CRLF_BYTES <= len(data):
                at = end + _CRLF_BYTES
                sid_, subject, reply, headers = message
                self._client.deliver(sid_, subject, reply, data[body:end], headers)
            elif end - len(data) >= LARGE_BYTES:
                self._begin(message, data[body:], end - body)
                return b""
            else:
                break
        return data[at:]

    def _begin(self, message: tuple[int, bytes, bytes, bytes], first: bytes, nbytes: int) -> None:
        """Begin a payload of so many bytes, which the next reads fill in place; it is handed over when complete."""
        self._message, self._payload = message, _new_bytes(None, nbytes)
        room = _view_of(_address_of(self._payload), nbytes, _WRITABLE)
        room[: len(first)] = first
        self.room = room[len(first) :]

    def filled(self, nbytes: int) -> None:
        """So many bytes of `room` were read."""
        self.room = self.room[nbytes:]
        if self.room:
            return
        (sid, subject, reply, headers), payload = self._message, self._payload
        self.room, self._payload, self._skip = memoryview(b""), b"", _CRLF_BYTES
        self._client.deliver(sid, subject, reply, payload, headers)


class ArrivalProtocol(asyncio.BufferedProtocol):
    """The protocol of a connection: takes what may be taken at once, and gives `inner`, the reader's, all else."""

    def __init__(self, inner: asyncio.StreamReaderProtocol, reader: Reader, parser: Parser, most_bytes: int) -> None:
        self._inner, self._reader, self._parser = inner, reader, parser
        self._arrivals = Arrivals(parser.nc)
        self._read = memoryview(bytearray(most_bytes))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._inner.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """It is closed."""
        self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        """The server takes nothing more now."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """The server takes more."""
        self._inner.resume_writing()

    def eof_received(self) -> bool | None:
        """The server sends nothing more."""
        return self._inner.eof_received()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._arrivals.room or (self._read[:_FIRST_BYTES] if self._idle else self._read)

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes were read."""
        if self._arrivals.room:
            self._arrivals.filled(nbytes)
            return
        data = bytes(self._read[:nbytes])
        if self._idle:
            data = self._arrivals.take(data)
        if data:
            self._inner.data_received(data)

    @property
    def _idle(self) -> bool:
        """Whether all that came before is handed over."""
        parser = self._parser
        return self._reader.waits and not parser.buf and not parser.missing and parser.state == AWAITING_CONTROL_LINE


class ArrivalTransport(TcpTransport):
    """A connection by TCP that is read so; after a change to TLS nats-py's own reader is used."""

    def __init__(self, parser: Parser) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._parser = parser

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        """Open it. Raises OSError, TimeoutError."""
        loop, reader = asyncio.get_running_loop(), Reader(self._parser, buffer_size)
        inner = asyncio.StreamReaderProtocol(reader, loop=loop)
        protocol = ArrivalProtocol(inner, reader, self._parser, buffer_size)
        opening = loop.create_connection(lambda: protocol, uri.hostname or "", uri.port or 0)
        transport, _ = await asyncio.wait_for(opening, connect_timeout)
        writer = asyncio.StreamWriter(transport, inner, reader, loop)
        self._bare_io_reader = self._io_reader = reader
        self._bare_io_writer = self._io_writer = writer

    def write(self, payload: bytes) -> None:
        """Write. Raises ConnectionResetError where the connection is over.

        uvloop raises RuntimeError there, which ends the task of nats-py that reconnects: it would never try again.
        """
        self._check_open()
        super().write(payload)  # type: ignore[no-untyped-call]

    def writelines(self, payload: list[bytes]) -> None:
        """Write several pieces. Raises as `write`."""
        self._check_open()
        super().writelines(payload)  # type: ignore[no-untyped-call]

    def _check_open(self) -> None:
        if self._io_writer is not None and self._io_writer.is_closing():
            raise ConnectionResetError("the connection is closed")
