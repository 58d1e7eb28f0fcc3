"""A broker with the roles of deploy/nats/roles.conf: the fixture `guarded`."""

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nkeys

from pipelines.broker import Broker
from pipelines.child import nats_server_binary, tied_to_us
from pipelines.registry import builtin_pipeline
from schemas.settings import Settings
from workers.definitions import find_models, register

ROLES = Path(__file__).parents[1] / "deploy" / "nats" / "roles.conf"


@dataclass(frozen=True)
class Guarded:
    """A broker with roles.conf, and the seed files of its users."""

    url: str
    seeds: Mapping[str, Path]
    log: Path

    def settings(self, role: str) -> dict[str, str]:
        """What a command of a role is given."""
        return {"nats": self.url, "credentials": str(self.seeds[role]), "inbox": f"_INBOX_{role}"}

    def environment(self, role: str) -> dict[str, str]:
        """What the programs of docs/clients.md are given."""
        return os.environ | {"NATS_URL": self.url, "NATS_SEED": self.seeds[role].read_text(), "NATS_ROLE": role}


def new_key(seed_file: Path) -> str:
    """Write the seed of a new user; its public key."""
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    seed_file.write_bytes(seed)
    return str(nkeys.from_seed(bytearray(seed)).public_key.decode())


@contextmanager
def guarded_broker(tmp_path: Path) -> Iterator[Guarded]:
    """A running broker with its store in a folder. `roles.conf` there may be written anew before a reload."""
    environment = dict(os.environ)
    seeds = {role: tmp_path / f"{role}.nk" for role in ("operator", "worker", "publisher", "gateway", "client", "join")}
    environment |= {f"NKEY_{role.upper()}": new_key(seed_file) for role, seed_file in seeds.items()}
    (tmp_path / "roles.conf").write_text(ROLES.read_text())
    config = tmp_path / "nats.conf"
    config.write_text(
        f'listen: "127.0.0.1:-1"\nports_file_dir: "{tmp_path}"\nmax_payload: 8MB\ninclude "roles.conf"\n'
        f'pid_file: "{tmp_path}/pid"\n'
        f'jetstream {{ store_dir: "{tmp_path}/store", max_mem: 64MB, max_file: 16GB }}\n'
    )
    process = subprocess.Popen(
        tied_to_us([nats_server_binary(), "-c", str(config), "-l", str(tmp_path / "log")]), env=environment
    )
    try:
        yield Guarded(url_of(tmp_path, process.pid), seeds, tmp_path / "log")
    finally:
        process.kill()
        process.wait()


def url_of(folder: Path, pid: int) -> str:
    ports = folder / f"nats-server_{pid}.ports"
    deadline = time.monotonic() + 60.0
    while not (ports.exists() and (text := ports.read_text())):
        assert time.monotonic() < deadline, "nats-server did not start"
        time.sleep(0.01)
    return str(json.loads(text)["nats"][0])


async def made_by_the_operator(guarded: Guarded, *pipelines: str) -> None:
    """Register pipelines that come with rigflow."""
    settings = Settings.model_validate(guarded.settings("operator"))
    async with Broker.connected(settings, "test") as broker:
        for name in pipelines or ("fingerprint",):
            spec = builtin_pipeline(name)
            await register(broker, settings, spec, find_models(spec, None))
