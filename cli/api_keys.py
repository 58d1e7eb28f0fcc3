"""`rigflow keys api`: makes, lists and revokes the keys of the HTTP gateway."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.help import Commands
from cli.interrupts import run_async
from cli.options import Credentials, FleetUrl, Json, SettingsFile, ends_well, fleet_from, on_fleet
from cli.revoking import revoked
from cli.text import age, one_line, say_json, stdout, warn
from schemas.api_roles import ApiRole
from schemas.errors import ExitCode
from schemas.text import size

if TYPE_CHECKING:
    from schemas.api_keys import ApiKey
    from schemas.settings import Settings

app = Commands(
    name="api",
    help="Keys of the HTTP gateway.\n\nExample: rigflow keys api add website --role submit --role read",
)


@app.command()
@ends_well
def add(
    name: Annotated[str, typer.Argument(help="What the key is called; usage is counted by it.")],
    role: Annotated[
        list[ApiRole] | None, typer.Option("--role", help="What it allows; repeat it. Default: submit and read.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Whose jobs it sees. Default: the setting tenant.")] = None,
    rate: Annotated[
        float, typer.Option(min=0.0, help="Most requests a second at one gateway; 0: no limit.", metavar="N")
    ] = 0.0,
    upload_bytes: Annotated[
        int, typer.Option(min=0, help="Most bytes of an upload; 0: no limit of its own.", metavar="BYTES")
    ] = 0,
    as_json: Json = False,
    days: Annotated[float, typer.Option(min=0.0, help="Days until it expires; 0: never.")] = 0.0,
    nats: FleetUrl = None,
    credentials: Credentials = None,
    settings_file: SettingsFile = None,
) -> ExitCode:
    """Make a key and print it, once.

    The broker keeps a hash of it.

    Example: rigflow keys api add website --role submit --role read
    """
    from pipelines.api_keys import make_key
    from pipelines.broker import Broker

    settings = fleet_from(settings_file, nats=nats, credentials=credentials, tenant=tenant)
    roles = role or [ApiRole.SUBMIT, ApiRole.READ]

    async def made() -> "tuple[ApiKey, str]":
        async with Broker.connected(settings, name="rigflow-keys") as broker:
            expires_s = broker.now_s() + days * 86400 if days else 0.0
            return await make_key(broker, name, settings.tenant, roles, rate, upload_bytes, expires_s)

    key, text = run_async(made())
    if as_json:
        say_json({"key": text, **key.model_dump(mode="json", exclude={"sha256"})})
    else:
        print(text)
    warn(f"key {key.name} of tenant {key.tenant} allows {', '.join(key.roles)}; it cannot be shown again")
    return ExitCode.OK


@app.command("list")
@ends_well
def list_(
    as_json: Json = False, nats: FleetUrl = None, credentials: Credentials = None, settings_file: SettingsFile = None
) -> ExitCode:
    """List all keys, oldest first.

    The texts that clients send cannot be shown.

    Example: rigflow keys api list
    """
    from cli.tables import list_of
    from pipelines.api_keys import all_keys
    from pipelines.broker import Broker

    settings = fleet_from(settings_file, nats=nats, credentials=credentials)

    async def found() -> "tuple[list[ApiKey], float]":
        async with Broker.connected(settings, name="rigflow-keys") as broker:
            return await all_keys(broker), broker.now_s()

    keys, now_s = run_async(found())
    if as_json:
        say_json([key.model_dump(mode="json", exclude={"sha256"}) for key in keys])
        return ExitCode.OK
    rows = (
        (
            one_line(key.name),
            key.id,
            key.tenant,
            " ".join(key.roles),
            _state(key, now_s),
            f"{key.rate_per_s:g}" if key.rate_per_s else "-",
            size(key.upload_bytes) if key.upload_bytes else "-",
            age(now_s - key.created_s, units=1),
        )
        for key in keys
    )
    titles = ("name", "id", "tenant", "roles", "state", "requests/s", "upload", "age")
    unless = {"requests/s": "-", "upload": "-"}
    stdout().print(list_of(titles, rows, left=5, unless=unless, named=("name",)) if keys else "no keys")
    return ExitCode.OK


@app.command()
@on_fleet
def revoke(
    name: Annotated[str, typer.Argument(help="Name or id of a key.")],
    as_json: Json = False,
    *,
    settings: "Settings",
) -> ExitCode:
    """Revoke a key.

    Gateways refuse it within moments; jobs that came with it go on.

    Example: rigflow keys api revoke website
    """
    from pipelines.api_keys import revoke_key

    return revoked(settings, revoke_key, name, "key", as_json)


def _state(key: "ApiKey", now_s: float) -> str:
    if key.revoked_s:
        return "revoked"
    return "valid" if key.valid_at(now_s) else "expired"
