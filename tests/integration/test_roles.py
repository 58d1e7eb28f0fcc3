"""The roles of deploy/nats/roles.conf: each can do its work, and nothing else."""

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import nkeys
import pytest
from nats.aio.client import Client

from pipelines.broker import Broker
from pipelines.engines import pull_engine, push_engine
from pipelines.registry import builtin_pipeline
from pipelines.server import nats_server_binary, tied_to_us
from schemas.errors import BrokerError, ModelError
from schemas.messages import Lane
from schemas.settings import Settings
from tests.clips import real_clip
from tests.fleet import ONE_WORKER, Fleet, Silent
from tests.integration.hops import eventually
from tests.nets import kept_engine
from workers.local import find_models, register, run_jobs

ROLES = Path(__file__).parents[2] / "deploy" / "nats" / "roles.conf"


@dataclass(frozen=True)
class Guarded:
    """A broker with roles.conf, and the seed files of its users."""

    url: str
    seeds: Mapping[str, Path]

    def settings(self, role: str) -> dict[str, str]:
        return {"nats": self.url, "credentials": str(self.seeds[role]), "inbox": f"_INBOX_{role}"}


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    seeds, environment = {}, dict(os.environ)
    for role in ("operator", "worker", "publisher", "client"):
        seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
        seeds[role] = tmp_path / f"{role}.nk"
        seeds[role].write_bytes(seed)
        environment[f"RIGFLOW_{role.upper()}"] = nkeys.from_seed(bytearray(seed)).public_key.decode()
    (tmp_path / "roles.conf").write_text(ROLES.read_text())
    config = tmp_path / "nats.conf"
    config.write_text(
        f'listen: "127.0.0.1:-1"\nports_file_dir: "{tmp_path}"\nmax_payload: 8MB\ninclude "roles.conf"\n'
        f'jetstream {{ store_dir: "{tmp_path}/store", max_mem: 64MB, max_file: 16GB }}\n'
    )
    process = subprocess.Popen(
        tied_to_us([nats_server_binary(), "-c", str(config), "-l", str(tmp_path / "log")]), env=environment
    )
    try:
        yield Guarded(_url(tmp_path, process.pid), seeds)
    finally:
        process.kill()
        process.wait()


def _url(folder: Path, pid: int) -> str:
    ports = folder / f"nats-server_{pid}.ports"
    deadline = time.monotonic() + 60.0
    while not (ports.exists() and (text := ports.read_text())):
        assert time.monotonic() < deadline, "nats-server did not start"
        time.sleep(0.01)
    return str(json.loads(text)["nats"][0])


async def made_by_the_operator(guarded: Guarded) -> None:
    settings = Settings.model_validate(guarded.settings("operator"))
    broker = await Broker.connect(settings)
    spec = builtin_pipeline("fingerprint")
    await register(broker, settings, spec, find_models(spec, None))
    await broker.close()


def test_publisher_and_worker_do_a_job_and_a_client_gets_its_result(guarded: Guarded, tmp_path: Path) -> None:
    spec, clip = builtin_pipeline("fingerprint"), real_clip("bikes")
    asyncio.run(made_by_the_operator(guarded))
    publisher = Settings.model_validate(guarded.settings("publisher"))
    (tmp_path / "out").mkdir()
    with Fleet(ONE_WORKER, tmp_path / "cache", **guarded.settings("worker")):
        (outcome,) = asyncio.run(
            run_jobs(publisher, spec, find_models(spec, None), [clip], tmp_path / "out", Lane.BULK, Silent())
        )
        assert outcome.ok, outcome.error
        kinds = asyncio.run(results_of_a_client(guarded, clip.read_bytes()))
    assert {"part", "file", "done"} <= set(kinds)


async def results_of_a_client(guarded: Guarded, media: bytes) -> list[str]:
    """Publish media with plain NATS; the types of what comes back, up to Done."""
    client = Client()
    seed = guarded.seeds["client"].read_text()
    await client.connect(guarded.url, nkeys_seed_str=seed, inbox_prefix="_INBOX_client", allow_reconnect=False)
    results = await client.subscribe("rigflow.results.main.fingerprint.*")
    acked = await client.request("rigflow.media.main.fingerprint", media, headers={"Rigflow-Name": "bikes.mp4"})
    assert json.loads(acked.data)["stream"] == "RIGFLOW_MEDIA_fingerprint"
    kinds: list[str] = []
    while "done" not in kinds:
        kinds.append((await results.next_msg(timeout=60)).headers["Rigflow-Type"])
    await client.close()
    return kinds


@pytest.mark.parametrize(
    ("role", "subject"),
    [
        ("worker", "$JS.API.STREAM.DELETE.RIGFLOW_RESULTS"),
        ("worker", "rigflow.media.main.fingerprint"),
        ("worker", "$KV.rigflow_pipelines.name.fingerprint"),
        ("publisher", "rigflow.dead.fingerprint.decode"),
        ("publisher", "$JS.API.STREAM.PURGE.RIGFLOW_WORK_fingerprint_decode"),
        ("publisher", "rigflow.results.other.fingerprint.job"),
        ("client", "rigflow.work.fingerprint.decode.bulk"),
        ("client", "$JS.API.STREAM.LIST"),
    ],
)
async def test_a_role_may_not(guarded: Guarded, role: str, subject: str) -> None:
    if role == "client":
        assert await refusals_of_a_client(guarded, subject)
        return
    broker = await Broker.connect(Settings.model_validate(guarded.settings(role)))
    try:
        with pytest.raises(BrokerError, match="forbids"):
            await broker.connection.request(subject, b"")
    finally:
        await broker.close()


async def refusals_of_a_client(guarded: Guarded, subject: str) -> list[str]:
    said: list[str] = []

    async def on_error(error: Exception) -> None:
        said.append(str(error))

    client = Client()
    seed = guarded.seeds["client"].read_text()
    await client.connect(guarded.url, nkeys_seed_str=seed, inbox_prefix="_INBOX_client", error_cb=on_error)
    await client.publish(subject, b"")
    await client.flush()
    await eventually(lambda: bool(said))
    await client.close()
    return said


async def test_workers_share_engines_and_publishers_do_not(guarded: Guarded, tmp_path: Path) -> None:
    await made_by_the_operator(guarded)
    store, spec = kept_engine(tmp_path / "engines")
    plan = store.load(spec.key)[1]
    worker = await Broker.connect(Settings.model_validate(guarded.settings("worker")))
    publisher = await Broker.connect(Settings.model_validate(guarded.settings("publisher")))
    try:
        with pytest.raises(BrokerError):
            await push_engine(publisher, spec, plan)
        assert await push_engine(worker, spec, b"damaged")
        with pytest.raises(ModelError, match="is damaged at the broker"):
            await pull_engine(worker, spec.key)
        assert await push_engine(worker, spec, plan)
        assert (await pull_engine(worker, spec.key))[:2] == (spec, plan)
    finally:
        await worker.close()
        await publisher.close()
