"""Who sends a request: the tenant, what is allowed, and its limits. `identify` of `create_app` decides."""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from typing import Annotated, Any, TypeAlias
from urllib.parse import urlsplit

from fastapi import Depends, Request

from gateway.problems import HttpError
from pipelines.audit import acting_for
from schemas.api_roles import ApiRole

ALL_ROLES = frozenset(ApiRole)
_FOUND = "rigflow.caller"  # in the scope of a request


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request. `name` is that of its API key, `upload_bytes` the most of one upload; 0: no limit.

    `is_valid` says whether the key may still be used: an answer or a body may last for hours.
    """

    tenant: str
    roles: frozenset[ApiRole] = ALL_ROLES
    name: str | None = None
    upload_bytes: int = 0
    is_valid: Callable[[], bool] = lambda: True

    def check_upload(self, nbytes: int) -> None:
        """Raise HttpError when an upload of that size is more than it may send, or its key is no longer valid."""
        if not self.is_valid():
            what = "the API key is no longer valid: it expired or was revoked, or its tenant was removed"
            raise HttpError(HTTPStatus.UNAUTHORIZED, what, "use another API key")
        if 0 < self.upload_bytes < nbytes:
            what = f"an upload may have {self.upload_bytes:,} bytes"
            raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, what, "use another API key")


Identify: TypeAlias = Callable[[Request], Awaitable[Caller]]


def check_origin(request: Request, what: str, hint: str) -> None:
    """Raise HttpError when a browser sends a request for a page of another origin, which may not use `what`."""
    origin = request.headers.get("origin")
    if origin is not None and _place_of(origin) != request.headers.get("host"):
        raise HttpError(HTTPStatus.FORBIDDEN, f"a page of another origin may not use {what}", hint)


def _place_of(origin: str) -> str | None:
    """The host and port of an origin; None where it is no URL."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def check_host(request: Request) -> None:
    """Raise HttpError when a request names a host that is neither an address nor `localhost`.

    A page of evil.example whose name leads to this machine is of the same origin as the gateway for a browser.
    """
    try:
        name = urlsplit(f"//{request.headers.get('host') or 'localhost'}").hostname or ""
        if name != "localhost" and not name.endswith(".localhost"):
            ip_address(name)
    except ValueError:
        hint = "use its address, or start the gateway with --keys, or with --everyone"
        raise HttpError(HTTPStatus.FORBIDDEN, "this gateway has no such name", hint) from None


def anyone(tenant: str, any_host: bool = False) -> Identify:
    """Everyone may do everything for one tenant: for a gateway that listens on the loopback alone.

    A page of another origin, which a browser on this machine shows, may not. `any_host`: requests may name the gateway
    as they like.
    """

    async def identify(request: Request) -> Caller:
        if not any_host:
            check_host(request)
        check_origin(request, "this gateway", "start the gateway with --cors ORIGIN and --keys")
        return Caller(tenant)

    return identify


def _may(role: ApiRole) -> Callable[[Request], Coroutine[Any, Any, Caller]]:
    async def caller(request: Request) -> Caller:
        identify: Identify = request.app.state.identify
        found: Caller = request.scope.get(_FOUND) or await identify(request)
        request.scope[_FOUND] = found
        if role not in found.roles:
            hint = f"use an API key with the role {role.value}"
            raise HttpError(HTTPStatus.FORBIDDEN, f"this needs the role {role.value}", hint)
        acting_for.set((found.name or "", found.tenant))
        return found

    return caller


BY_ROLE = {role: _may(role) for role in ApiRole}  # give the caller of a request that may do so, else raise HttpError
# the parameters of routes: `caller: Reader`
Submitter: TypeAlias = Annotated[Caller, Depends(BY_ROLE[ApiRole.SUBMIT])]
Reader: TypeAlias = Annotated[Caller, Depends(BY_ROLE[ApiRole.READ])]
Operator: TypeAlias = Annotated[Caller, Depends(BY_ROLE[ApiRole.OPERATE])]
