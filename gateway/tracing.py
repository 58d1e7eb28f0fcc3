"""Takes the header `traceparent` of a request: the jobs that the request makes have their place in that trace."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from pipelines.tracing import Context, incoming
from schemas.subjects import HEADER_TRACE

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Callable[..., Awaitable[Any]], Callable[..., Awaitable[None]]], Awaitable[None]]


class IncomingTraces:
    """Around the app, where the setting `otlp` is given."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(
        self, scope: Scope, receive: Callable[..., Awaitable[Any]], send: Callable[..., Awaitable[None]]
    ) -> None:
        """Answer a request."""
        given = next((value for name, value in scope.get("headers", ()) if name == HEADER_TRACE.encode()), b"")
        header = given.decode("latin-1")
        token = incoming.set(header if Context.parse(header) else "")
        try:
            await self._app(scope, receive, send)
        finally:
            incoming.reset(token)
