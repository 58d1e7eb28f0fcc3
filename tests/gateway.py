"""A gateway for tests: a real uvicorn on a port of the system, in a thread of its own."""

import asyncio
import threading
from types import TracebackType
from typing import Any, Self

from gateway.app import create_app
from gateway.server import Server, listen
from schemas.settings import Settings


class Gateway:
    """Serves the fleet of `settings` at `url` for a block; `options` are those of `create_app`."""

    def __init__(self, settings: Settings, **options: Any) -> None:
        self.app = create_app(settings, **options)
        self.listening = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        self._server = Server(self.app)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.serve([self.listening])))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()
        self._thread.join()
        self.listening.close()
