"""Callers by their API keys: in a header, or in the session that a login with a key began.

Every gateway follows the keys at the broker, so a key that is revoked is refused within moments, and a request costs no
question to the broker.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

from fastapi import Request

from gateway.callers import Caller
from gateway.problems import HttpError
from gateway.sessions import check_csrf, check_tenant, key_of_session
from pipelines.api_keys import ApiKeys
from pipelines.broker import Broker
from schemas.api_keys import ApiKey

BURST_S = 2.0  # a key may use the requests of so many seconds at once
_HINT = "send it as `Authorization: Bearer KEY`; the operator of the gateway makes them"


class KeyHolders:
    """Tells callers by their keys, inside `following`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rates: dict[str, _Rate] = {}
        self.keys: ApiKeys | None = None

    @asynccontextmanager
    async def following(self, broker: Broker) -> AsyncIterator[None]:
        """Keep to the keys at the broker. They are read when it begins: no valid key is refused by a gateway's start.

        Raises what reading them raises.
        """
        self.keys = ApiKeys(broker)
        task, read = asyncio.create_task(self.keys.follow()), asyncio.create_task(self.keys.read.wait())
        try:
            await asyncio.wait((task, read), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
            yield
        finally:
            task.cancel()
            read.cancel()

    async def __call__(self, request: Request) -> Caller:
        """Give the caller of a request.

        Raises HttpError without a valid key, without a tenant of that key, or when it sends too many requests.
        """
        key, keys = self._key_of(request), self.keys
        if keys is not None:
            check_tenant(keys, key)
        self._count(key)

        def is_valid() -> bool:
            return keys is not None and keys.get(key.id) is not None and not keys.lacks_tenant(key)

        return Caller(key.tenant, frozenset(key.roles), key.name, key.upload_bytes, is_valid)

    def _key_of(self, request: Request) -> ApiKey:
        text = _given_key(request)
        if not text:
            key = key_of_session(request, self.keys)
            if key is None:
                raise _unauthorized("this needs an API key")
            check_csrf(request, key)
            return key
        key = self.keys.check(text) if self.keys is not None else None
        if key is None:
            raise _unauthorized("the API key is not known, expired or revoked")
        return key

    def _count(self, key: ApiKey) -> None:
        """Raise HttpError when the key has used its requests."""
        if not key.rate_per_s:
            return
        rate = self._rates.setdefault(key.id, _Rate(self._clock()))
        wait_s = rate.take(key.rate_per_s, self._clock())
        if wait_s > 0:
            what = f"key {key.name} may send {key.rate_per_s:g} requests a second"
            headers = {"Retry-After": str(math.ceil(wait_s))}
            raise HttpError(HTTPStatus.TOO_MANY_REQUESTS, what, "wait, and send it again", headers)


@dataclass(slots=True)
class _Rate:
    """A bucket of requests: `used` of those of `BURST_S` seconds, as of `at_s`."""

    at_s: float
    used: float = 0.0

    def take(self, rate_per_s: float, now_s: float) -> float:
        """Use one request; the seconds to wait if there is none, which is then not used."""
        self.used = max(0.0, self.used - (now_s - self.at_s) * rate_per_s)
        self.at_s = now_s
        most = max(1.0, rate_per_s * BURST_S)
        if self.used + 1 > most:
            return (self.used + 1 - most) / rate_per_s
        self.used += 1
        return 0.0


def _given_key(request: Request) -> str:
    kind, _, text = request.headers.get("authorization", "").partition(" ")
    return str(text.strip() if kind.lower() == "bearer" else request.headers.get("x-api-key", ""))


def _unauthorized(what: str) -> HttpError:
    return HttpError(HTTPStatus.UNAUTHORIZED, what, _HINT, {"WWW-Authenticate": 'Bearer realm="rigflow"'})
