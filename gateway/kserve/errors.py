"""Errors of `/v2` as its clients read them: `{"error": "..."}`. A request that is wrong answers 400, as Triton does."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from gateway.problems import Problem


class KserveError(BaseModel):
    """What went wrong, and what to do."""

    error: str


RESPONSES: dict[int | str, dict[str, Any]] = {code: {"model": KserveError} for code in ("4XX", "5XX")}


def answer(problem: Problem, headers: Mapping[str, str], param: str | None = None) -> Response:
    """A problem in the body that clients read."""
    wrong = problem.status == HTTPStatus.UNPROCESSABLE_ENTITY
    status = HTTPStatus.BAD_REQUEST if wrong else problem.status
    return JSONResponse({"error": problem.text}, status, dict(headers))
