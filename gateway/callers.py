"""Who sends a request: the tenant, what is allowed, and its limits. `identify` of `create_app` decides."""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, TypeAlias
from urllib.parse import urlsplit

from fastapi import Depends, Request

from gateway.problems import HttpError
from schemas.api_roles import ApiRole

ALL_ROLES = frozenset(ApiRole)


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request. `name` is that of its API key, `upload_bytes` the most of one upload; 0: no limit."""

    tenant: str
    roles: frozenset[ApiRole] = ALL_ROLES
    name: str | None = None
    upload_bytes: int = 0

    def check_upload(self, nbytes: int) -> None:
        """Raise HttpError when an upload of that size is more than it may send."""
        if 0 < self.upload_bytes < nbytes:
            what = f"an upload may have {self.upload_bytes:,} bytes"
            raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, what, "use another API key")


Identify: TypeAlias = Callable[[Request], Awaitable[Caller]]


def check_origin(request: Request, what: str, hint: str) -> None:
    """Raise HttpError when a browser sends a request for a page of another origin, which may not use `what`."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise HttpError(HTTPStatus.FORBIDDEN, f"a page of another origin may not use {what}", hint)


def anyone(tenant: str) -> Identify:
    """Everyone may do everything for one tenant: for a gateway that listens on the loopback alone.

    A page of another origin, which a browser on this machine shows, may not.
    """

    async def identify(request: Request) -> Caller:
        check_origin(request, "this gateway", "start the gateway with --cors ORIGIN and --keys")
        return Caller(tenant)

    return identify


def _may(role: ApiRole) -> Callable[[Request], Coroutine[Any, Any, Caller]]:
    async def caller(request: Request) -> Caller:
        identify: Identify = request.app.state.identify
        found = await identify(request)
        if role not in found.roles:
            hint = f"use an API key with the role {role.value}"
            raise HttpError(HTTPStatus.FORBIDDEN, f"this needs the role {role.value}", hint)
        return found

    return caller


# the parameters of routes: `caller: Reader`
Submitter: TypeAlias = Annotated[Caller, Depends(_may(ApiRole.SUBMIT))]
Reader: TypeAlias = Annotated[Caller, Depends(_may(ApiRole.READ))]
Operator: TypeAlias = Annotated[Caller, Depends(_may(ApiRole.OPERATE))]
