"""`rigflow broker`: the nats-server that was installed with rigflow, as the broker of several machines."""

import os
from typing import Annotated

import typer

from cli.options import ends_well
from schemas.errors import BrokerError, ExitCode

OPTIONS_PASS = {"ignore_unknown_options": True}  # they are nats-server's


@ends_well
def broker(
    options: Annotated[
        list[str], typer.Argument(help="Options of nats-server; `-- --help` lists them.", metavar="OPTION...")
    ],
) -> ExitCode:
    """Run nats-server, the broker of fleets, with options of its own.

    It came with rigflow, and is in no folder of your PATH unless you have it from elsewhere, too. Its configuration
    says whom it serves and what it keeps: deploy/nats/single.conf is one for a single broker, docs/operations.md
    describes it. For this machine alone `rigflow up` starts a broker with workers, and needs no configuration.

    Example: rigflow broker -c nats.conf --store_dir /data/nats
    """
    from pipelines.child import nats_server_binary, server_environment

    server = nats_server_binary()
    try:
        os.execve(server, [server, *options], server_environment())
    except OSError as error:
        raise BrokerError(f"cannot run {server}: {error.strerror}", "install rigflow again") from error
