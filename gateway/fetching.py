"""Fetches media by URL, from hosts that the setting `url_hosts` allows, and from no other address.

A name is resolved once, all its addresses are checked, and the connection goes to one of these: what a name server says
later changes nothing. Redirects are checked in the same way. The body is read as it is taken, so that a full fleet
holds up its sender.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import h11

from gateway.problems import HttpError

CONNECT_S, IDLE_S, ENTIRE_S = 10.0, 30.0, 3600.0
MOST_REDIRECTS, MOST_URL = 5, 4096
_PIECE_BYTES = 256 << 10
_PORTS = {"http": 80, "https": 443}
_URL = re.compile(r"[\x21-\x7e]+")
_NAT64 = ip_network("64:ff9b::/96")
_REDIRECTS = frozenset((301, 302, 303, 307, 308))


@dataclass(frozen=True, slots=True)
class Fetched:
    """A media that is being fetched: `size` in bytes where its host says it."""

    name: str
    content_type: str
    size: int | None
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class _Target:
    """Where a URL leads: one address of its host that was checked."""

    url: SplitResult
    host: str
    port: int
    address: str

    @property
    def shown(self) -> str:
        """Its host, for errors."""
        return f"{self.host}:{self.port}"

    @property
    def path(self) -> str:
        return (self.url.path or "/") + (f"?{self.url.query}" if self.url.query else "")

    @property
    def authority(self) -> str:
        """What the header Host says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.url.scheme] else f"{host}:{self.port}"


@asynccontextmanager
async def fetched(url: str, hosts: Sequence[str]) -> AsyncIterator[Fetched]:
    """Begin to fetch a URL, for a block. Raises HttpError when it is not allowed, or is not answered with a media."""
    for _ in range(MOST_REDIRECTS + 1):
        target = await _checked(url, hosts)
        writer: asyncio.StreamWriter | None = None
        try:
            with _errors(target):
                reader, writer = await _connected(target)
                answers = _Answers(reader)
                writer.write(answers.request(target))
                response = await answers.response()
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
            if response.status_code in _REDIRECTS and "location" in headers:
                url = _further(url, target, headers["location"])
                continue
            yield _media(target, response.status_code, headers, answers)
            return
        finally:
            if writer is not None:
                writer.close()
                with suppress(Exception):
                    await asyncio.wait_for(writer.wait_closed(), 1.0)
    raise _refused(f"there are more than {MOST_REDIRECTS} redirects", "give the URL that they lead to")


def _further(url: str, target: _Target, location: str) -> str:
    """Where a redirect leads. Raises HttpError when that is no URL, or one without TLS after one with it."""
    try:
        further = urljoin(url, location)
        scheme = urlsplit(further).scheme
    except ValueError as error:
        raise _refused(f"{target.shown} leads to what is no URL", "give the URL itself") from error
    if target.url.scheme == "https" and scheme != "https":
        raise _refused(f"{target.shown} leads to an address without TLS", "give the URL itself")
    return further


async def _checked(url: str, hosts: Sequence[str]) -> _Target:
    """Where a URL leads. Raises HttpError when that is not allowed."""
    if len(url) > MOST_URL or not _URL.fullmatch(url):
        raise _refused("the URL has characters that are not of a URL, or is too long", "encode them by %")
    try:
        parts = urlsplit(url)
        scheme, host = parts.scheme, (parts.hostname or "").rstrip(".")
        port = parts.port or _PORTS.get(scheme, 0)
    except ValueError as error:
        raise _refused("the URL cannot be read", "give one as https://a.example/film.mp4") from error
    if scheme not in _PORTS or not host:
        raise _refused("the URL is none of http or https with a host", "give one as https://a.example/film.mp4")
    if parts.username is not None:
        raise _refused("the URL has a user or a password", "leave them out, or send the media itself")
    exact = f"{host}:{port}" in hosts or (host in hosts and port == _PORTS[scheme])
    if not exact and not (port == _PORTS[scheme] and any(_matches(host, each) for each in hosts)):
        what = f"media are not fetched from {host[:100]}:{port}"
        raise HttpError(
            HTTPStatus.FORBIDDEN, what, "send the media itself, or allow this host by the setting url_hosts"
        )
    try:
        async with asyncio.timeout(CONNECT_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError) as error:
        raise _refused(f"{host[:100]} has no address", "check the URL") from error
    addresses = [str(each[4][0]) for each in found]
    if not exact and not all(map(is_public, addresses)):
        what = f"{host[:100]} has an address that is not public"
        raise HttpError(
            HTTPStatus.FORBIDDEN, what, "send the media itself, or name this host exactly in the setting url_hosts"
        )
    return _Target(parts, host, port, addresses[0])


def _matches(host: str, allowed: str) -> bool:
    """Whether an entry `*` or `*.a.example` allows a host."""
    return allowed == "*" or (allowed.startswith("*.") and host.endswith(allowed[1:]))


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet, also where it has another one in it."""
    try:
        found: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if found in _NAT64:
            inner = IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast and not found.is_reserved


async def _connected(target: _Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    secure: dict[str, Any] = {}
    if target.url.scheme == "https":
        secure = {"ssl": ssl.create_default_context(), "server_hostname": target.host}
    async with asyncio.timeout(CONNECT_S):
        return await asyncio.open_connection(target.address, target.port, limit=_PIECE_BYTES, **secure)


@contextmanager
def _errors(target: _Target) -> Iterator[None]:
    """Errors of a connection as HttpError."""
    try:
        yield
    except TimeoutError as error:
        raise _refused(f"{target.shown} did not answer in time", "try again, or send the media itself") from error
    except ssl.SSLError as error:
        raise _refused(f"{target.shown} has no certificate that is trusted", "give another URL") from error
    except OSError as error:
        raise _refused(f"{target.shown} cannot be reached", "check the URL") from error
    except (h11.RemoteProtocolError, EOFError) as error:
        raise _refused(f"{target.shown} broke off, or speaks no HTTP", "try again, or send it yourself") from error


class _Answers:
    """The answer to one request, in HTTP/1.1."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=64 << 10)

    def request(self, target: _Target) -> bytes:
        """The bytes of the request."""
        headers = [("Host", target.authority), ("Accept", "*/*"), ("Accept-Encoding", "identity")]
        headers += [("User-Agent", "rigflow"), ("Connection", "close")]
        head = self._connection.send(h11.Request(method="GET", target=target.path, headers=headers))
        return (head or b"") + (self._connection.send(h11.EndOfMessage()) or b"")

    async def response(self) -> h11.Response:
        """The head of the answer."""
        while not isinstance(event := await self._event(), h11.Response):
            if not isinstance(event, h11.InformationalResponse):
                raise EOFError
        return event

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes."""
        while isinstance(event := await self._event(), h11.Data):
            yield bytes(event.data)
        if not isinstance(event, h11.EndOfMessage):
            raise EOFError

    async def _event(self) -> Any:
        while (event := self._connection.next_event()) is h11.NEED_DATA:
            async with asyncio.timeout(IDLE_S):
                self._connection.receive_data(await self._reader.read(_PIECE_BYTES))
        return event


def _media(target: _Target, status: int, headers: dict[str, str], answers: _Answers) -> Fetched:
    """The media of an answer. Raises HttpError for any other answer."""
    if status != HTTPStatus.OK:
        raise _refused(f"{target.shown} answers {status}", "check the URL")
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise _refused(f"{target.shown} sends the media compressed", "send the media itself")
    given = headers.get("content-length", "")

    async def chunks() -> AsyncGenerator[bytes, None]:
        with _errors(target):
            async for chunk in answers.chunks():
                yield chunk

    name = unquote(target.url.path.rpartition("/")[2], errors="replace")
    size = int(given) if given.isascii() and given.isdigit() else None
    return Fetched(name, headers.get("content-type", ""), size, chunks())


def _refused(what: str, hint: str) -> HttpError:
    return HttpError(HTTPStatus.UNPROCESSABLE_ENTITY, what, hint, param="url")
