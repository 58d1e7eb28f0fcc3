"""A NATS client that enforces TLS, decodes passwords in URLs and survives malformed input, which nats-py does not.

nats-py 2.16 speaks plain text to a `tls://` server that does not ask for TLS, sends passwords as they are written in
the URL, percent-encoded, and reads nothing any more after the answer to a flush that timed out, and after a message
whose subject or headers are not UTF-8 or whose headers are none: the server takes such messages from any client.
"""

import re
import ssl
from typing import Any
from urllib.parse import unquote, urlsplit

import nats.protocol.parser
from nats.aio.client import Client
from nats.aio.msg import Msg

from schemas.errors import UsageError
from schemas.settings import Settings

# nats-py takes form feeds and vertical tabs for the end of a subject; the server does not
_SUBJECT = rb"([^ \t\r\n]+) ([^ \t\r\n]+) (([^ \t\r\n]+) )?"
nats.protocol.parser.MSG_RE = re.compile(rb"\AMSG " + _SUBJECT + rb"(\d+)\r\n")
nats.protocol.parser.HMSG_RE = re.compile(rb"\AHMSG " + _SUBJECT + rb"(\d+) (\d+)\r\n")


class SecureClient(Client):
    """With `tls://` or the settings `tls_*`, nothing is sent without TLS, in particular no password."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._always = bool(settings.tls_ca or settings.tls_cert)

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """nats-py looks at `tls_required` after this: the handshake with a server that has no TLS fails there."""
        server = self._current_server
        secured = ("nats", "tls") if self._always else ("tls",)
        if initial_connection and server is not None and server.uri.scheme in secured:
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)

    async def _process_pong(self) -> None:
        """The answer to a flush that was given up: nats-py would stop reading, for it cannot set that result."""
        if self._pongs and self._pongs[0].done():
            self._pongs.pop(0)
            self._pings_outstanding = 0
        else:
            await super()._process_pong()

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        """The headers of a message; None where they are none."""
        try:
            return await super()._process_headers(headers)
        except (IndexError, UnicodeDecodeError):
            return None

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        """In a subject, what is not UTF-8 becomes U+FFFD."""
        text = subject.decode(errors="replace").encode()
        message: Msg = super()._build_message(sid, text, reply, data, headers)
        return message

    async def _process_connect_init(self) -> None:
        """After a TLS handshake that failed a connection never closes: nats-py would wait for that for ever."""
        try:
            await super()._process_connect_init()
        except (OSError, TimeoutError):
            if self._transport is not None:
                self._transport.close()  # type: ignore[no-untyped-call]
                self._transport = None
            raise


def tls_options(settings: Settings) -> dict[str, Any]:
    """nats-py's option `tls`, where it is needed. Raises UsageError when a file cannot be read or used."""
    if not (settings.tls_ca or settings.tls_cert or not settings.tls_verify or "tls://" in settings.nats):
        return {}
    path = settings.tls_ca
    try:
        context = ssl.create_default_context(cafile=path or None)
        if settings.tls_cert:
            path = settings.tls_cert
            context.load_cert_chain(settings.tls_cert, settings.tls_key or None)
    except OSError as error:  # of ssl too
        reason = error.strerror if error.errno and not isinstance(error, ssl.SSLError) else "not a PEM file that fits"
        raise UsageError(f"TLS file {path}: {reason}", "check the settings tls_ca, tls_cert and tls_key") from error
    if not settings.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return {"tls": context}


def password_options(client: Client, urls: list[str]) -> dict[str, Any]:
    """nats-py's options for user and password, or token, in the URLs; they may be percent-encoded.

    Servers that the broker announces later have none in their URL: they get those of the first. Raises ValueError when
    a URL cannot be parsed.
    """
    split = [urlsplit(url if "://" in url else f"nats://{url}") for url in urls]
    first = next((parts for parts in split if parts.username is not None), None)
    if first is None:
        return {}

    def current() -> Any:
        server = client._current_server
        return first if server is None or server.uri.username is None else server.uri

    if first.password is None:
        return {"token": lambda: unquote(current().username)}
    return {"user": lambda: unquote(current().username), "password": lambda: unquote(current().password or "")}
