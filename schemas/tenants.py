"""Tenants: who shares a fleet, how much of it each gets, and what it may keep there."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from schemas.declared import Name, Spec, parse_spec
from schemas.errors import UsageError, format_field_error

LISTED = "listed"  # the one key of the bucket of tenants: all of them change at once
MAIN = "main"  # the tenant of all that name none; it needs no entry
SEE = "docs/tenants.md has an example"


def _user(text: str) -> str:
    if not (len(text) == 56 and text.startswith("U") and text.isalnum() and text == text.upper()):
        raise ValueError("takes the public key of `rigflow keys nats`, 56 characters that begin with U")
    return text


User: TypeAlias = Annotated[str, AfterValidator(_user)]


class Tenant(Spec):
    """One tenant. `users` are the public keys of its programs; a tenant of the gateway alone needs none.

    Limits: `jobs` that wait for their turn in one pipeline, `queued_bytes` of their media, `storage_bytes` of results
    and as much again of bodies that are larger than a message, `connections` of its programs, and `device_s_a_day`
    seconds of devices a day (UTC; 0: no limit).
    """

    users: tuple[User, ...] = ()
    weight: FiniteFloat = Field(default=1.0, ge=0.01, le=1000)
    jobs: int = Field(default=10_000, ge=1, le=1_000_000)
    queued_bytes: int = Field(default=256 << 20, ge=1 << 20, le=1 << 44)
    storage_bytes: int = Field(default=1 << 30, ge=16 << 20, le=1 << 44)
    connections: int = Field(default=64, ge=1, le=100_000)
    device_s_a_day: FiniteFloat = Field(default=0.0, ge=0, le=1e9)


class BrokerFiles(Spec):
    """The files of the operator's nats-server: `accounts` is written, `config` includes it, `pid_file` has its process.

    Paths are relative to the file that they stand in. Without `pid_file` the server gets no signal to reload.
    """

    accounts: str = "accounts.conf"
    config: str = ""
    pid_file: str = ""


class BrokerRole(StrEnum):
    """A role of the fleet's own users at the broker; `pipelines.roles` says what each may do."""

    OPERATOR = "operator"
    WORKER = "worker"
    PUBLISHER = "publisher"
    GATEWAY = "gateway"
    CLIENT = "client"
    JOIN = "join"


class TenantsFile(Spec):
    """The operator's file of tenants. `roles`: public keys of the fleet's own; others come from NKEY_... as before."""

    broker: BrokerFiles = BrokerFiles()
    roles: Mapping[BrokerRole, User] = {}
    tenant: Mapping[Name, Tenant] = {}


class TenantList(BaseModel):
    """The tenants as the broker has them, for workers, gateways and publishers.

    `own_jobs`: each has a bucket of jobs. A list that an earlier version stored lacks it: they share one.
    `removed`: those that were removed and not added again. Their API keys are refused, also where no tenant is left.
    """

    model_config = ConfigDict(frozen=True)
    tenants: Mapping[Name, Tenant] = {}
    own_jobs: bool = False
    removed: frozenset[Name] = frozenset()

    def refuses(self, tenant: str) -> bool:
        """Whether a tenant may send nothing: it was removed, or there is a list, and the tenant is not in it."""
        return tenant in self.removed or bool(self.tenants and tenant not in (MAIN, *self.tenants))


def parse_tenants(text: str, source: str) -> TenantsFile:
    """The tenants of a file; `source` names it in errors. Raises UsageError, by field."""
    return checked(parse_spec(TenantsFile, text, source, SEE), source)


def checked(file: TenantsFile, source: str) -> TenantsFile:
    """The same file. Raises UsageError when two of its tenants cannot both be."""
    if MAIN in file.tenant:
        raise UsageError(f"{source}: {MAIN} is the tenant of all that name none", "choose another name")
    owners: dict[str, str] = {}
    for name, tenant in file.tenant.items():
        for user in tenant.users:
            if owners.setdefault(user, name) != name:
                raise UsageError(
                    f"{source}: {owners[user]} and {name} have the same user {user}", "make a key for each"
                )
    return file


def tenant_with(known: Tenant, source: str, **changes: object) -> Tenant:
    """A tenant with other limits; those that are None stay. Raises UsageError, by field."""
    try:
        given = {name: value for name, value in changes.items() if value is not None}
        return Tenant.model_validate(known.model_dump() | given)
    except ValidationError as error:
        raise UsageError(f"{source}, {format_field_error(error.errors()[0])}", SEE) from error


def written(file: TenantsFile) -> str:
    """The file as TOML: what differs from the defaults."""
    lines = ["# The tenants of this fleet: `rigflow tenants` reads and writes it; docs/tenants.md", ""]
    tables: dict[str, Mapping[str, object]] = {"broker": file.broker.model_dump(exclude_defaults=True)}
    tables |= {"roles": {str(role): key for role, key in file.roles.items()}} if file.roles else {}
    tables |= {f"tenant.{name}": each.model_dump(exclude_defaults=True) for name, each in sorted(file.tenant.items())}
    for title, table in tables.items():
        lines.append(f"[{title}]")
        lines += [f"{name} = {_toml(value)}" for name, value in table.items()]
        lines.append("")
    return "\n".join(lines)


def _toml(value: object) -> str:
    if isinstance(value, str):
        return '"' + "".join(f"\\u{ord(c):04x}" if c in '\\"\x7f' or c < " " else c for c in value) + '"'
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value)
