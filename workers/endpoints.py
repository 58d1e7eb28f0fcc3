"""A small HTTP server: metrics for Prometheus, health checks for an orchestrator."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from schemas.errors import UsageError, listen_error

REQUEST_S = 5.0
REQUEST_BYTES = 8192
CONNECTIONS = 32  # at a time; a further one closes the oldest, so a flood does not use up the file descriptors
BACKLOG = 16


@dataclass(frozen=True, slots=True)
class Response:
    """A response."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "text/plain; charset=utf-8"


Pages = Mapping[str, Callable[[], Awaitable[Response]]]  # by path


class Endpoints:
    """Serves `pages` at `address`, HOST:PORT: `open`, then `close`. Port 0 is any that is free.

    It answers one request a connection, within `REQUEST_S` seconds, on at most `CONNECTIONS` connections at a time.
    """

    def __init__(self, address: str, pages: Pages) -> None:
        self._address = address
        self._pages = pages
        self._server: asyncio.Server | None = None
        self._answering: dict[asyncio.Task[None], asyncio.StreamWriter] = {}  # the oldest first

    async def open(self) -> str:
        """Listen; returns the URL. Raises UsageError when the address cannot be used."""
        host, _, port = self._address.rpartition(":")
        host = host.strip("[]")
        if not port.isdigit() or not host:
            raise UsageError(
                f"metrics address {self._address}: not HOST:PORT",
                "give an address and a port, as 127.0.0.1:0 for a free one",
            )
        try:
            self._server = await asyncio.start_server(
                self._accept, host, int(port), limit=REQUEST_BYTES, backlog=BACKLOG
            )
        except (OSError, OverflowError) as error:
            reason = listen_error(error) if isinstance(error, OSError) else str(error)
            hint = "choose another with --metrics; 127.0.0.1:0 takes a free port"
            raise UsageError(f"metrics address {self._address}: {reason}", hint) from error
        name = f"[{host}]" if ":" in host else host
        return f"http://{name}:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Stop listening, and end all connections."""
        if self._server is not None:
            self._server.close()
        answering = list(self._answering)
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._answering) >= CONNECTIONS:
            oldest = next(iter(self._answering))
            self._answering.pop(oldest).transport.abort()
            oldest.cancel()
        task = asyncio.create_task(self._answer(reader, writer))
        self._answering[task] = writer
        task.add_done_callback(lambda done: self._answering.pop(done, None))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
                page = await self._page(head.split(b"\r\n", 1)[0].decode("latin-1").split(" "))
                fields = (
                    f"HTTP/1.1 {page.status} {page.status.phrase}",
                    f"Content-Type: {page.content_type}",
                    f"Content-Length: {len(page.body)}",
                    "Connection: close",
                )
                writer.write(
                    "\r\n".join(fields).encode() + b"\r\n\r\n" + (b"" if head.startswith(b"HEAD") else page.body)
                )
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            pass  # a request that is not complete in time gets no answer
        finally:
            with contextlib.suppress(OSError):
                writer.transport.abort()

    async def _page(self, request: list[str]) -> Response:
        if len(request) != 3 or request[0] not in ("GET", "HEAD"):
            return Response(b"only GET\n", HTTPStatus.METHOD_NOT_ALLOWED)
        page = self._pages.get(request[1].partition("?")[0])
        if page is None:
            return Response(f"there are {', '.join(self._pages)}\n".encode(), HTTPStatus.NOT_FOUND)
        return await page()
