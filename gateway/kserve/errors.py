"""Errors of `/v2` as its clients read them: `{"error": "..."}`."""

import logging
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gateway.problems import problem_of
from schemas.errors import RigflowError, UsageError

log = logging.getLogger("rigflow")


class KserveRoute(APIRoute):
    """A route whose errors are `{"error": "..."}`. A request that is wrong answers 400, as Triton does."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of the route, with all its errors answered."""
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await handle(request)
            except RigflowError as error:
                problem, headers = problem_of(error)
                wrong = problem.status == HTTPStatus.UNPROCESSABLE_ENTITY
                return answer(HTTPStatus.BAD_REQUEST if wrong else HTTPStatus(problem.status), str(error), headers)
            except RequestValidationError as error:
                return answer(HTTPStatus.BAD_REQUEST, str(UsageError(str(error.errors()[0]["msg"]))))
            except HTTPException as error:
                return answer(HTTPStatus(error.status_code), str(error.detail))
            except ClientDisconnect:
                return Response(status_code=HTTPStatus.BAD_REQUEST)  # it is read by no one
            except Exception as error:
                log.error("%s %s: %s", request.method, request.url.path, type(error).__name__, exc_info=error)
                what = f"unexpected {type(error).__name__}: see the gateway's log, and please report it"
                return answer(HTTPStatus.INTERNAL_SERVER_ERROR, what)

        return handler


def answer(status: HTTPStatus, error: str, headers: dict[str, str] | None = None) -> Response:
    """An error in the body that clients read."""
    return JSONResponse({"error": error}, status, headers)
