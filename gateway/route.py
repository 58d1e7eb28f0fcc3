"""Routes that know their parameters: others are refused by name, and bodies of JSON have a limit."""

from collections.abc import Callable, Collection, Coroutine, Iterator
from http import HTTPStatus
from typing import Any, get_origin

from fastapi import APIRouter, Request, Response, params
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from gateway.callers import BY_ROLE
from gateway.invalid import not_known
from gateway.problems import HttpError
from schemas.known_fields import names_of

_JSON = "JSON of a request"


class CheckedRoute(APIRoute):
    """A route that refuses parameters of a query or a form that it does not have (400), and too large bodies (413).

    Who sends a request is asked before its body is read: the framework reads JSON and forms first.

    A form may be as large as what the broker keeps. Compressed bodies are refused (415), unless the route `unpacks`
    them.
    """

    unpacks = False
    json_bytes = 1 << 40  # at most, beside the setting

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of FastAPI behind these checks."""
        handle = super().get_route_handler()
        known = set(_names(self.dependant, "query_params"))
        fields = set(_names(self.dependant, "body_params"))
        lists = {each.alias for each in self.dependant.body_params if get_origin(each.field_info.annotation) is list}
        body = None if self.body_field is None else self.body_field.field_info
        is_form = isinstance(body, params.Form)
        callers = [each for each in BY_ROLE.values() if each in {part.call for part in self.dependant.dependencies}]

        async def handler(request: Request) -> Response:
            for caller in callers:
                await caller(request)
            if not self.unpacks:
                _check_not_packed(request)
            for name in request.query_params:
                if name not in known:
                    raise unknown("parameter", name, known)
            if is_form:
                request = limited(request, request.app.state.settings.results_bytes, "a form")
                form = await request.form()
                for name in form:
                    if name not in fields:
                        await form.close()
                        raise unknown("field", name, fields)
                    if name not in lists and len(form.getlist(name)) > 1:
                        await form.close()
                        raise HttpError(
                            HTTPStatus.BAD_REQUEST, f"the field {name} is there twice", "send it once", param=name
                        )
            elif body is not None:
                request = limited(request, min(self.json_bytes, request.app.state.settings.json_bytes), _JSON)
            return await handle(request)

        return handler


class UnpackingRoute(CheckedRoute):
    """The same for a route that takes compressed bodies."""

    unpacks = True


def checked_router(route_class: type[CheckedRoute] = CheckedRoute, **options: Any) -> APIRouter:
    """A router of such routes."""
    return APIRouter(route_class=route_class, **options)


def _check_not_packed(request: Request) -> None:
    """Raise HttpError for a compressed body, which would be read as if it were the media or the JSON itself."""
    if request.method in ("GET", "HEAD", "DELETE"):
        return  # some clients send this header with all requests
    coding = request.headers.get("content-encoding") or "identity"
    if coding.strip().lower() != "identity":
        what = f"Content-Encoding {coding[:100]!a} is not taken here"
        raise HttpError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, what, "send the body as it is")


def limited(request: Request, most: int, what: str) -> Request:
    """A request whose body is refused when it has more than so many bytes; errors call it `what`."""
    came = 0
    given = request.headers.get("content-length", "")
    if given.isascii() and given.isdigit():
        check_size(int(given), most, what)

    async def receive() -> Any:
        nonlocal came
        message = await request.receive()
        came += len(message.get("body", b""))
        try:
            check_size(came, most, what)
        except HttpError as error:  # the framework takes any other error for one of its parser
            raise HTTPException(error.status, str(error)) from error
        return message

    return Request(request.scope, receive)


def check_json(nbytes: int, most: int) -> None:
    """Raise HttpError for JSON of so many bytes if it is more than there may be."""
    check_size(nbytes, most, _JSON)


def check_size(nbytes: int, most: int, what: str) -> None:
    """Raise HttpError for a body of so many bytes if it is more than there may be."""
    if nbytes > most:
        too_large = f"{what} has at most {most:,} bytes"
        raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, too_large, "send less in a request")


def unknown(kind: str, name: str, known: Collection[str]) -> HttpError:
    """The error of a parameter that is not known."""
    what, _, hint = not_known(kind, name, known).partition(": ")
    return HttpError(HTTPStatus.BAD_REQUEST, what, hint, param=name[:100])


def _names(dependant: Any, kind: str) -> Iterator[str]:
    """The names of a route's parameters of one kind, and of those that it depends on."""
    for field in getattr(dependant, kind):
        annotation = field.field_info.annotation
        if kind == "query_params" and isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from names_of(annotation)
        else:
            yield field.alias
    for each in dependant.dependencies:
        yield from _names(each, kind)
