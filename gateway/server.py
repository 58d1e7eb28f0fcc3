"""Runs the app by uvicorn until a signal."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from gateway.app import NAME, create_app
from pipelines.broker import Broker
from schemas.errors import ExitCode, UsageError
from schemas.settings import Settings

GRACE_S = 10  # requests that are under way at a signal may end
BACKLOG = 4096


def serve(settings: Settings, host: str, port: int, say: Callable[[str], None]) -> ExitCode:
    """Serve the fleet at `settings.nats` until SIGINT or SIGTERM. Raises UsageError, BrokerError."""
    with listen(host, port) as listening:
        return asyncio.run(_serve(settings, listening, say))


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises UsageError when the address cannot be used."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        what = f"cannot listen on {host}:{port}: {error.strerror}"
        raise UsageError(what, "choose another --port or --host") from error


async def _serve(settings: Settings, listening: socket.socket, say: Callable[[str], None]) -> ExitCode:
    host, port = listening.getsockname()[:2]
    async with Broker.connected(settings, NAME) as broker:
        say(f"rigflow serves http://{f'[{host}]' if ':' in host else host}:{port}")
        by = await run(create_app(settings, broker=broker), listening)
    return ExitCode.INTERRUPTED if by is signal.SIGINT else ExitCode.OK


async def run(app: FastAPI, listening: socket.socket) -> signal.Signals | None:
    """Serve an app on a socket until SIGINT or SIGTERM; that signal. At a second one requests under way are cut off."""
    server, by = Server(app), list[signal.Signals]()

    def on_signal(number: signal.Signals) -> None:
        by.append(number)
        server.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    await server.serve([listening])
    return by[0] if by else None


class Server(uvicorn.Server):
    """Serves an app until `stop`; without uvicorn's own handlers of signals, which end the process by the signal."""

    def __init__(self, app: FastAPI) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=GRACE_S,
            server_header=False,
        )
        super().__init__(config)
        self._app = app
        self._stopping = False

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them as they are."""
        yield

    def stop(self) -> None:
        """Let requests under way end within `GRACE_S`, streams of events at once; called again, cut all off."""
        self.force_exit = self._stopping
        self._stopping = self.should_exit = True
        self._app.state.stop()
