"""Errors in the form that OpenAI's clients read."""

from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from gateway.problems import HttpError, problem_of
from schemas.errors import NotFound, RigflowError, reason_of

_KINDS = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.CONFLICT: "conflict_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
    HTTPStatus.NOT_IMPLEMENTED: "not_implemented_error",
}


class NotOffered(HttpError):
    """A part of OpenAI's API that this gateway does not have."""

    def __init__(self, what: str, hint: str = "see docs/gateway-openai.md") -> None:
        super().__init__(HTTPStatus.NOT_IMPLEMENTED, what, hint)


class OpenAIRoute(APIRoute):
    """A route whose errors are `{"error": {"message", "type", "param", "code"}}`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of FastAPI, with errors answered."""
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await handle(request)
            except RigflowError as error:
                return answer_of(error)
            except RequestValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
                return _answer(HTTPStatus.BAD_REQUEST, f"{where}: {reason_of(first)}", where, "invalid_value")
            except HTTPException as error:
                return _answer(HTTPStatus(error.status_code), str(error.detail), None, None, error.headers)

        return handler


def api_router(tag: str) -> APIRouter:
    """A router of `/v1`."""
    return APIRouter(prefix="/v1", tags=[tag], route_class=OpenAIRoute)


def answer_of(error: RigflowError) -> Response:
    """An error of rigflow as the answer of a request."""
    problem, headers = problem_of(error)
    code = "model_not_found" if isinstance(error, NotFound) else problem.code.replace("-", "_")
    return _answer(_status(problem.status), str(error), None, code, headers)


def error_body(error: RigflowError) -> dict[str, Any]:
    """An error that comes when an answer has begun already, as an event of its stream."""
    problem, _ = problem_of(error)
    return _body(_status(problem.status), str(error), None, problem.code.replace("-", "_"))


def _status(status: int) -> HTTPStatus:
    """OpenAI's clients know 400 for what is wrong in a request."""
    return HTTPStatus.BAD_REQUEST if status == HTTPStatus.UNPROCESSABLE_ENTITY else HTTPStatus(status)


def _body(status: HTTPStatus, message: str, param: str | None, code: str | None) -> dict[str, Any]:
    server = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    return {"error": {"message": message, "type": _KINDS.get(status, server), "param": param, "code": code}}


def _answer(
    status: HTTPStatus, message: str, param: str | None, code: str | None, headers: Mapping[str, str] | None = None
) -> Response:
    return JSONResponse(_body(status, message, param, code), status, dict(headers or {}))
