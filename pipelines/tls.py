"""Options for nats-py: TLS as the settings say, and user and password from URLs.

nats-py sends passwords as they are written in the URL, percent-encoded.
"""

import ssl
from typing import Any
from urllib.parse import ParseResult, unquote, urlparse

from pipelines.nats_client import NatsClient
from schemas.errors import UsageError
from schemas.settings import Settings


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


def password_options(client: NatsClient, urls: list[str]) -> dict[str, Any]:
    """nats-py's options for user and password, or token, in the URLs; they may be percent-encoded.

    Servers that the broker announces later have none in their URL: they get those of the first. Raises ValueError when
    a URL cannot be parsed.
    """
    split = [urlparse(url if "://" in url else f"nats://{url}") for url in urls]
    first = next((parts for parts in split if parts.username is not None), None)
    if first is None:
        return {}

    def current() -> ParseResult:
        uri = client.server_uri
        return first if uri is None or uri.username is None else uri

    if first.password is None:
        return {"token": lambda: unquote(current().username or "")}
    return {"user": lambda: unquote(current().username or ""), "password": lambda: unquote(current().password or "")}
