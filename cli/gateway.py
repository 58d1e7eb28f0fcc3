"""`rigflow gateway`: serves a fleet by HTTP."""

import logging
from ipaddress import ip_address
from typing import Annotated

import typer

from cli.options import Credentials, FleetUrl, SettingsFile, ends_well, fleet_from
from cli.text import say
from schemas.errors import ExitCode, UsageError

PORT = 8000


@ends_well
def gateway(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any that is free.")] = PORT,
    nats: FleetUrl = None,
    credentials: Credentials = None,
    settings_file: SettingsFile = None,
) -> ExitCode:
    """Serve a fleet by HTTP.

    Jobs by upload, their progress and results, until Ctrl-C or SIGTERM.

    It keeps nothing itself: any number of gateways can serve a fleet, and one that is killed loses nothing. Without
    API keys it listens on the loopback only.

    Example: rigflow gateway --port 8000 --nats nats://rig1:4222
    """
    settings = fleet_from(settings_file, nats=nats, credentials=credentials)
    try:
        from gateway.server import serve
    except ImportError as error:
        from engines.extras import install_extra

        raise UsageError(f"the gateway needs the package {error.name}", install_extra("gateway")) from error
    if not _is_loopback(host):
        raise UsageError(f"--host {host}: without API keys everyone could use the fleet", "listen on 127.0.0.1")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    return serve(settings, host, port, say)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
