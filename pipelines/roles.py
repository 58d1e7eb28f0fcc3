"""The permissions of each role at the broker: nats-server's accounts for one prefix and one tenant.

Operator, worker, publisher and gateway share the fleet's account. Clients have an account of their own, because
permissions do not cover the reply of a message: in one account the broker would publish its acknowledgement on whatever
subject a client names as the reply, the broker's own API included. Between accounts a reply stays in the account that
it came from. Tenants that the operator has listed have an account each (`pipelines.tenant_roles`).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from pipelines.tenant_roles import accounts, feeds
from pipelines.tenant_roles import exports as tenant_exports
from schemas.jobs import Priority
from schemas.subjects import Names
from schemas.tenants import BrokerRole, TenantsFile

API = "$JS.API"
LOOK = ("STREAM.NAMES", "STREAM.LIST", "STREAM.INFO.*", "CONSUMER.LIST.*", "CONSUMER.INFO.*.*")  # names and counts


@dataclass(frozen=True, slots=True)
class Role:
    """Subjects that a role may publish and subscribe to; its inbox is among them."""

    name: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _OfTenants:
    """What all tenants together have: those that share (""), then the listed ones."""

    tenants: tuple[str, ...]
    work: tuple[str, ...]  # subjects of queues
    dead: tuple[str, ...]  # subjects of dead letters
    letters: tuple[str, ...]  # streams of them
    results: tuple[str, ...]  # streams
    blobs: tuple[str, ...]  # object stores of claim checks
    stores: tuple[str, ...]  # streams of all object stores


def _of_tenants(names: Names) -> _OfTenants:
    tenants = ("", *sorted(names.tenants))
    work, blobs = f"{names.prefix}.work.*.*.*", tuple(map(names.blobs_of, tenants))
    stores = dict.fromkeys(f"OBJ_{bucket}" for bucket in (*blobs, *map(names.uploads_of, tenants)))
    dead = names.dead("*", "*")
    queues, letters = ((each, f"{each}.*") if names.tenants else (each,) for each in (work, dead))
    results, dead_of = (tuple(map(of, tenants)) for of in (names.results_of, names.dead_of))
    return _OfTenants(tenants, queues, letters, dead_of, results, blobs, tuple(stores))


def worker(names: Names) -> Role:
    """Takes work and hands it on, collects, shares engines, sweeps; makes and deletes no stream."""
    prefix, own = names.prefix, _of_tenants(names)
    models, engines = (f"OBJ_{bucket}" for bucket in (names.models, names.engines))
    buckets = (names.pipelines, *names.all_jobs, names.attempts, names.profiles, names.rigs, names.tenants_bucket)
    read = (*own.results, names.usage_stream, *(f"KV_{bucket}" for bucket in buckets), *own.stores, models, engines)
    consumers = (names.consumer(priority, tenant) for tenant in own.tenants for priority in Priority)
    return Role(
        "worker",
        publish=(
            *own.work,
            f"{prefix}.results.>",  # a refused id may have any number of tokens
            f"{prefix}.deltas.*.*.*",
            *own.dead,
            f"{prefix}.usage.*.*.*.*.*",
            *_audit(names, "worker"),
            *_keys(names.rigs, ">"),
            *_keys(names.profiles, "*", "model.*.*", "choice.*", "card.*", "canary.*.*"),
            *_keys(names.last_seen, "*.*"),
            *(key for jobs in names.all_jobs for key in _keys(jobs, "*.*", "cancelled.*.*")),
            *_keys(names.attempts, ">"),
            *(f"$O.{bucket}.>" for bucket in own.blobs),
            f"$O.{names.engines}.>",
            "$JS.ACK.>",
            *_api(LOOK),
            *_api(f"CONSUMER.MSG.NEXT.*.{consumer}" for consumer in consumers),
            *_reading(
                read,
                followed=(
                    *own.results,
                    f"KV_{names.pipelines}",
                    *(f"KV_{jobs}" for jobs in names.all_jobs),
                    f"KV_{names.rigs}",
                    f"KV_{names.tenants_bucket}",
                    names.usage_stream,
                ),
            ),
            *_api(f"STREAM.PURGE.{stream}" for stream in (*own.results, *own.stores, engines, f"KV_{names.attempts}")),
            *_api(f"STREAM.MSG.DELETE.{stream}" for stream in own.results),
        ),
        subscribe=("_INBOX_worker.>",),
    )


def publisher(names: Names, tenant: str) -> Role:
    """Publishes jobs of one tenant and collects them; sees the fleet's counts, takes no work."""
    prefix, results = names.prefix, names.results_stream
    blobs, models = f"OBJ_{names.blobs}", f"OBJ_{names.models}"
    buckets = (names.pipelines, names.jobs, names.rigs, names.last_seen, names.profiles, names.tenants_bucket)
    read = (results, names.usage_stream, *(f"KV_{bucket}" for bucket in buckets), blobs, models)
    return Role(
        "publisher",
        publish=(
            *(names.media(tenant, "*", priority) for priority in Priority),
            names.cancel(tenant, "*", "*"),
            f"{prefix}.work.*.*.*",
            f"{prefix}.results.{tenant}.*.*",
            f"{prefix}.usage.{tenant}.*.*.*.*",
            names.audit("publisher", "*"),
            *_keys(names.jobs, f"{tenant}.*", f"cancelled.{tenant}.*", f"upload.{tenant}.*"),
            *_keys(names.pipelines, ">"),
            f"$O.{names.blobs}.>",
            f"$O.{names.models}.>",
            f"$JS.ACK.{results}.>",  # its readers need no acks; what arrives while one closes is handed back
            *_api(("INFO", *LOOK)),
            *_reading(read, followed=(results, f"KV_{names.jobs}")),
            *_api(f"STREAM.PURGE.{stream}" for stream in (results, blobs)),
            *_api(f"STREAM.MSG.DELETE.{stream}" for stream in (results, blobs)),
        ),
        subscribe=("_INBOX_publisher.>", *feeds(names, tenant)),
    )


def gateway(names: Names) -> Role:
    """Serves the fleet by HTTP: jobs of all tenants, models, dead letters, orders; reads API keys, and writes none."""
    prefix, own = names.prefix, _of_tenants(names)
    models, engines = (f"OBJ_{bucket}" for bucket in (names.models, names.engines))
    kept = (names.pipelines, names.rigs, names.last_seen, names.keys, names.profiles, names.tenants_bucket)
    buckets = [f"KV_{each}" for each in (*names.all_jobs, *kept)]
    read = (*own.results, *own.letters, names.usage_stream, *buckets, *own.stores, models, engines)
    return Role(
        "gateway",
        publish=(
            *(names.media("*", "*", priority) for priority in Priority),
            *own.work,
            f"{prefix}.results.*.*.*",
            f"{prefix}.usage.*.*.*.*.*",
            *_audit(names, "gateway"),
            *(key for jobs in names.all_jobs for key in _keys(jobs, "*.*", "cancelled.*.*", "upload.*.*")),
            *_keys(names.pipelines, ">"),
            *(f"$O.{store.removeprefix('OBJ_')}.>" for store in own.stores),
            f"$O.{names.models}.>",
            *(f"$JS.ACK.{stream}.>" for stream in own.results),
            *_api(("INFO", *LOOK)),
            *_reading(
                read,
                followed=(
                    *own.results,
                    *(f"KV_{bucket}" for bucket in (*names.all_jobs, names.keys, names.tenants_bucket)),
                ),
            ),
            *_api(f"STREAM.PURGE.{stream}" for stream in (*own.results, *own.stores, models)),
            *_api(f"STREAM.MSG.DELETE.{stream}" for stream in (*own.results, *own.letters)),
        ),
        subscribe=("_INBOX_gateway.>", *feeds(names, "*")),
    )


def client(names: Names, tenant: str) -> Role:
    """A program that speaks plain NATS: media in, results and progress out, and requests to cancel a job.

    It can write nothing else, not even by a reply.
    """
    return Role(
        "client",
        publish=_client_services(names, tenant),
        subscribe=("_INBOX_client.>", *feeds(names, tenant)),
    )


def _client_services(names: Names, tenant: str) -> tuple[str, ...]:
    gets = f"{API}.DIRECT.GET"
    return (
        *(names.media(tenant, "*", priority) for priority in Priority),
        names.cancel(tenant, "*", "*"),
        f"{gets}.KV_{names.jobs}.$KV.{names.jobs}.{tenant}.*",
        f"{gets}.{names.results_stream}",
        f"{gets}.{names.results_stream}.{names.prefix}.results.{tenant}.>",
        f"{gets}.OBJ_{names.blobs}",
        f"{gets}.OBJ_{names.blobs}.$O.{names.blobs}.M.*",
    )


def join(names: Names) -> Role:
    """A machine that is to become a rig: reads its join token, and marks it as used.

    Permissions know no ids: whoever knows an id can read and overwrite its record. Nobody can guess one, or have the
    broker list them (`pipelines.join_tokens`), and a record is encrypted. It can write into no other bucket.
    """
    return Role("join", publish=_join_services(names), subscribe=("_INBOX_join.>",))


def _join_services(names: Names) -> tuple[str, ...]:
    token = f"$KV.{names.join_tokens}.*"
    return (f"{API}.DIRECT.GET.KV_{names.join_tokens}.{token}", token)


def _audit(names: Names, role: str) -> Iterable[str]:
    """The subjects of the audit log on which a role says what it did, and what each tenant asked it for."""
    return (names.audit(role, "*", tenant) for tenant in ("", *sorted(names.tenants)))


def _keys(bucket: str, *patterns: str) -> Iterable[str]:
    return (f"$KV.{bucket}.{pattern}" for pattern in patterns)


def _api(actions: Iterable[str]) -> Iterable[str]:
    return (f"{API}.{action}" for action in actions)


def _reading(streams: Iterable[str], followed: Iterable[str]) -> Iterable[str]:
    """The requests to read streams by number and by subject, and to follow those in `followed`."""
    readers = (f"CONSUMER.{action}.{stream}.>" for stream in followed for action in ("CREATE", "DELETE", "MSG.NEXT"))
    gets = (f"{action}.{stream}" for stream in streams for action in ("DIRECT.GET", "STREAM.MSG.GET"))
    return _api((*readers, *gets))


HEAD = """\
# Permissions of each role: include it from single.conf or cluster.conf. Made by `rigflow topology roles` for the
# prefix "{prefix}" and the tenant "{tenant}"; docs/operations.md describes the roles.
#
# Users are nkeys. Their public keys come from the environment, so that this file holds no secret:
#   NKEY_OPERATOR, NKEY_WORKER, NKEY_PUBLISHER, NKEY_GATEWAY, NKEY_CLIENT, NKEY_JOIN
# A role's own inbox (the setting `inbox`) keeps it from reading the answers to other roles.
"""


def configuration(names: Names, tenant: str, tenants: TenantsFile | None = None) -> str:
    """The roles as a file that nats-server includes, with an account for each of `tenants`, which `names` lists."""
    tenants = tenants or TenantsFile()
    keys = {role.value: f"$NKEY_{role.name}" for role in BrokerRole}
    keys |= {str(role): key for role, key in tenants.roles.items()}
    upper = names.prefix.upper()
    fleet, clients, joining = upper, f"{upper}_CLIENTS", f"{upper}_JOIN"
    services, fed = _client_services(names, tenant), feeds(names, tenant)
    exports = [f'{{ service: "{subject}", accounts: [{clients}] }}' for subject in services]
    imports = [f'{{ service: {{ account: {fleet}, subject: "{subject}" }} }}' for subject in services]
    exports += [f'{{ stream: "{feed}", accounts: [{clients}] }}' for feed in fed]
    imports += [f'{{ stream: {{ account: {fleet}, subject: "{feed}" }} }}' for feed in fed]
    tokens = _join_services(names)
    exports += [f'{{ service: "{subject}", accounts: [{joining}] }}' for subject in tokens]
    of_join = [f'{{ service: {{ account: {fleet}, subject: "{subject}" }} }}' for subject in tokens]
    operator = f'{{ nkey: {keys["operator"]}, permissions: {{ publish: ">", subscribe: ">" }} }}'
    roles = (worker(names), publisher(names, tenant), gateway(names))
    users = [operator, *(_user(role, keys[role.name]) for role in roles)]
    programs = [_user(client(names, tenant), keys["client"])]
    return (
        HEAD.format(prefix=names.prefix, tenant=tenant)
        + "\naccounts {\n"
        + _account(fleet, "jetstream: enabled", users, "exports", exports + tenant_exports(names, tenants.tenant))
        + _account(clients, "", programs, "imports", imports)
        + _account(joining, "", [_user(join(names), keys["join"])], "imports", of_join)
        + accounts(names, tenants.tenant)
        + "}\n"
    )


def _account(name: str, first: str, users: list[str], kind: str, shared: list[str]) -> str:
    lines = [f"  {name} {{", f"    {first}", "    users: [", *(f"      {user}" for user in users), "    ]"]
    lines += [f"    {kind}: [", *(f"      {each}" for each in shared), "    ]", "  }"]
    return "".join(f"{line}\n" for line in lines if line.strip())


def _user(role: Role, key: str) -> str:
    publish = "".join(f'          "{subject}"\n' for subject in role.publish)
    subscribe = " ".join(f'"{subject}"' for subject in role.subscribe).replace('" "', '", "')
    return (
        f"{{ nkey: {key}, permissions: {{\n"
        f"        publish: {{ allow: [\n{publish}        ] }}\n"
        f"        subscribe: {{ allow: [ {subscribe} ] }} }} }}"
    )
