"""When the client of a request closes its connection."""

from fastapi import Request


async def client_left(request: Request) -> None:
    """Wait until the client of a request leaves. Its body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
