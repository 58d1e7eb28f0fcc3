"""Errors as RFC 9457 problem details: what happened, and what to do. Other APIs give them a form of their own."""

import logging
import math
import random
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, TypeAlias

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gateway.hints import for_callers
from gateway.invalid import place_of, unknown_fields, wrong_fields
from pipelines.job_records import JobCancelled, OtherInput
from pipelines.message_store import FleetFull, NeverFits
from pipelines.quotas import QuotaReached, TenantFull
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
)
from schemas.fields import clean_name

log = logging.getLogger("rigflow")
MEDIA_TYPE = "application/problem+json"
DESCRIBED = "GET /api/v1/openapi.json describes every request"  # the hint where there is no better one
RETRY_AFTER_S = (2, 8)  # clients that were refused together come back one by one; a broker that starts is there sooner
_STATUS: tuple[tuple[type[RigflowError], HTTPStatus], ...] = (  # the first class that fits
    (TenantFull, HTTPStatus.TOO_MANY_REQUESTS),
    (QuotaReached, HTTPStatus.TOO_MANY_REQUESTS),
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
_WRONG = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY)  # of the request itself


class Problem(BaseModel):
    """What went wrong, as RFC 9457 has it; `code` names the kind of error, `hint` says what to do."""

    type: str = Field(default="about:blank", examples=["urn:rigflow:error:fleet-full"])
    title: str
    status: int
    detail: str = ""
    code: str = ""
    hint: str = ""
    errors: list[str] = Field(default=[], description="wrong parameters, one a line")

    @property
    def text(self) -> str:
        """What happened and what to do, in one line."""
        return f"{self.detail or self.title}: {self.hint}" if self.hint else self.detail or self.title


Form: TypeAlias = Callable[[Problem, Mapping[str, str], str | None], Response]
"""A problem as the answer of a request, with headers; the last is the parameter that is wrong, if there is one."""


class HttpError(RigflowError):
    """An error that HTTP has a status for, and rigflow no class. `param` is the parameter that is wrong, if one is."""

    def __init__(
        self,
        status: HTTPStatus,
        what: str,
        hint: str = "",
        headers: Mapping[str, str] | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(what, hint)
        self.status = status
        self.headers = dict(headers or {})
        self.param = param


def status_of(error: RigflowError) -> HTTPStatus:
    """The HTTP status of an error."""
    if isinstance(error, HttpError):
        return error.status
    return next((status for kind, status in _STATUS if isinstance(error, kind)), HTTPStatus.UNPROCESSABLE_ENTITY)


def problem_of(error: RigflowError) -> tuple[Problem, dict[str, str]]:
    """An error of rigflow as a problem, and the headers of its answer."""
    status = status_of(error)
    code = code_of_status(status) if isinstance(error, HttpError) else error_code(error)
    problem = Problem(
        type=f"urn:rigflow:error:{code}",
        title=status.phrase,
        status=status,
        detail=clean_name(error.what) if len(error.what) < 200 else str(RigflowError(error.what)),
        code=code,
        hint=for_callers(str(RigflowError(error.hint))) or (DESCRIBED if status in _WRONG else ""),
    )
    headers = error.headers if isinstance(error, HttpError) else {}
    if isinstance(error, QuotaReached):
        headers = {"Retry-After": str(math.ceil(error.again_s))}
    elif isinstance(error, FleetFull) or status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers = {"Retry-After": str(random.randint(*RETRY_AFTER_S)), **headers}
    return problem, headers


def body_of(problem: Problem) -> dict[str, object]:
    """The JSON of a problem."""
    return problem.model_dump(exclude_defaults=True) | {"type": problem.type}


def answer(problem: Problem, headers: Mapping[str, str], param: str | None = None) -> Response:
    """A problem in the form of the native API."""
    return JSONResponse(body_of(problem), problem.status, dict(headers), MEDIA_TYPE)


def install(app: FastAPI, forms: Mapping[str, Form]) -> None:
    """Have an app answer all errors as problems; below a path of `forms`, in that form."""

    def answering(take: Callable[[Request, Any], tuple[Problem, dict[str, str], str | None]]) -> Any:
        async def handler(request: Request, error: Exception) -> Response:
            path = f"{request.url.path}/"
            form = next((form for below, form in forms.items() if path.startswith(f"{below}/")), answer)
            return form(*take(request, error))

        return handler

    app.add_exception_handler(RigflowError, answering(_of_error))
    app.add_exception_handler(HTTPException, answering(_of_http_error))
    app.add_exception_handler(RequestValidationError, answering(_of_invalid))
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, answering(_of_unexpected))


def _of_error(_: Request, error: RigflowError) -> tuple[Problem, dict[str, str], str | None]:
    return *problem_of(error), error.param if isinstance(error, HttpError) else None


def _of_http_error(request: Request, error: HTTPException) -> tuple[Problem, dict[str, str], str | None]:
    status, headers = HTTPStatus(error.status_code), dict(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED:  # the framework names the methods of one route of several
        methods = request.app.state.methods_of(request.url.path)
        headers["Allow"] = ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))
    detail, path = error.detail if error.detail != status.phrase else "", clean_name(request.url.path)
    hint = ""
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        detail, hint = f"{path} has no {request.method}", f"it has {headers['Allow']}"
    elif status is HTTPStatus.NOT_FOUND and not detail:
        detail, hint = f"there is no {path}", "GET /api/v1/openapi.json lists the paths"
    return (
        Problem(title=status.phrase, status=status, detail=detail, code=code_of_status(status), hint=hint),
        headers,
        None,
    )


def _of_invalid(request: Request, error: RequestValidationError) -> tuple[Problem, dict[str, str], str | None]:
    """Fields that are not known are 400, as parameters that are not known are."""
    details = error.errors()[:20]
    unknown = unknown_fields(request, details)
    status = HTTPStatus.BAD_REQUEST if unknown else HTTPStatus.UNPROCESSABLE_ENTITY
    errors = unknown or wrong_fields(details)
    code, kind = "usage-error", "urn:rigflow:error:usage-error"
    problem = Problem(
        type=kind, title=status.phrase, status=status, detail=errors[0], code=code, hint=DESCRIBED, errors=errors
    )
    first = next((each for each in details if each["type"] == "extra_forbidden"), details[0])
    return problem, {}, place_of(first)


async def _on_disconnect(_: Request, error: Exception) -> Response:
    return Response(status_code=HTTPStatus.BAD_REQUEST)  # its client has gone


def _of_unexpected(request: Request, error: Exception) -> tuple[Problem, dict[str, str], str | None]:
    place, late = f"{request.method} {clean_name(request.url.path)}", too_late(error)
    if late is None:
        log.error("%s: %s", place, type(error).__name__, exc_info=error)
    else:
        log.warning("the answer to %s breaks off: %s", place, late)
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    what, hint = f"unexpected {type(error).__name__}", "ask the operator to see the gateway's log and to report it"
    problem = Problem(title=status.phrase, status=status, detail=what, code="unexpected", hint=hint)
    return problem, {"Connection": "close"}, None  # as the server does then


def too_late(error: Exception) -> RigflowError | None:
    """The error that came within an answer, which it cannot replace, if the framework's `error` is about one."""
    return error.__cause__ if isinstance(error, RuntimeError) and isinstance(error.__cause__, RigflowError) else None


def code_of_status(status: HTTPStatus) -> str:
    """The code of a problem that is known by its status alone."""
    return status.phrase.lower().replace(" ", "-")
