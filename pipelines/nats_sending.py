"""What is sent to the server: commands of one step of the event loop are written in one go after it.

nats-py wakes a task by a queue for each command, and copies a payload twice. As in `pipelines.nats_client`, names that
begin with an underscore may change in any release of nats-py.
"""

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeAlias

import nats.errors
from nats.aio.client import Client
from nats.aio.transport import TcpTransport

from schemas.wire import Pieces

Body: TypeAlias = bytes | Pieces
_LARGE_BYTES = 1 << 16  # a larger payload is worth the pieces that it is sent in
_NEWLINES = str.maketrans("\r\n", "  ")
_NAME = re.compile(r"[^\s:]+")  # of a header: any that `NatsClient` reads
_SPACES = re.compile(r"[ \t\r\n]")


class SendingClient(Client):
    """The client of nats-py, except for how it sends."""

    def __init__(self) -> None:
        super().__init__()
        self._writes = False  # what is pending is written after this step of the event loop

    def post(self, subject: str, payload: Body, reply: str = "", headers: Mapping[str, str] | None = None) -> None:
        """`publish` without a wait: what is posted in one step of the event loop is written in one go after it.

        Raises as `publish`.
        """
        if not subject or _SPACES.search(subject) or _SPACES.search(reply):
            raise nats.errors.BadSubjectError
        if self.is_closed:
            raise nats.errors.ConnectionClosedError
        if not self.is_connected:
            raise nats.errors.OutboundBufferLimitError
        if len(payload) > self.max_payload:
            raise nats.errors.MaxPayloadError
        self._append(subject, payload, reply, headers)

    async def _send_publish(
        self, subject: str, reply: str, payload: Body, payload_size: int, headers: dict[str, Any] | None
    ) -> None:
        self._append(subject, payload, reply, headers)

    def _append(self, subject: str, payload: Body, reply: str, headers: Mapping[str, str] | None) -> None:
        """A large payload follows its header as it is; other transports than TCP take one piece a command."""
        head, nbytes = _head(headers), len(payload)
        sizes = f"{len(head)} {len(head) + nbytes}" if head else f"{nbytes}"
        command = f"{'H' if head else ''}PUB {subject} {reply} {sizes}\r\n".encode() + head
        if nbytes < _LARGE_BYTES or not isinstance(self._transport, TcpTransport):
            self._pending.append(b"".join((command, bytes(payload), b"\r\n")))
        else:
            pieces: Any = payload.pieces if isinstance(payload, Pieces) else (payload,)
            self._pending += (command, *pieces, b"\r\n")
        self._pending_data_size += len(command) + nbytes + 2
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += nbytes
        self._write_soon()

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        """Have what is pending written; with `force_flush`, wait until it is."""
        if force_flush or not self.is_connected or self._flusher_task is None or self._flusher_task.done():
            return await super()._flush_pending(force_flush)
        self._write_soon()
        return None

    def _write_soon(self) -> None:
        """Write once, after this step of the event loop: nats-py would wake a task for it, by a queue."""
        if not self._writes:
            self._writes = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        self._writes = False
        if not self.is_connected or not self._pending:
            return
        if isinstance(self._transport, TcpTransport):
            pending, self._pending, self._pending_data_size = self._pending, [], 0
            with suppress(OSError, RuntimeError):  # the connection has just broken, which the task that reads it finds
                self._transport.writelines(pending)  # type: ignore[no-untyped-call]
        elif self._flush_queue is not None and self._flush_queue.empty():
            self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())


def _head(headers: Mapping[str, str] | None) -> bytes:
    """Headers as they are sent, none where there are none. Raises nats.errors.Error for a name that is none."""
    if not headers:
        return b""
    lines = ["NATS/1.0"]
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            raise nats.errors.BadHeaderError(name)
        lines.append(f"{name}: {value.strip().translate(_NEWLINES)}")
    return "\r\n".join((*lines, "", "")).encode()
