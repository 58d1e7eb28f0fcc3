"""API keys in a bucket of the broker: made, revoked, and checked by every gateway without a request."""

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Sequence

from pipelines.audit import audit
from pipelines.broker import Broker
from pipelines.follow import follow_bucket
from pipelines.topology import ensure_topology
from pipelines.values import decoded
from schemas.api_keys import ApiKey
from schemas.api_roles import ApiRole
from schemas.declared import TOKEN_HINT, is_token
from schemas.errors import UsageError

PREFIX = "rf"


async def make_key(
    broker: Broker,
    name: str,
    tenant: str,
    roles: Sequence[ApiRole],
    rate_per_s: float = 0.0,
    upload_bytes: int = 0,
    expires_s: float = 0.0,
) -> tuple[ApiKey, str]:
    """Make a key; returned with its text `rf_ID_SECRET`, which is stored nowhere. Raises UsageError."""
    if broker.listed.refuses(tenant):
        raise UsageError(
            f"the fleet has no tenant {tenant[:100]!a}",
            "`rigflow tenants add NAME` adds one, `rigflow tenants list` shows them",
        )
    if not is_token(name):
        raise UsageError(f"API key {name[:100]!a}", TOKEN_HINT)
    if any(known.name == name and not known.revoked_s for known in await all_keys(broker)):
        raise UsageError(f"there is an API key {name}", "choose another name, or revoke that one first")
    identity, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    key = ApiKey(
        id=identity,
        name=name,
        sha256=hashlib.sha256(secret.encode()).hexdigest(),
        tenant=tenant,
        roles=tuple(roles),
        rate_per_s=rate_per_s,
        upload_bytes=upload_bytes,
        created_s=broker.now_s(),
        expires_s=expires_s,
    )
    await ensure_topology(broker, broker.settings, [])  # the fleet may be new
    await audit(broker, "api-key-made", name, id=identity, tenant=tenant, roles=",".join(key.roles))
    await broker.put(broker.names.keys, identity, key.model_dump_json().encode())
    return key, f"{PREFIX}_{identity}_{secret}"


async def all_keys(broker: Broker) -> list[ApiKey]:
    """All keys, oldest first, those that were revoked as well."""
    found = await broker.items(broker.names.keys, "*")
    keys = (decoded(ApiKey, body, f"the API key {identity}") for identity, body in found.items())
    return sorted((key for key in keys if key is not None), key=lambda key: key.created_s)


async def revoke_key(broker: Broker, name: str) -> ApiKey:
    """Revoke a key by its name or id. Gateways refuse it within moments. Raises UsageError."""
    known = [key for key in await all_keys(broker) if name in (key.name, key.id)]
    valid = [key for key in known if not key.revoked_s]
    if not valid:
        what = f"the API key {name} is revoked already" if known else f"there is no API key {name}"
        raise UsageError(what, "`rigflow keys api list` shows them")
    revoked = valid[-1].model_copy(update={"revoked_s": broker.now_s()})
    await audit(broker, "api-key-revoked", revoked.name, id=revoked.id)
    await broker.put(broker.names.keys, revoked.id, revoked.model_dump_json().encode())
    return revoked


class ApiKeys:
    """The keys of the fleet, as they are now: run `follow` in a task."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._keys: dict[str, ApiKey] = {}
        self.read = asyncio.Event()  # set once the keys that there were at the beginning are here

    async def follow(self) -> None:
        """Read all keys, then every change, until cancelled."""
        async for identity, body in follow_bucket(self._broker, self._broker.names.keys, "*", current=self.read):
            key = decoded(ApiKey, body, f"the API key {identity}")
            if key is not None and key.id == identity:
                self._keys[identity] = key

    def now_s(self) -> float:
        """Seconds since 1970 by the broker's clock, which all gateways share."""
        return self._broker.now_s()

    def get(self, identity: str) -> ApiKey | None:
        """The key with this id, if it may be used now."""
        key = self._keys.get(identity)
        return key if key is not None and key.valid_at(self.now_s()) else None

    def lacks_tenant(self, key: ApiKey) -> bool:
        """Whether the fleet does not have the tenant of a key, or not any more: the key may do nothing then."""
        return self._broker.listed.refuses(key.tenant)

    def check(self, text: str) -> ApiKey | None:
        """The key of this text, if it may be used now. Takes as long for a wrong secret as for a right one."""
        prefix, _, rest = text.partition("_")
        identity, _, secret = rest.partition("_")
        key = self.get(identity)
        given = hashlib.sha256(secret.encode(errors="replace")).hexdigest()
        same = hmac.compare_digest(given, key.sha256 if key is not None else "")
        return key if key is not None and same and prefix == PREFIX else None
