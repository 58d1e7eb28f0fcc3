"""Join tokens in a bucket of their own: made and revoked by an operator, used once by a new machine.

The broker has what the machine gets, encrypted; the key is in the token alone. So the connection over which a machine
fetches it need not be trusted yet, and a reader of the bucket learns no seed. A token is used by a write that succeeds
only if there was no other write since: of two machines with one token, one gets in. When a token expires, the broker
deletes its record.

All machines that join have the same permissions, for records of any id, and nobody can guess an id. But the broker also
takes `*` for an id: it reads the newest record then. So a record of nothing follows each write of a token's. Between
the two, a moment, the newest record is that of the token.
"""

import base64
import binascii
import hashlib
import json
import math
import secrets
import socket
import tempfile
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import nacl.exceptions
import nacl.secret
import nkeys

from pipelines.answers import PLACE, headers_of
from pipelines.audit import audit
from pipelines.broker import EXPECTED, ApiError, Broker
from pipelines.connection import Connection
from pipelines.inbox import NoResponders
from pipelines.local_access import is_ours, write_private
from pipelines.login import URL_FROM, Refused
from pipelines.topology import ensure_topology
from pipelines.values import decoded
from schemas.declared import TOKEN_HINT, is_token
from schemas.errors import BrokerError, UsageError
from schemas.join_tokens import JoinToken, RigAccess
from schemas.settings import Settings
from schemas.subjects import Names
from schemas.text import without_passwords

TOKEN_PREFIX = "rfj_"
ANOTHER = "make another: `rigflow keys join add NAME`"
MOST_TTL_S = 365 * 86400  # the longest that `--hours` takes
NO_TTL = 10166  # JetStream's own error number: messages of the stream do not expire one by one
NOTHING = "nothing"  # the key of the record of nothing
_SEED_BYTES = 32


@dataclass(frozen=True, slots=True)
class TokenText:
    """What a token's text holds: the key of its box, and the seed of the role `join`, if the broker has roles."""

    key: bytes
    join_seed: bytes = b""

    @property
    def id(self) -> str:
        """The token's id at the broker, from which the key cannot be computed."""
        return hashlib.sha256(b"rigflow join" + self.key).hexdigest()[:32]

    def __str__(self) -> str:
        given = self.key + self.join_seed
        checked = given + zlib.crc32(given).to_bytes(4, "big")
        return TOKEN_PREFIX + base64.urlsafe_b64encode(checked).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> "TokenText":
        """Raises UsageError for a text that is no token, or not all of it."""
        body = text.strip().removeprefix(TOKEN_PREFIX)
        try:
            raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        given, check = raw[:-4], raw[-4:]
        if len(given) not in (32, 32 + _SEED_BYTES) or zlib.crc32(given).to_bytes(4, "big") != check:
            raise UsageError("--token is no join token", f"copy all of it; it begins with {TOKEN_PREFIX}")
        return cls(given[:32], given[32:])


async def make_token(broker: Broker, name: str, access: RigAccess, join_seed: bytes, expires_s: float) -> TokenText:
    """Store a token; only the returned text opens it. `join_seed`: that of the role join, if any. Raises UsageError."""
    if not is_token(name):
        raise UsageError(f"join token {name[:100]!a}", TOKEN_HINT)
    now_s = broker.now_s()
    if any(known.name == name and not known.why_not(now_s) for known in await all_tokens(broker)):
        raise UsageError(f"there is a join token {name}", "choose another name, or revoke that one first")
    text = TokenText(secrets.token_bytes(32), nkeys.decode_seed(join_seed)[1] if join_seed else b"")
    box = base64.b64encode(nacl.secret.SecretBox(text.key).encrypt(access.model_dump_json().encode())).decode()
    token = JoinToken(id=text.id, name=name, box=box, created_s=now_s, expires_s=expires_s)
    await ensure_topology(broker, broker.settings, [])  # the fleet may be new
    bucket, ttl_s = broker.names.join_tokens, max(1, math.ceil(min(expires_s - now_s, MOST_TTL_S)))
    try:
        await broker.put(bucket, token.id, token.model_dump_json().encode(), ttl_s)
    except ApiError as error:
        if error.code == NO_TTL:
            what = "the bucket of join tokens is that of an earlier version"
            raise UsageError(what, "`rigflow topology apply` renews it") from error
        raise
    try:
        await broker.put(bucket, NOTHING, b"")
        await audit(broker, "join-token-made", name, id=token.id)
    except BrokerError:  # nobody has seen the token
        with suppress(BrokerError):
            await broker.delete_key(bucket, token.id)
        raise
    return text


async def check_keys(broker: Broker, worker_seed: bytes, join_seed: bytes) -> None:
    """Raise UsageError where no machine could come in with these keys, or without any, from the broker's answers.

    What is not known here: whether the machine will reach the broker.
    """
    settings, nc = broker.settings, broker.connection.nc
    where = without_passwords(settings.nats)
    if is_ours(settings):
        what = f"the broker at {where} is that of `rigflow up`, which serves this machine alone"
        raise UsageError(
            what, "no other machine can join it; `rigflow broker` runs one for several: docs/operations.md"
        )
    if not worker_seed:
        if nc.asks_for_login and "@" not in settings.nats:  # else the machine is given such a URL, too
            what = f"the broker at {where} asks for a key, and this token would bring none"
            raise UsageError(what, "give --worker and --join-key, the seeds of these roles: docs/install.md")
        return
    if not nc.asks_for_login:
        what = f"the broker at {where} has no roles: it knows no keys, and lets everybody in"
        raise UsageError(what, "leave out --worker and --join-key, or give it roles first: docs/operations.md")
    for option, seed, inbox in (("--worker", worker_seed, "_INBOX_worker"), ("--join-key", join_seed, "_INBOX_join")):
        with _credentials(settings, seed.decode(), inbox) as used:
            try:
                connection = await Connection.open(used, "rigflow-keys")
            except Refused as error:
                public = nkeys.from_seed(bytearray(seed)).public_key.decode()
                what = f"{option}: the broker at {where} does not let in {public}"
                raise UsageError(
                    what, "put this public key into its configuration first: docs/operations.md"
                ) from error
            except BrokerError as error:
                raise BrokerError(f"{option}: {error.what}", error.hint) from error
            await connection.close()


async def all_tokens(broker: Broker) -> list[JoinToken]:
    """All tokens that have not expired, oldest first, and those that were used or revoked."""
    bucket, tokens = broker.names.join_tokens, list[JoinToken]()
    async for entry in broker.read(f"KV_{bucket}", f"$KV.{bucket}.*"):
        token = decoded(JoinToken, entry.body, f"the join token at {entry.sequence}") if entry.body else None
        if token is not None and token.used_s:  # by the clock of the broker: that of a new machine may be wrong
            token = token.model_copy(update={"used_s": entry.stored_s})
        tokens += [] if token is None else [token]
    return sorted(tokens, key=lambda token: token.created_s)


async def revoke_token(broker: Broker, name: str) -> JoinToken:
    """Revoke a token that is not used yet, by its name or id. Raises UsageError."""
    known = [token for token in await all_tokens(broker) if name in (token.name, token.id)]
    if not known:
        raise UsageError(f"there is no join token {name}", "`rigflow keys join list` shows them")
    bucket, identity = broker.names.join_tokens, known[-1].id
    _check_revocable(known[-1], name, broker.now_s())
    await audit(broker, "join-token-revoked", known[-1].name, id=identity)
    while True:  # a machine that uses it at this moment writes first, or is refused
        entry = await broker.last(f"KV_{bucket}", f"$KV.{bucket}.{identity}")
        token = decoded(JoinToken, entry.body, f"the join token {identity}") if entry is not None else None
        if entry is None or token is None:
            raise UsageError(f"there is no join token {name}", "`rigflow keys join list` shows them")
        _check_revocable(token, name, broker.now_s())
        revoked = token.model_copy(update={"revoked_s": broker.now_s(), "box": ""})
        if await broker.replace(bucket, identity, revoked.model_dump_json().encode(), entry.sequence) is not None:
            await broker.put(bucket, NOTHING, b"")
            return revoked


def _check_revocable(token: JoinToken, name: str, now_s: float) -> None:
    if reason := token.why_not(now_s):
        hint = "to shut its machine out, change the key of the role worker" if token.used_s else ""
        raise UsageError(f"the join token {name} {reason}", hint)


async def read_access(settings: Settings, text: TokenText) -> RigAccess:
    """What a token opens; it is not used up. Raises UsageError, BrokerError."""
    unverified = {"tls_verify": False} if not settings.tls_ca else {}  # the box proves who filled it
    async with _as_join(settings.model_copy(update=unverified), text) as connection:
        token, _ = await _token(connection, settings, text)
    try:
        opened = nacl.secret.SecretBox(text.key).decrypt(base64.b64decode(token.box))
        return RigAccess.model_validate_json(opened)
    except (nacl.exceptions.CryptoError, ValueError) as error:
        raise UsageError(f"what the join token {token.name} opens was changed at the broker", ANOTHER) from error


async def use_up(settings: Settings, text: TokenText) -> JoinToken:
    """Mark a token as used by this machine. Raises UsageError if it is no longer to be used, BrokerError."""
    async with _as_join(settings, text) as connection:
        token, sequence = await _token(connection, settings, text)
        used = token.model_copy(update={"used_s": time.time(), "used_by": socket.gethostname(), "box": ""})
        bucket = Names(settings.prefix).join_tokens
        subject, body = f"$KV.{bucket}.{token.id}", used.model_dump_json().encode()
        answer = await connection.request(subject, body, {EXPECTED: sequence})
        if "error" in json.loads(answer.data):
            await _token(connection, settings, text)  # which says why
            raise UsageError(f"the join token {token.name} is being used by another machine", ANOTHER)
        with suppress(BrokerError):  # the machine has joined
            await connection.request(f"$KV.{bucket}.{NOTHING}")
    return used


async def _token(connection: Connection, settings: Settings, text: TokenText) -> tuple[JoinToken, str]:
    """The token, if it may be used, and the sequence of its record. Raises UsageError."""
    bucket = Names(settings.prefix).join_tokens
    hint = f"has it expired, or is it for another fleet? {ANOTHER}"
    unknown = UsageError("the fleet does not know this join token", hint)
    try:
        answer = await connection.request(f"$JS.API.DIRECT.GET.KV_{bucket}.$KV.{bucket}.{text.id}")
    except NoResponders as error:
        raise unknown from error
    headers = headers_of(answer)
    token = decoded(JoinToken, answer.data, "the join token") if answer.data else None
    if token is None or PLACE not in headers:
        raise unknown
    if reason := token.why_not(0.0):  # one that has expired is forgotten, by the clock of the broker
        raise UsageError(f"the join token {token.name} {reason}", ANOTHER)
    return token, headers[PLACE]


@asynccontextmanager
async def _as_join(settings: Settings, text: TokenText) -> AsyncIterator[Connection]:
    """A connection as the role join, or as the URL says where the token has no seed. Raises BrokerError, UsageError."""
    seed = nkeys.encode_seed(text.join_seed, nkeys.PREFIX_BYTE_USER).decode() if text.join_seed else ""
    with _credentials(settings, seed, "_INBOX_join") as settings:
        try:
            connection = await Connection.open(settings, "rigflow-join")
        except BrokerError as error:
            raise BrokerError(error.what, error.hint.replace(URL_FROM, "--join")) from error
        try:
            yield connection
        finally:
            await connection.close()


@contextmanager
def _credentials(settings: Settings, seed: str, inbox: str) -> Iterator[Settings]:
    """The settings that log in with a seed, which is in a file for the time of the block; without one, as they are."""
    with tempfile.TemporaryDirectory(prefix="rigflow-join-") as folder:
        if seed:
            write_private(path := Path(folder) / "key.nk", seed)
            settings = settings.model_copy(update={"credentials": str(path), "inbox": inbox})
        yield settings
