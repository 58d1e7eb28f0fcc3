"""What comes from the server: a large payload is kept in the pieces that came, and joined once when it is complete.

nats-py copies what comes four times: into a buffer of asyncio, out of it, into the parser's, and out of that. And it
wakes the reading task for each piece. Here a large payload is copied once, and the task is woken when it is there. As
in `pipelines.nats_client`, names that begin with an underscore may change in any release of nats-py.
"""

import asyncio
import re
from collections import deque
from typing import Any

import nats.protocol.parser
from nats.protocol.parser import AWAITING_CONTROL_LINE, AWAITING_MSG_PAYLOAD

# nats-py takes form feeds and vertical tabs for the end of a subject; the server does not. The server sends two spaces
# where a reply subject is empty, as in its answers to a restore
SUBJECT = rb"([^ \t\r\n]+) ([^ \t\r\n]+) (([^ \t\r\n]+) )? ?"
nats.protocol.parser.MSG_RE = re.compile(rb"\AMSG " + SUBJECT + rb"(\d+)\r\n")
nats.protocol.parser.HMSG_RE = re.compile(rb"\AHMSG " + SUBJECT + rb"(\d+) (\d+)\r\n")

LARGE_BYTES = 1 << 16  # a payload of which so many bytes are missing is worth its pieces
_CRLF_BYTES = 2


class _Received(bytearray):
    """Bytes that came; a slice is one copy of them, as bytes."""

    def __getitem__(self, key: Any) -> Any:
        return bytes(memoryview(self)[key]) if isinstance(key, slice) else super().__getitem__(key)


class Parser(nats.protocol.parser.Parser):
    """The parser of nats-py, except for large payloads. `missing`: how many bytes of one have not come yet."""

    def reset(self) -> None:
        """Forget what came before."""
        super().reset()
        self.buf = _Received()
        self.missing = 0
        self._pieces: list[bytes] = []

    async def parse(self, data: bytes = b"") -> None:
        """Take what came, and hand over each message that is complete."""
        if self.missing:
            self._pieces.append(data[: self.missing])  # no copy where the payload goes on
            data = data[self.missing :] if len(data) > self.missing else b""
            self.missing -= len(self._pieces[-1])
            if self.missing:
                return
            buffer = self.buf
            await self._hand_over()
            if self.buf is not buffer:  # `reset` meanwhile: the rest is of a connection that is over
                return
        await super().parse(data)
        if self.state == AWAITING_MSG_PAYLOAD and self.needed + _CRLF_BYTES - len(self.buf) >= LARGE_BYTES:
            self.missing = self.needed + _CRLF_BYTES - len(self.buf)
            self._pieces = [bytes(self.buf)]
            self.buf.clear()

    async def _hand_over(self) -> None:
        pieces, self._pieces = self._pieces, []
        head = min(self.header_needed, self.needed)
        while len(pieces[0]) < head:
            pieces[:2] = [pieces[0] + pieces[1]]
        while len(pieces[-1]) < _CRLF_BYTES:
            pieces[-2:] = [pieces[-2] + pieces[-1]]
        headers, views = pieces[0][:head], [memoryview(piece) for piece in pieces]
        views[-1] = views[-1][:-_CRLF_BYTES]
        views[0] = views[0][head:]
        payload = b"".join(views)
        message, self.header_needed, self.state = self.msg_arg, 0, AWAITING_CONTROL_LINE
        await self.nc._process_msg(message["sid"], message["subject"], message["reply"], payload, headers or None)


class Reader(asyncio.StreamReader):
    """Gives pieces as they came, once those that the parser waits for are there; lines before the first `read`."""

    def __init__(self, parser: Parser, limit: int) -> None:
        super().__init__(limit)
        self._parser, self._most_bytes = parser, 2 * limit
        self._pieces: deque[bytes] = deque()
        self._nbytes = 0
        self._came = asyncio.Event()
        self._connection: Any = None
        self._reads = self._full = False
        self.waits = False  # all that came was read

    def set_transport(self, transport: asyncio.BaseTransport) -> None:
        """Read this connection."""
        super().set_transport(transport)
        self._connection = transport

    def feed_data(self, data: Any) -> None:
        """Take what came."""
        if not self._reads:
            super().feed_data(data)
            return
        self.waits = False
        self._pieces.append(data)
        self._nbytes += len(data)
        if self._nbytes >= self._parser.missing:
            self._came.set()
        if not self._full and self._nbytes > max(self._most_bytes, self._parser.missing):
            self._full = True
            self._connection.pause_reading()

    def feed_eof(self) -> None:
        """The connection ended."""
        super().feed_eof()
        self._came.set()

    def set_exception(self, exc: Exception) -> None:
        """The connection broke."""
        super().set_exception(exc)
        self._came.set()

    def at_eof(self) -> bool:
        """Whether the connection ended, and all that came was read."""
        return not self._pieces and super().at_eof()

    async def read(self, n: int = -1) -> bytes:
        """The next piece; nothing after the end of the connection. Raises what broke it."""
        if not self._reads:
            first = await super().read(self._most_bytes << 1)  # what came with the last line, or else the next piece
            self._reads = True
            return first
        if (broken := self.exception()) is not None:
            raise broken
        if not super().at_eof() and self._nbytes < max(1, self._parser.missing):  # after the end, no more will come
            self._go_on()
            self._came.clear()
            self.waits = not self._pieces
            await self._came.wait()
        if not self._pieces:
            return b""
        piece = self._pieces.popleft()
        self._nbytes -= len(piece)
        if self._nbytes <= self._most_bytes // 2:
            self._go_on()
        return piece

    def _go_on(self) -> None:
        if self._full:
            self._full = False
            self._connection.resume_reading()
