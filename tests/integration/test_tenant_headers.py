"""Headers that a hostile program makes up: none stops a worker, and none reaches beyond what its tenant may."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import nats
import nats.errors
import pytest

from pipelines.broker import Broker
from pipelines.dead import letters
from pipelines.registry import builtin_pipeline
from pipelines.tenant_roles import SUBSCRIPTIONS
from tests.clips import real_clip
from tests.fleet import ONE_WORKER, Fleet
from tests.guarded import Guarded
from tests.integration.queues import eventually
from tests.tenant_attacks import MEDIA
from tests.tenants import Shared, counts, two_tenants
from workers.definitions import find_models, register

FULL, KIB = 8 << 20, 1 << 10  # bytes of a message with its headers
ODD = {
    "full": (bytes(FULL - 4300), {"Rigflow-Name": "n" * 3900}),
    "full-too": (bytes(FULL - 60 * KIB), {"Rigflow-Name": "n" * 40 * KIB, "Content-Type": "k" * 19 * KIB}),
    "claim": (b"", {"Rigflow-Blob": "b"}),
    "huge-claim": (b"9" * 30, {"Rigflow-Blob": "b" * 40 * KIB}),
    "odd": (b"no media", {"traceparent": "00-x", "Rigflow-Copy": "1", "Rigflow-Name": "../../\u202e\x07"}),
    "many": (b"no media", {f"X-{number}": "x" for number in range(5000)}),
}


@pytest.fixture
def shared(guarded: Guarded, tmp_path: Path) -> Shared:
    """A fleet with the tenants `acme` and `evil`."""
    return two_tenants(guarded, tmp_path)


async def test_media_with_any_headers_end_with_a_failure_and_a_dead_letter(tmp_path: Path) -> None:
    """Also where the message is as large as one can be: its dead letter has headers beside those."""
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        async with Broker.connected(fleet.settings, "test") as broker:
            spec = builtin_pipeline("fingerprint")
            await register(broker, fleet.settings, spec, find_models(spec, None))
            client = await nats.connect(fleet.settings.nats)
            results = await client.subscribe("rigflow.results.main.fingerprint.*")
            subject, good = "rigflow.media.main.fingerprint", real_clip("bikes").read_bytes()
            for name, (body, headers) in (ODD | {"good": (good, {})}).items():
                await client.request(subject, body, headers=headers | {"Rigflow-Job": name}, timeout=60)
            done: set[str] = set()
            while not done >= ODD.keys() | {"good"}:
                message = await results.next_msg(60)
                if (message.headers or {})["Rigflow-Type"] == "done":
                    done.add(message.subject.rpartition(".")[2])
            await client.close()
            inputs = sorted([letter.nbytes async for letter in letters(broker)])
            assert inputs == sorted(len(body) for body, _ in ODD.values())


HEADERS = {  # of JetStream, which change or move messages where a stream lets them
    "Nats-Rollup": "all",
    "Nats-TTL": "1s",
    "Nats-Schedule": "@every 1s",
    "Nats-Schedule-Target": "rigflow.media.acme.fingerprint",
    "Nats-Incr": "+1",
    "Nats-Batch-Id": "batch",
    "Nats-Trace-Dest": "rigflow.media.acme.fingerprint",
    "Nats-Expected-Stream": f"{MEDIA}@acme",
}


async def test_no_header_of_the_broker_reaches_another_tenant_or_deletes_anything(shared: Shared) -> None:
    async with shared.operating() as operator, shared.program("evil") as evil, shared.program("acme") as acme:
        await acme.request("rigflow.media.acme.fingerprint", b"media of acme")
        await evil.request("rigflow.media.evil.fingerprint", b"media", headers={"Nats-Msg-Id": "1"})
        before = await counts(operator)
        for name, value in HEADERS.items():
            await evil.publish("rigflow.media.evil.fingerprint", b"more", headers={name: value})
            await evil.publish("$O.rigflow_uploads_evil.M.x", b"more", headers={name: value})
        both = {"Nats-Schedule": "@at 2020-01-01T00:00:00Z", "Nats-Schedule-Target": "rigflow.media.acme.fingerprint"}
        await evil.publish("rigflow.media.evil.fingerprint", b"scheduled", headers=both)
        await evil.request("rigflow.media.evil.fingerprint", b"the last")
        kept = [stored async for stored in operator.read(f"{MEDIA}@evil")]
        assert kept[0].body == b"media"
        assert await counts(operator) == before


async def test_connections_and_subscriptions_of_a_tenant_are_its_own(shared: Shared) -> None:
    async def connected(tenant: str) -> bool:
        client = nats.NATS()
        seed = shared.seeds[tenant].read_text()
        try:
            await client.connect(shared.guarded.url, nkeys_seed_str=seed, allow_reconnect=False)
        except (nats.errors.Error, OSError):
            if client._transport is not None:  # which nats-py leaves open
                client._transport.close()
            return False
        stack.push_async_callback(client.close)
        return True

    assert await asyncio.to_thread(shared.tenants, "limit", "evil", "--connections", "2") == 0
    async with AsyncExitStack() as stack:
        await eventually(lambda: not_more_than_two(connected))
        assert await connected("acme")
    async with shared.program("evil") as evil, shared.program("acme") as acme:
        with suppress(nats.errors.ConnectionClosedError, OSError):
            for number in range(SUBSCRIPTIONS + 10):
                await evil.subscribe(f"rigflow.results.evil.{number}")
        await eventually(lambda: evil.is_closed)  # the server refuses more, and nats-py gives up
        await acme.subscribe("rigflow.results.acme.>")
        assert (await acme.request("rigflow.media.acme.fingerprint", b"media")).data


async def not_more_than_two(connected: Callable[[str], Awaitable[bool]]) -> bool:
    """Whether the limit is in force: the server does not say when it has read its file again."""
    return [await connected("evil") for _ in range(3)][-1] is False
