"""A fleet's broker with tenants that `rigflow tenants add` made, as an operator does: the class `Shared`."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nkeys
from nats.aio.client import Client

from cli.app import answer
from pipelines.broker import Broker
from schemas.settings import Settings
from tests.guarded import Guarded, made_by_the_operator, new_key


@dataclass
class Shared:
    """A broker with roles, to which tenants are added; each has one program with a key."""

    guarded: Guarded
    folder: Path
    seeds: dict[str, Path] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        """The operator's file of tenants."""
        return self.folder / "tenants.toml"

    async def begin(self) -> None:
        """Register a pipeline, and name the server's files and the roles' keys in the file of tenants."""
        await made_by_the_operator(self.guarded)
        keys = {role: public_of(seed) for role, seed in self.guarded.seeds.items()}
        roles = "".join(f'{role} = "{key}"\n' for role, key in keys.items())
        broker = 'accounts = "roles.conf"\nconfig = "nats.conf"\npid_file = "pid"\n'
        self.file.write_text(f"[broker]\n{broker}[roles]\n{roles}")

    def tenants(self, command: str, *options: str) -> int:
        """Run `rigflow tenants` as the operator."""
        operator = self.guarded.settings("operator")
        to = ("--file", str(self.file), "--nats", operator["nats"], "--credentials", operator["credentials"])
        return answer(["tenants", command, *options, *to])

    def add(self, name: str, *options: str) -> None:
        """Add a tenant with one program."""
        self.seeds[name] = self.folder / f"{name}.nk"
        assert self.tenants("add", name, "--user", new_key(self.seeds[name]), *options) == 0

    def without_permissions(self, tenant: str) -> None:
        """Take the permissions from a tenant's program: its account alone holds it back then."""
        accounts = self.folder / "roles.conf"
        user = rf"(nkey: {public_of(self.seeds[tenant])}), permissions: .*?\] \}} \}} \}}"
        opened, count = re.subn(user, r"\1 }", accounts.read_text(), flags=re.DOTALL)
        assert count == 1
        accounts.write_text(opened)
        os.kill(int((self.folder / "pid").read_text()), signal.SIGHUP)

    @asynccontextmanager
    async def operating(self) -> AsyncIterator[Broker]:
        """A connection of the operator."""
        settings = Settings.model_validate(self.guarded.settings("operator"))
        async with Broker.connected(settings, "test") as broker:
            yield broker

    @asynccontextmanager
    async def program(self, tenant: str, errors: list[str] | None = None) -> AsyncIterator[Client]:
        """A connected program of a tenant. What the broker refuses goes into `errors`."""
        client = Client()

        async def on_error(error: Exception) -> None:
            if errors is not None:
                errors.append(str(error))

        seed = self.seeds[tenant].read_text()
        await client.connect(self.guarded.url, nkeys_seed_str=seed, error_cb=on_error)
        try:
            yield client
        finally:
            await client.close()


def two_tenants(guarded: Guarded, folder: Path) -> Shared:
    """A fleet with the tenants `acme` and `evil`, of which the second may have little waiting."""
    shared = Shared(guarded, folder)
    asyncio.run(shared.begin())
    shared.add("acme")
    shared.add("evil", "--queued-bytes", str(1 << 20))
    return shared


async def counts(operator: Broker) -> dict[str, int]:
    """The newest message of every stream but those that `evil` may fill."""
    found = (await operator.api("STREAM.LIST"))["streams"]
    own = (f"{operator.names.media_stream('fingerprint', 'evil')}", "RIGFLOW_CANCEL_evil", "OBJ_rigflow_uploads_evil")
    return {each["config"]["name"]: each["state"]["last_seq"] for each in found if each["config"]["name"] not in own}


def public_of(seed: Path) -> str:
    """The public key of a seed."""
    return str(nkeys.from_seed(bytearray(seed.read_bytes().strip())).public_key.decode())
