"""The page of the gateway: files of this package, without a build step, a font or a script from elsewhere."""

import hashlib
import mimetypes
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from importlib.resources import files

from fastapi import APIRouter, Request, Response

from gateway.problems import HttpError

router = APIRouter(include_in_schema=False)
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
        "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file of the page."""

    content: bytes
    content_type: str
    tag: str


@router.get("/")
async def index(request: Request) -> Response:
    """The page."""
    return _answer(request, "index.html")


@router.get("/page/{name}")
async def file(request: Request, name: str) -> Response:
    """A file that the page is made of."""
    return _answer(request, name)


@cache
def page_files() -> dict[str, PageFile]:
    """All files of the page, by name."""
    found = {}
    for entry in files("gateway.page").joinpath("static").iterdir():
        content = entry.read_bytes()
        kind = "text/javascript" if entry.name.endswith(".js") else mimetypes.guess_type(entry.name)[0] or ""
        charset = "; charset=utf-8" if kind.startswith("text/") else ""
        found[entry.name] = PageFile(content, f"{kind}{charset}", f'"{hashlib.sha256(content).hexdigest()[:16]}"')
    return found


def _answer(request: Request, name: str) -> Response:
    found = page_files().get(name)
    if found is None:
        raise HttpError(HTTPStatus.NOT_FOUND, f"the page has no file {name[:100]!a}", "open /")
    headers = {**HEADERS, "ETag": found.tag}
    if request.headers.get("if-none-match") == found.tag:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(found.content, headers=headers, media_type=found.content_type)
