"""`rigflow tenants`: who shares the fleet, in which shares, and the accounts of the broker that keep them apart."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from cli.answers import answers
from cli.help import Commands
from cli.interrupts import run_async
from cli.options import Json, on_fleet
from cli.text import one_line, say_json, stdout, warn
from cli.topology import line
from schemas.errors import ExitCode, NotFound, UsageError
from schemas.text import shell_word, size

if TYPE_CHECKING:
    from cli.tables import Rows
    from pipelines.tenant_admin import TenantState
    from pipelines.topology import Change
    from schemas.settings import Settings
    from schemas.tenants import Tenant, TenantsFile

app = Commands(
    name="tenants",
    help="Tenants of the fleet: their accounts, shares and limits.\n\nExample: rigflow tenants add acme --weight 3",
)

NameOf: TypeAlias = Annotated[str, typer.Argument(help="The tenant, as in rigflow.media.NAME.PIPELINE.")]
FileOf: TypeAlias = Annotated[
    Path, typer.Option("--file", help="The operator's file of tenants; docs/tenants.md.", metavar="FILE")
]
User: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--user", help="Public key of one of its programs, by `rigflow keys nats`; repeat it.", metavar="KEY"),
]
Weight: TypeAlias = Annotated[
    float | None,
    typer.Option(help="Its share of the fleet beside the weights of others. A new tenant has 1.", metavar="N"),
]
Jobs: TypeAlias = Annotated[
    int | None, typer.Option(help="Most media that wait in one pipeline. A new tenant has 10,000.", metavar="N")
]
Queued: TypeAlias = Annotated[
    int | None, typer.Option(help="Most bytes of them. A new tenant has 268,435,456.", metavar="BYTES")
]
Storage: TypeAlias = Annotated[
    int | None,
    typer.Option(help="Most bytes of results, and of large bodies. A new tenant has 1,073,741,824.", metavar="BYTES"),
]
Connections: TypeAlias = Annotated[
    int | None, typer.Option(help="Most connections of its programs. A new tenant has 64.", metavar="N")
]
DeviceS: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--device-s-a-day",
        help="Most seconds of devices a day, of UTC; 0: no limit, as a new tenant has.",
        metavar="SECONDS",
    ),
]
FILE = Path("tenants.toml")


ADD = """Add a tenant: its streams, its place in every queue, and an account of the broker for its programs.

The accounts are written for nats-server, which reads them again if the file names its process.

Example: rigflow tenants add acme --weight 3 --user UAC...
"""
LIMIT = """Change limits, the weight or the keys of a tenant; what is not named stays.

Keys that are named replace all that it had: programs with another one are disconnected.

Example: rigflow tenants limit acme --weight 1 --storage-bytes 4000000000
"""


def _command(text: str, new: bool) -> Callable[..., None]:
    """The command that adds a tenant, or the one that changes it: both take the same options."""

    def change(
        name: NameOf,
        user: User = None,
        weight: Weight = None,
        jobs: Jobs = None,
        queued_bytes: Queued = None,
        storage_bytes: Storage = None,
        connections: Connections = None,
        device_s_a_day: DeviceS = None,
        file: FileOf = FILE,
        as_json: Json = False,
        *,
        settings: "Settings",
    ) -> ExitCode:
        from pipelines.accounts import locked

        sizes = {"jobs": jobs, "queued_bytes": queued_bytes, "storage_bytes": storage_bytes, "connections": connections}
        limits = {"users": user, "weight": weight, "device_s_a_day": device_s_a_day, **sizes}
        with locked(file):
            return _change(settings, file, name, limits, new=new, as_json=as_json)

    change.__doc__ = text
    return on_fleet(change)


app.command("add")(_command(ADD, new=True))
app.command("limit")(_command(LIMIT, new=False))


@app.command()
@on_fleet
def remove(
    name: NameOf,
    drop: Annotated[
        bool, typer.Option("--drop", help="Also while it has work that is not done, or dead letters.")
    ] = False,
    file: FileOf = FILE,
    as_json: Json = False,
    *,
    settings: "Settings",
) -> ExitCode:
    """Remove a tenant with its account, its media, its results and its dead letters.

    Example: rigflow tenants remove acme
    """
    from pipelines.accounts import check_accounts, locked, read_tenants
    from pipelines.broker import Broker
    from pipelines.local_access import is_ours
    from pipelines.tenant_admin import check_removable, delete_tenant, is_known, unlist_tenant

    async def removed() -> "tuple[list[Change], str]":
        known = read_tenants(file)
        rest = known.model_copy(update={"tenant": {each: of for each, of in known.tenant.items() if each != name}})
        async with Broker.connected(settings, name="rigflow-tenants") as broker:
            if not is_ours(settings) and not file.exists():  # another one has its account
                raise NotFound(f"{file}: no such file", "name the operator's file of tenants with --file")
            if not await is_known(broker, name):  # the file has lost one whose removal was interrupted
                _known(known, name, file)
            if not drop:
                await check_removable(broker, name)
            if not is_ours(settings):
                check_accounts(file, rest, settings)
            await unlist_tenant(broker, name)
            left = await _write(settings, file, rest, own_jobs=broker.names.own_jobs)
            return await delete_tenant(broker, settings, name), left

    with locked(file):
        refused, left = run_async(removed())
    with answers(as_json) as answer:
        answer(f"tenant {name} is removed", tenant=name, removed=True)
    return _report(refused, left)


@app.command("list")
@on_fleet
def list_(file: FileOf = FILE, as_json: Json = False, *, settings: "Settings") -> ExitCode:
    """List the tenants: their weights, and what they have at the broker beside what they may.

    Example: rigflow tenants list
    """
    from pipelines.broker import Broker
    from pipelines.tenant_admin import state_of

    async def found() -> "tuple[Mapping[str, Tenant], Mapping[str, TenantState]]":
        async with Broker.connected(settings, name="rigflow-tenants") as broker:
            return broker.tenants, await state_of(broker, list(broker.tenants))

    tenants, states = run_async(found())
    if as_json:
        say_json([_facts(name, tenant, states[name]) for name, tenant in sorted(tenants.items())])
        return ExitCode.OK
    none = "no tenants: all jobs are of one, main; `rigflow tenants add NAME` adds one"
    stdout().print(_table(tenants, states) if tenants else none)
    return ExitCode.OK


def _table(tenants: "Mapping[str, Tenant]", states: "Mapping[str, TenantState]") -> "Rows":
    from cli.tables import list_of

    titles = ("tenant", "weight", "keys", "media waiting", "of", "messages", "stored", "of", "device s today", "of")
    rows = (
        (
            one_line(name),
            f"{tenant.weight:g}",
            f"{len(tenant.users):,}",
            f"{states[name].media:,} ({size(states[name].media_bytes)})",
            f"{tenant.jobs:,} ({size(tenant.queued_bytes)})",
            f"{states[name].queued:,}",
            size(states[name].stored_bytes),
            f"2 x {size(tenant.storage_bytes)}",  # of results, and of large bodies
            f"{states[name].used_s:,.0f}",
            f"{tenant.device_s_a_day:,.0f}" if tenant.device_s_a_day else "no limit",
        )
        for name, tenant in sorted(tenants.items())
    )
    return list_of(titles, rows, left=1, named=("tenant",))


def _facts(name: str, tenant: "Tenant", state: "TenantState") -> dict[str, Any]:
    facts = {"media": state.media, "media_bytes": state.media_bytes, "queued": state.queued, "used_s": state.used_s}
    return {"tenant": name, **tenant.model_dump(mode="json"), **facts, "stored_bytes": state.stored_bytes}


def _known(file: "TenantsFile", name: str, path: Path) -> "Tenant":
    if name not in file.tenant:
        there, adds = ", ".join(sorted(file.tenant)), f"`rigflow tenants add {shell_word(name)}` adds it"
        raise NotFound(f"{path} has no tenant {name[:100]!a}", f"it has {there}" if there else adds)
    return file.tenant[name]


def _change(
    settings: "Settings", path: Path, name: str, limits: Mapping[str, Any], new: bool, as_json: bool
) -> ExitCode:
    """Write one tenant: first its streams, where its account may send; then the accounts, which let workers take its
    work; then the list, by which workers learn of it.
    """
    from pipelines.accounts import check_accounts, read_tenants
    from pipelines.broker import Broker
    from pipelines.local_access import is_ours
    from pipelines.tenant_admin import list_tenants, prepare_tenants
    from pipelines.tenants import list_number
    from schemas.declared import TOKEN_HINT, is_token
    from schemas.tenants import Tenant, TenantsFile, checked, tenant_with

    if not is_token(name):
        raise UsageError(f"tenant {name[:100]!a}", TOKEN_HINT)
    known = read_tenants(path)
    if new and name in known.tenant:
        raise UsageError(f"{path} has tenant {name} already", f"`rigflow tenants limit {name}` changes it")
    if limits["users"] and is_ours(settings):
        what = "the broker of `rigflow up` has no accounts, which the keys of --user would be for"
        hint = "leave --user out, for a tenant of the gateway alone, or use a broker of yours: docs/tenants.md"
        raise UsageError(what, hint)
    before, is_new_file = Tenant() if new else _known(known, name, path), not path.exists()
    tenants = {**known.tenant, name: tenant_with(before, f"tenant {name}", **limits)}
    file = checked(TenantsFile.model_validate(known.model_dump() | {"tenant": tenants}), str(path))

    async def changed() -> "tuple[list[Change], str]":
        async with Broker.connected(settings, name="rigflow-tenants") as broker:
            if not is_ours(settings):
                check_accounts(path, file, settings)
            number = await list_number(broker)
            refused = await prepare_tenants(broker, settings, file.tenant)
            left = await _write(settings, path, file, name if new else "")
            await list_tenants(broker, file.tenant, number)
            return refused, left

    refused, left = run_async(changed())
    with answers(as_json) as answer:
        text = f"tenant {name} {'is added' if new else 'is changed'}: weight {tenants[name].weight:g}"
        answer(text, tenant=name, **tenants[name].model_dump(mode="json"))
    return _report(refused, f"{path} was not there: it is new" if is_new_file else "", left)


async def _write(settings: "Settings", path: Path, file: "TenantsFile", added: str = "", own_jobs: bool = True) -> str:
    """Write the files; what there is left to do by hand, for the end of the command."""
    from pipelines.accounts import write_list, write_tenants
    from pipelines.local_access import is_ours

    if is_ours(settings):
        write_list(path, file)
        return (
            f"its programs need a key of the gateway: `rigflow keys api add NAME --tenant {added}` makes one"
            if added
            else ""
        )
    if await write_tenants(path, file, settings, added, own_jobs):
        return ""
    accounts = path.parent / file.broker.accounts
    again = "twice: only then does it connect the imports of a new account" if added else "by --signal reload=PID"
    return f"the accounts are in {accounts}: include them from nats-server's configuration, and have it reload {again}"


def _report(refused: "list[Change]", *notes: str) -> ExitCode:
    for text in filter(None, (*notes, *map(line, refused))):
        warn(text)
    return ExitCode.SOME_FAILED if refused else ExitCode.OK
