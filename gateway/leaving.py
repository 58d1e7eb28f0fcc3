"""When the client of a request closes its connection."""

import asyncio
from collections.abc import Awaitable
from http import HTTPStatus
from typing import TypeVar

from fastapi import Request

from gateway.problems import HttpError

T = TypeVar("T")


async def client_left(request: Request) -> None:
    """Wait until the client of a request leaves. Its body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def while_there(request: Request, asking: Awaitable[T], timeout_s: float) -> T:
    """Return an answer. Cancels it and raises HttpError if its client goes away or the time is over first."""
    task, gone = asyncio.ensure_future(asking), asyncio.create_task(client_left(request))
    try:
        await asyncio.wait((task, gone), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise HttpError(HTTPStatus.BAD_REQUEST, "the client went away")
        what = f"there is no answer after {timeout_s:g} s"
        raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, what, "see GET /api/v1/fleet, or give it more time")
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)
