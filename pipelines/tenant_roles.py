"""The account of each listed tenant at the broker: what its programs may send, and what comes to them.

An account imports the tenant's own subjects and nothing else. A reply subject that a program names stays in its
account, so that no answer of the broker becomes a message of the fleet, or of another tenant.
"""

from collections.abc import Mapping

from schemas.jobs import Priority
from schemas.subjects import Names
from schemas.tenants import Tenant

GET = "$JS.API.DIRECT.GET"
SUBSCRIPTIONS, PAYLOAD_BYTES = 1000, 8 << 20


def account_name(names: Names, tenant: str) -> str:
    """The name of a tenant's account, quoted as in a configuration."""
    return f'"{names.prefix.upper()}_TENANT_{tenant}"'


def services(names: Names, tenant: str) -> tuple[str, ...]:
    """The subjects that a tenant's programs may send to: media, requests to cancel, large media, and reading its own.

    The streams that it reads by number hold nothing of another tenant.
    """
    uploads, results, blobs = names.uploads_of(tenant), names.results_of(tenant), names.blobs_of(tenant)
    jobs = names.jobs_of(tenant)
    return (
        *(names.media(tenant, "*", priority) for priority in Priority),
        names.cancel(tenant, "*", "*"),
        f"$O.{uploads}.C.*",
        f"$O.{uploads}.M.*",
        f"{GET}.KV_{jobs}.$KV.{jobs}.{tenant}.*",
        f"{GET}.{results}",
        f"{GET}.{results}.{names.prefix}.results.{tenant}.>",
        f"{GET}.OBJ_{blobs}",
        f"{GET}.OBJ_{blobs}.$O.{blobs}.M.*",
    )


def feeds(names: Names, tenant: str) -> tuple[str, ...]:
    """What comes to the programs of a tenant: results, and answers as they are written."""
    return tuple(f"{names.prefix}.{kind}.{tenant}.>" for kind in ("results", "deltas"))


def exports(names: Names, tenants: Mapping[str, Tenant]) -> list[str]:
    """What the fleet's account gives to each tenant's, and to no other."""
    lines: list[str] = []
    for tenant in sorted(tenants):
        account = account_name(names, tenant)
        lines += [f'{{ service: "{subject}", accounts: [{account}] }}' for subject in services(names, tenant)]
        lines += [f'{{ stream: "{feed}", accounts: [{account}] }}' for feed in feeds(names, tenant)]
    return lines


def accounts(names: Names, tenants: Mapping[str, Tenant]) -> str:
    """The accounts of all tenants, as nats-server reads them."""
    return "".join(_account(names, name, tenant) for name, tenant in sorted(tenants.items()))


def _account(names: Names, name: str, tenant: Tenant) -> str:
    publish = "".join(f'          "{subject}"\n' for subject in services(names, name))
    subscribe = ", ".join(f'"{subject}"' for subject in ("_INBOX.>", *feeds(names, name)))
    allowed = (
        f"permissions: {{\n        publish: {{ allow: [\n{publish}        ] }}\n"
        f"        subscribe: {{ allow: [ {subscribe} ] }} }}"
    )
    users = "".join(f"      {{ nkey: {user}, {allowed} }}\n" for user in tenant.users)
    imported = [f'service: {{ account: {names.prefix.upper()}, subject: "{each}" }}' for each in services(names, name)]
    imported += [f'stream: {{ account: {names.prefix.upper()}, subject: "{each}" }}' for each in feeds(names, name)]
    imports = "".join(f"      {{ {each} }}\n" for each in imported)
    limits = f"max_connections: {tenant.connections}, max_subscriptions: {SUBSCRIPTIONS}, max_payload: {PAYLOAD_BYTES}"
    head = f"  {account_name(names, name)} {{\n    limits {{ {limits} }}\n"
    return f"{head}    users: [\n{users}    ]\n    imports: [\n{imports}    ]\n  }}\n"
