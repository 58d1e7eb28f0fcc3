"""`rigflow gateway`: serves a fleet by HTTP."""

import logging
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import on_fleet
from cli.text import say
from schemas.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from schemas.settings import Settings

PORT = 8000


@on_fleet
def gateway(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any that is free.")] = PORT,
    keys: Annotated[bool, typer.Option("--keys", help="Ask for API keys on the loopback, too.")] = False,
    everyone: Annotated[bool, typer.Option("--everyone", help="Ask for no API keys, wherever it listens.")] = False,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate for HTTPS.", metavar="FILE")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, if not in the same file.", metavar="FILE")] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(help="Origin whose pages may use it, as https://a.example; repeat it.", metavar="URL"),
    ] = None,
    *,
    settings: "Settings",
) -> ExitCode:
    """Serve a fleet by HTTP.

    Jobs by upload, their progress and results, until Ctrl-C or SIGTERM.

    It keeps nothing itself: any number of gateways can serve a fleet, and one that is killed loses nothing. On other
    addresses than the loopback it asks for API keys; `rigflow keys api add` makes them.

    Example: rigflow gateway --port 8000 --nats nats://rig1:4222
    """
    try:
        from gateway.server import Door, serve
    except ImportError as error:
        from engines.extras import install_extra

        raise UsageError(f"the gateway needs the package {error.name}", install_extra("gateway")) from error
    if everyone and keys:
        raise UsageError("--everyone asks for no API keys, --keys asks for them", "leave out one of them")
    tls = None if tls_cert is None else (tls_cert, tls_key or tls_cert)
    for file in tls or ():
        if not file.is_file():
            raise UsageError(f"{file}: no such file", "check the path of the certificate and its key")
    door = Door(host, port, keys or not (everyone or _is_loopback(host)), tls, tuple(cors or ()), everyone)
    from workers.telemetry import set_up_logging

    set_up_logging(settings)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # it would say that it starts and ends
    return serve(settings, door, say)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
