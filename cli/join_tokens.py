"""`rigflow keys join`: makes, lists and revokes the tokens by which new machines join the fleet."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.help import Commands
from cli.interrupts import run_async
from cli.options import Json, on_fleet
from cli.revoking import revoked
from cli.text import age, one_line, say_json, stdout, warn
from schemas.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from pipelines.join_tokens import TokenText
    from schemas.join_tokens import JoinToken
    from schemas.settings import Settings

app = Commands(
    name="join",
    help="Tokens by which new machines join the fleet.\n\nExample: rigflow keys join list",
)


@app.command()
@on_fleet
def add(
    name: Annotated[str, typer.Argument(help="What the token is called, as the machine's name.")],
    worker: Annotated[
        Path | None, typer.Option(help="Seed of the role worker, which the machine gets.", metavar="FILE")
    ] = None,
    join_key: Annotated[
        Path | None, typer.Option(help="Seed of the role join, with which the machine asks for it.", metavar="FILE")
    ] = None,
    hours: Annotated[float, typer.Option(min=0.01, max=8760.0, help="Hours until it expires.")] = 24.0,
    as_json: Json = False,
    *,
    settings: "Settings",
) -> ExitCode:
    """Make a token and print it, once.

    One machine can use it, with `rigflow rig --join URL --token TOKEN`. What it gives is at the broker, encrypted; the
    key is in the token alone. The machine gets the seed, and the certificates of the setting tls_ca. A broker with
    roles needs both files, one without needs none.

    Example: rigflow keys join add rig7 --worker worker.nk --join-key join.nk
    """
    from pipelines.broker import Broker
    from pipelines.join_tokens import check_keys, make_token
    from pipelines.local_access import LOOPBACK
    from schemas.join_tokens import RigAccess, moment

    if (worker is None) != (join_key is None):
        raise UsageError("--worker and --join-key go together", "give both where the broker has roles, and else none")
    ca, worker_seed, join_seed = Path(settings.tls_ca), _seed(worker), _seed(join_key)
    access = RigAccess(
        seed=worker_seed.decode(),
        inbox="_INBOX_worker" if worker else settings.inbox,
        prefix=settings.prefix,
        tls_ca=_read(ca) if settings.tls_ca else "",
    )

    async def made() -> "tuple[TokenText, str, float]":
        async with Broker.connected(settings, name="rigflow-keys") as broker:
            await check_keys(broker, worker_seed, join_seed)
            expires_s = broker.now_s() + hours * 3600
            text = await make_token(broker, name, access, join_seed, expires_s)
            return text, broker.connection.nc.server_host, expires_s

    text, host, expires_s = run_async(made())
    if as_json:
        say_json({"token": str(text), "id": text.id, "name": name, "expires_s": expires_s})
    else:
        print(text)
    warn(f"join token {name} lets one machine in, until {moment(expires_s)}; it cannot be shown again")
    if host in LOOPBACK:
        warn(f"the broker listens on {host}, which other machines do not reach: give it `--addr 0.0.0.0`")
    return ExitCode.OK


@app.command("list")
@on_fleet
def list_(as_json: Json = False, *, settings: "Settings") -> ExitCode:
    """List all join tokens, oldest first.

    Example: rigflow keys join list
    """
    from cli.tables import list_of
    from pipelines.broker import Broker
    from pipelines.join_tokens import all_tokens

    async def found() -> "tuple[list[JoinToken], float]":
        async with Broker.connected(settings, name="rigflow-keys") as broker:
            return await all_tokens(broker), broker.now_s()

    tokens, now_s = run_async(found())
    if as_json:
        say_json([token.model_dump(mode="json", exclude={"box"}) for token in tokens])
        return ExitCode.OK
    rows = (
        (one_line(each.name), each.id, each.why_not(now_s) or "valid", age(now_s - each.created_s, units=1))
        for each in tokens
    )
    titles = ("name", "id", "state", "age")
    stdout().print(list_of(titles, rows, left=3, named=("name",)) if tokens else "no join tokens")
    return ExitCode.OK


@app.command()
@on_fleet
def revoke(
    name: Annotated[str, typer.Argument(help="Name or id of a token.")], as_json: Json = False, *, settings: "Settings"
) -> ExitCode:
    """Revoke a join token that no machine used yet.

    Example: rigflow keys join revoke rig7
    """
    from pipelines.join_tokens import revoke_token

    return revoked(settings, revoke_token, name, "join token", as_json)


def _seed(path: Path | None) -> bytes:
    """The seed in a file; empty without one. Raises UsageError."""
    from pipelines.login import seed_in

    if path is None:
        return b""
    if not (seed := seed_in(_read(path))):
        raise UsageError(f"{path}: not an nkey seed", "`rigflow keys nats` makes one")
    return seed.encode()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise UsageError(f"{path}: {reason}", "check the path") from error
