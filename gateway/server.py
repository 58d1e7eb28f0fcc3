"""Runs the app by uvicorn until a signal."""

import asyncio
import json
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI

from gateway.app import NAME, create_app
from gateway.callers import anyone
from gateway.connection import Connection
from gateway.keys import KeyHolders
from gateway.problems import MEDIA_TYPE, Problem, body_of, too_late
from pipelines.api_keys import all_keys
from pipelines.broker import Broker
from schemas.errors import ExitCode, UsageError, listen_error
from schemas.settings import Settings

GRACE_S = 10  # requests that are under way at a signal may end
IDLE_S = 65  # until a connection without a request is closed: clients close theirs before, httpx after 5 s
BACKLOG = 4096


@dataclass(frozen=True, slots=True)
class Door:
    """Where a gateway listens, and for whom: with `keys` for API keys alone. `tls` are a certificate and its key.

    Pages of the `origins` may use it from a browser. Without keys, `any_host` lets requests name it as they like.
    """

    host: str
    port: int
    keys: bool
    tls: tuple[Path, Path] | None = None
    origins: tuple[str, ...] = ()
    any_host: bool = False


def serve(settings: Settings, door: Door, say: Callable[[str], None]) -> ExitCode:
    """Serve the fleet at `settings.nats` until SIGINT or SIGTERM. Raises UsageError, BrokerError."""
    with listen(door.host, door.port) as listening:
        return asyncio.run(_serve(settings, door, listening, say))


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises UsageError when the address cannot be used."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        what = f"cannot listen on {host}:{port}: {listen_error(error)}"
        raise UsageError(what, "choose another --port or --host") from error
    # accepted sockets inherit it; asyncio sets it only where the protocol has a number, and without it an answer in two
    # pieces waits 40 ms for the client's delayed acknowledgement
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


async def _serve(settings: Settings, door: Door, listening: socket.socket, say: Callable[[str], None]) -> ExitCode:
    host, port = listening.getsockname()[:2]
    async with Broker.connected(settings, NAME) as broker:
        if door.keys and not any(key.valid_at(broker.now_s()) for key in await all_keys(broker)):
            raise UsageError(
                "the fleet has no API key, so no request could be answered", "make one: `rigflow keys api add NAME`"
            )
        scheme = "http" if door.tls is None else "https"
        say(f"rigflow serves {scheme}://{f'[{host}]' if ':' in host else host}:{port}")
        identify = KeyHolders() if door.keys else anyone(settings.tenant, door.any_host)
        app = create_app(settings, identify, broker=broker, origins=door.origins)
        by = await run(app, listening, door.tls)
    return ExitCode.INTERRUPTED if by is signal.SIGINT else ExitCode.OK


async def run(app: FastAPI, listening: socket.socket, tls: tuple[Path, Path] | None = None) -> signal.Signals | None:
    """Serve an app on a socket until SIGINT or SIGTERM; that signal. At a second one requests under way are cut off."""
    server, by = Server(app, tls), list[signal.Signals]()

    def on_signal(number: signal.Signals) -> None:
        by.append(number)
        server.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    await server.serve([listening])
    return by[0] if by else None


class Unbroken:
    """An app whose answers are dropped once its client broke the protocol within a body: uvicorn has answered that.

    A request that waits when the gateway stops answers 503. HEAD is answered by the head of the answer to GET.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        begun, head_alone = False, self._is_head_of_get(scope)
        if head_alone:
            scope = {**scope, "method": "GET"}
        names = {name for name, _ in scope.get("headers", ())}
        if {b"transfer-encoding", b"content-length"} <= names:
            await self._refuse_two_lengths(send)  # a proxy may take the other one, and another request for the rest
            return

        async def send_if_possible(message: Any) -> None:
            nonlocal begun
            if head_alone and begun:
                return
            begun = True
            with suppress(h11.LocalProtocolError):
                await send(message)
                if head_alone:
                    await send({"type": "http.response.body"})

        try:
            await self._app(scope, receive, send_if_possible)
        except RuntimeError as error:
            if too_late(error) is None:  # else it is logged
                raise
        except asyncio.CancelledError:
            if begun or scope["type"] != "http":
                raise
            headers = [(b"retry-after", b"5"), (b"content-length", b"0")]  # the gateway stops, and this was not begun
            await send_if_possible({"type": "http.response.start", "status": 503, "headers": headers})
            await send_if_possible({"type": "http.response.body"})

    def _is_head_of_get(self, scope: Any) -> bool:
        """Whether a request is HEAD of a path that has GET, and no HEAD of its own."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            return False
        methods = self._app.state.methods_of(scope["path"])
        return "GET" in methods and "HEAD" not in methods

    async def _refuse_two_lengths(self, send: Any) -> None:
        problem = Problem(
            title="Bad Request", status=400, detail="there are two lengths of the body", code="bad-request"
        )
        body = json.dumps(body_of(problem)).encode()
        headers = {"content-type": MEDIA_TYPE, "content-length": str(len(body)), "connection": "close"}
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        with suppress(h11.LocalProtocolError):
            await send({"type": "http.response.start", "status": 400, "headers": raw})
            await send({"type": "http.response.body", "body": body})


class Server(uvicorn.Server):
    """Serves an app until `stop`; without uvicorn's own handlers of signals, which end the process by the signal."""

    def __init__(self, app: FastAPI, tls: tuple[Path, Path] | None = None) -> None:
        certificate, key = tls or (None, None)
        config = uvicorn.Config(
            Unbroken(app),
            http=Connection,
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="on",
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=GRACE_S,
            server_header=False,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        super().__init__(config)
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # else there is a line for each broken request
        self._app = app
        self._stopping = False

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them as they are."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what is under way, as `stop` says; uvicorn leaves the connections open that it does not wait for."""
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.cut_off()  # type: ignore[union-attr]
        await asyncio.sleep(0)

    def stop(self) -> None:
        """Let requests under way end within `GRACE_S`, streams of events at once; called again, cut all off."""
        self.force_exit = self._stopping
        self._stopping = self.should_exit = True
        self._app.state.stop()
