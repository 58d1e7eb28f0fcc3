"""Sessions of the page: a login with an API key gives a cookie that any gateway can check.

The cookie names the key and its end, signed with the hash that the broker has of the key: no session is stored, and a
key that is revoked ends its sessions. A request that changes something needs the header `X-Rigflow-CSRF`, whose value
only a page of this origin can read.
"""

import hashlib
import hmac
from http import HTTPStatus
from typing import Annotated

from fastapi import Body, Request, Response
from pydantic import BaseModel, ConfigDict

from gateway.callers import check_origin
from gateway.problems import HttpError
from gateway.route import CheckedRoute, checked_router
from pipelines.api_keys import ApiKeys
from schemas.api_keys import ApiKey
from schemas.api_roles import ApiRole

SESSION, CSRF, CSRF_HEADER = "rigflow_session", "rigflow_csrf", "X-Rigflow-CSRF"
SESSION_S = 12 * 3600
_SAFE = frozenset(("GET", "HEAD", "OPTIONS"))


class Login(BaseModel):
    """What a login needs: an API key."""

    model_config = ConfigDict(extra="forbid")
    key: str


class SessionView(BaseModel):
    """Who is logged in."""

    name: str
    tenant: str
    roles: tuple[ApiRole, ...]


class _LoginRoute(CheckedRoute):
    """A route that everyone may send JSON to."""

    json_bytes = 4096


router = checked_router(_LoginRoute, prefix="/api/v1/session", tags=["session"])


@router.post("", status_code=HTTPStatus.CREATED)
async def log_in(request: Request, response: Response, login: Annotated[Login, Body()]) -> SessionView:
    """Begin a session: the answer sets a cookie for twelve hours."""
    check_origin(request, "a session", "use an API key")
    keys: ApiKeys | None = getattr(request.app.state.identify, "keys", None)
    if keys is None or (key := keys.check(login.key)) is None:
        raise HttpError(HTTPStatus.UNAUTHORIZED, "the API key is not known, expired or revoked", "check the key")
    check_tenant(keys, key)
    ends_s = int(keys.now_s()) + SESSION_S
    secure = request.url.scheme == "https"
    value = f"{key.id}.{ends_s}.{_signature(key, f'session.{ends_s}')}"
    response.set_cookie(SESSION, value, SESSION_S, secure=secure, httponly=True, samesite="strict")
    response.set_cookie(CSRF, _signature(key, f"csrf.{value}"), SESSION_S, secure=secure, samesite="strict")
    return SessionView(name=key.name, tenant=key.tenant, roles=key.roles)


@router.delete("", status_code=HTTPStatus.NO_CONTENT)
async def log_out(response: Response) -> None:
    """End the session of this browser."""
    response.delete_cookie(SESSION, httponly=True, samesite="strict")
    response.delete_cookie(CSRF, samesite="strict")


def key_of_session(request: Request, keys: ApiKeys | None) -> ApiKey | None:
    """The key with which the session of a request was begun, if both are still valid."""
    identity, _, rest = request.cookies.get(SESSION, "").partition(".")
    ends, _, signature = rest.partition(".")
    if keys is None or (key := keys.get(identity)) is None:
        return None
    if not hmac.compare_digest(signature.encode(), _signature(key, f"session.{ends}").encode()):
        return None
    return key if int(ends) >= keys.now_s() else None  # `log_in` signed it


def check_tenant(keys: ApiKeys, key: ApiKey) -> None:
    """Raise HttpError when the fleet does not have the tenant of a key, or not any more."""
    if keys.lacks_tenant(key):
        what = f"API key {key.name} is of tenant {key.tenant}, which is not, or no longer, a tenant of this fleet"
        hint = f"use a key of another tenant, or add this tenant again: `rigflow tenants add {key.tenant}`"
        raise HttpError(HTTPStatus.FORBIDDEN, what, hint)


def check_csrf(request: Request, key: ApiKey) -> None:
    """Raise HttpError unless a request of a session that changes something comes from a page of this origin."""
    if request.method in _SAFE:
        return
    check_origin(request, "a session", "use an API key")
    wanted = _signature(key, f"csrf.{request.cookies.get(SESSION, '')}")
    if not hmac.compare_digest(request.headers.get(CSRF_HEADER, "").encode(), wanted.encode()):
        what = f"a request of a session needs the header {CSRF_HEADER}"
        raise HttpError(HTTPStatus.FORBIDDEN, what, f"send the value of the cookie {CSRF}, or use an API key")


def _signature(key: ApiKey, text: str) -> str:
    return hmac.new(key.sha256.encode(), text.encode(), hashlib.sha256).hexdigest()
