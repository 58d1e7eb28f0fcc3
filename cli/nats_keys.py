"""`rigflow keys nats`: makes the key of a user of the broker."""

import os
from pathlib import Path
from typing import Annotated

import typer

from cli.options import Json, ends_well
from cli.text import say_json, warn
from schemas.errors import ExitCode, OutputError


@ends_well
def nats(
    out: Annotated[Path, typer.Argument(help="File for the seed, for --credentials; only you can read it.")],
    as_json: Json = False,
) -> ExitCode:
    """Make a key of a user of the broker.

    The seed goes into the file and is shown nowhere, the public key to stdout. The broker needs the public key:
    deploy/nats/roles.conf takes it from NKEY_WORKER, NKEY_PUBLISHER, NKEY_GATEWAY, NKEY_CLIENT, NKEY_JOIN and
    NKEY_OPERATOR.

    Example: rigflow keys nats worker.nk
    """
    import nkeys

    seed = bytearray(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER))
    public = nkeys.from_seed(bytearray(seed)).public_key.decode()
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise OutputError(f"{out} is there already", "a key is never replaced: give another name") from error
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror}", "choose another folder") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(bytes(seed) + b"\n")
    except OSError as error:
        out.unlink(missing_ok=True)
        raise OutputError(f"cannot write {out}: {error.strerror}", "make room on the disk") from error
    if as_json:
        say_json({"public": public, "file": str(out)})
    else:
        print(public)
    warn(f"the seed is in {out}: give it to its owner alone, and the public key to the broker")
    return ExitCode.OK
