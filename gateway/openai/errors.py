"""Errors in the form that OpenAI's clients read: `{"error": {"message", "type", "param", "code"}}`."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from gateway.problems import HttpError, Problem, problem_of
from schemas.errors import RigflowError

_KINDS = {
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.CONFLICT: "conflict_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}
_CODES = {
    "model-unknown": "model_not_found",
    "pipeline-unknown": "model_not_found",  # each request runs the pipeline of its kind
    "unauthorized": "invalid_api_key",
    "too-many-requests": "rate_limit_exceeded",
    "usage-error": "invalid_value",
}


class ErrorDetail(BaseModel):
    """What went wrong: `type` is the kind of error, `param` the field that is wrong, `code` a name for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    """An error as OpenAI's clients read it."""

    error: ErrorDetail


RESPONSES: dict[int | str, dict[str, Any]] = {code: {"model": OpenAIError} for code in ("4XX", "5XX")}


class NotOffered(HttpError):
    """A part of OpenAI's API that this gateway does not have. OpenAI's clients send a request again after a 5xx."""

    def __init__(self, what: str, hint: str = "leave it out", param: str | None = None) -> None:
        super().__init__(HTTPStatus.BAD_REQUEST, what, hint, param=param)


def answer(problem: Problem, headers: Mapping[str, str], param: str | None = None) -> Response:
    """A problem as the answer of a request."""
    return JSONResponse(_body(problem, param), _status(problem), dict(headers))


def error_body(error: RigflowError) -> dict[str, Any]:
    """An error that comes when an answer has begun already, as an event of its stream."""
    return _body(problem_of(error)[0], None)


def _status(problem: Problem) -> HTTPStatus:
    """OpenAI's clients know 400 for what is wrong in a request."""
    wrong = problem.status == HTTPStatus.UNPROCESSABLE_ENTITY
    return HTTPStatus.BAD_REQUEST if wrong else HTTPStatus(problem.status)


def _body(problem: Problem, param: str | None) -> dict[str, Any]:
    status, code = _status(problem), _CODES.get(problem.code, problem.code.replace("-", "_"))
    server = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    param = "model" if code == "model_not_found" else param
    return {"error": {"message": problem.text, "type": _KINDS.get(status, server), "param": param, "code": code}}
