"""Errors as RFC 9457 problem details: what happened, and the hint that the command line gives, too."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from pipelines.job_records import JobCancelled
from pipelines.jobs import OtherInput
from pipelines.message_store import FleetFull, NeverFits
from pipelines.resumable import UploadMoved
from pipelines.variants import ModelInUse
from schemas.errors import (
    BrokerError,
    ItemTooLarge,
    NotFound,
    RigflowError,
    StoreError,
    UsageError,
    error_code,
    reason_of,
)
from schemas.fields import clean_name

log = logging.getLogger("rigflow")
MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 5  # of a full fleet; a broker that starts again is there sooner
_STATUS: tuple[tuple[type[RigflowError], HTTPStatus], ...] = (  # the first class that fits
    (FleetFull, HTTPStatus.SERVICE_UNAVAILABLE),
    (NeverFits, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (ItemTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (NotFound, HTTPStatus.NOT_FOUND),
    (OtherInput, HTTPStatus.CONFLICT),
    (UploadMoved, HTTPStatus.CONFLICT),
    (ModelInUse, HTTPStatus.CONFLICT),
    (JobCancelled, HTTPStatus.CONFLICT),
    (UsageError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (BrokerError, HTTPStatus.SERVICE_UNAVAILABLE),
    (StoreError, HTTPStatus.SERVICE_UNAVAILABLE),
)


class Problem(BaseModel):
    """What went wrong, as RFC 9457 has it; `code` names the kind of error, `hint` says what to do."""

    type: str = Field(default="about:blank", examples=["urn:rigflow:error:fleet-full"])
    title: str
    status: int
    detail: str = ""
    code: str = ""
    hint: str = ""
    errors: list[str] = Field(default=[], description="wrong parameters, one a line")


class HttpError(RigflowError):
    """An error that HTTP has a status for, and rigflow no class."""

    def __init__(self, status: HTTPStatus, what: str, hint: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(what, hint)
        self.status = status
        self.headers = dict(headers or {})


def status_of(error: RigflowError) -> HTTPStatus:
    """The HTTP status of an error."""
    if isinstance(error, HttpError):
        return error.status
    return next((status for kind, status in _STATUS if isinstance(error, kind)), HTTPStatus.UNPROCESSABLE_ENTITY)


def problem_of(error: RigflowError) -> tuple[Problem, dict[str, str]]:
    """An error of rigflow as a problem, and the headers of its answer."""
    status = status_of(error)
    code = _of_status(status) if isinstance(error, HttpError) else error_code(error)
    problem = Problem(
        type=f"urn:rigflow:error:{code}",
        title=status.phrase,
        status=status,
        detail=clean_name(error.what) if len(error.what) < 200 else str(RigflowError(error.what)),
        code=code,
        hint=str(RigflowError(error.hint)),
    )
    headers = error.headers if isinstance(error, HttpError) else {}
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers = {"Retry-After": str(RETRY_AFTER_S), **headers}
    return problem, headers


def answer(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """A problem as the answer of a request."""
    body = problem.model_dump(exclude_defaults=True) | {"type": problem.type}
    return JSONResponse(body, problem.status, dict(headers or {}), MEDIA_TYPE)


async def _on_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RigflowError)
    return answer(*problem_of(error))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status, headers = HTTPStatus(error.status_code), dict(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED:  # the framework names the methods of one route of several
        headers["Allow"] = ", ".join(sorted(request.app.state.methods_of(request.url.path)))
    detail = error.detail if error.detail != status.phrase else ""
    return answer(Problem(title=status.phrase, status=status, detail=detail, code=_of_status(status)), headers)


async def _on_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    errors = [_field(detail) for detail in error.errors()[:20]]
    return answer(Problem(title=status.phrase, status=status, detail=errors[0], code="usage-error", errors=errors))


async def _on_disconnect(_: Request, error: Exception) -> Response:
    return Response(status_code=HTTPStatus.BAD_REQUEST)  # its client has gone


async def _on_unexpected(request: Request, error: Exception) -> Response:
    log.error("%s %s: %s", request.method, clean_name(request.url.path), type(error).__name__, exc_info=error)
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    return answer(
        Problem(
            title=status.phrase,
            status=status,
            detail=f"unexpected {type(error).__name__}",
            code="unexpected",
            hint="see the gateway's log, and please report it",
        )
    )


def _of_status(status: HTTPStatus) -> str:
    return status.phrase.lower().replace(" ", "-")


def _field(detail: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in detail["loc"][1:]) or str(detail["loc"][0])
    return f"{clean_name(where)}: {reason_of(detail)}"


def install(app: FastAPI) -> None:
    """Have an app answer all errors as problems."""
    app.add_exception_handler(RigflowError, _on_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_unexpected)
