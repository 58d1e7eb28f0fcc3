"""The audit log: who changed what of a fleet, in a stream whose entries no client can delete.

The stream keeps the newest entries of each role, action and listed tenant: who repeats one action for ever makes no
other entry go.

An entry is stored before its change is made; a change that then fails has an entry, too. Where the stream is missing,
as in a fleet of an earlier version, changes are made without entries, and that is logged. Jobs that are submitted have
no entries: their manifests and `pipelines.usage` say as much.
"""

import getpass
import socket
from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache

from pipelines.broker import Broker
from pipelines.jetstream import Gone
from pipelines.signing import login_key
from pipelines.values import decoded, report_skipped
from schemas.audit import AuditEntry

# whose API key and tenant a gateway acts for, in the task that answers the request
acting_for: ContextVar[tuple[str, str]] = ContextVar("acting_for", default=("", ""))


@dataclass(frozen=True, slots=True)
class Audited:
    """An entry of the log, with its role, and when it was stored, in seconds since 1970."""

    number: int
    at_s: float
    role: str
    entry: AuditEntry


async def audit(broker: Broker, action: str, target: str, **facts: str) -> None:
    """Store that this process makes a change. Raises BrokerError when it may not; then do not make the change."""
    api_key, tenant = acting_for.get()
    entry = AuditEntry(
        action=action,
        target=target,
        facts=facts,
        login=login_key(broker.settings),
        machine=socket.gethostname(),
        user=_user(),
        api_key=api_key,
        tenant=tenant,
    )
    role = broker.settings.inbox.removeprefix("_INBOX").strip("_") or "any"
    subject = broker.names.audit(role, action, tenant or facts.get("tenant", ""))
    try:
        await broker.publish(subject, entry.model_dump_json(exclude_defaults=True).encode(), broker.connection.unique())
    except Gone:
        report_skipped("the audit log", f"there is no stream {broker.names.audit_stream}: run `rigflow topology apply`")


async def read_audit(broker: Broker) -> AsyncIterator[Audited]:
    """All entries, oldest first. Those that cannot be read are reported."""
    async for stored in broker.read(broker.names.audit_stream):
        entry = decoded(AuditEntry, stored.body, f"entry {stored.sequence} of the audit log")
        if entry is not None:
            role, action = stored.subject.split(".")[2:4]
            yield Audited(stored.sequence, stored.stored_s, role, entry.model_copy(update={"action": action}))


@cache
def _user() -> str:
    """The user of this process; "" where the system has no name for it, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
