"""Copies of streams while the fleet works, as JetStream makes them, in the files of the `nats` command line.

Streams are copied in the order in which work goes through them. What moves on meanwhile is in two copies, and is done
again with the same result; nothing is in none.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from nats.aio.msg import Msg

from pipelines.broker import Broker
from pipelines.jetstream import parse
from pipelines.registry import known_pipelines
from schemas.errors import BrokerError, StoreError
from schemas.pipeline import PipelineSpec
from schemas.subjects import COLLECT

CHUNK_BYTES = 128 << 10
SILENT_S = 30.0  # without a chunk for so long, a copy has failed
DESCRIPTION, CONTENT = "backup.json", "stream.tar.s2"  # of each stream, in a folder of its own
BROKER = "broker.json"  # beside them: what the broker of the copy took


async def streams_of(broker: Broker) -> list[str]:
    """The streams of the fleet, in the order in which they are copied. Raises BrokerError."""
    found: list[str] = []
    while True:
        page = await broker.api("STREAM.NAMES", {"offset": len(found)})
        found += page["streams"] or []
        if not page["streams"] or len(found) >= page["total"]:
            break
    names = broker.names
    own = [name for name in found if re.match(rf"(KV_|OBJ_)?{names.prefix}_", name, re.IGNORECASE)]
    kept = (
        names.tenants_bucket,
        names.pipelines,
        names.keys,
        names.join_tokens,
        names.profiles,
        *names.all_jobs,
        names.attempts,
    )
    tenants = ("", *sorted(names.tenants))
    first = [f"KV_{name}" for name in kept] + [f"OBJ_{names.models}", f"OBJ_{names.engines}"]
    first += map(names.cancel_of, tenants)
    specs = await known_pipelines(broker) if f"KV_{names.pipelines}" in own else []
    first += [names.media_stream(spec.name, tenant) for spec in specs for tenant in tenants]
    first += [names.work_stream(spec.name, stage) for spec in specs for stage in _stages(spec)]
    last = [*map(names.results_of, tenants), *map(names.dead_of, tenants), names.usage_stream, names.audit_stream]
    last += [f"OBJ_{of(tenant)}" for tenant in tenants for of in (names.blobs_of, names.uploads_of)]
    places = {name: place for place, name in enumerate(first)}
    places |= {name: 2 * len(first) + place for place, name in enumerate(last)}
    return sorted(own, key=lambda name: (places.get(name, len(first)), name))


def _stages(spec: PipelineSpec) -> list[str]:
    return [*(stage.name for stage in spec.stage), COLLECT]


async def save_streams(broker: Broker, folder: Path) -> dict[str, int]:
    """Write a copy of each stream into a new folder; their bytes. Raises StoreError, BrokerError, OSError."""
    copied = {name: await save_stream(broker, name, folder / name) for name in await streams_of(broker)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / BROKER).write_text(json.dumps({"max_payload": broker.connection.max_payload}))
    return copied


async def restore_streams(broker: Broker, folder: Path) -> dict[str, int]:
    """Make the streams of a copy, all or none; their messages. Raises StoreError, BrokerError, OSError."""
    copies = saved(folder)
    there = set(await streams_of(broker)) & {each.name for each in copies}
    if there:
        what = f"the broker has {len(there)} of these streams, {min(there)} first"
        raise StoreError(what, "restore into a broker with an empty store: see docs/backup.md")
    _check_payload(broker, folder)
    made: dict[str, int] = {}
    try:
        for each in copies:
            made[each.name] = await restore_stream(broker, each)
    except BaseException:  # a person who corrects the reason finds an empty broker
        for name in made:
            with suppress(BrokerError):  # the next restore names those that stay
                await asyncio.shield(broker.api_unless_gone(f"STREAM.DELETE.{name}"))
        raise
    return made


def _check_payload(broker: Broker, folder: Path) -> None:
    """Raise StoreError when messages of the copy may be larger than the broker takes. Copies of `nats` do not say."""
    try:
        largest = int(json.loads((folder / BROKER).read_text())["max_payload"])
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{folder / BROKER} does not say what the broker took", "take another copy") from error
    if largest > broker.connection.max_payload:
        what = (
            f"the broker takes messages of {broker.connection.max_payload:,} bytes, that of the copy took {largest:,}"
        )
        raise StoreError(what, f"set max_payload: {largest} in the broker's configuration: see docs/backup.md")


async def save_stream(broker: Broker, stream: str, folder: Path) -> int:
    """Write a copy of a stream and its consumers into a new folder; its bytes.

    Raises StoreError, BrokerError, OSError.
    """
    folder.mkdir(parents=True)
    total = 0
    async with _inbox(broker) as (inbox, coming):
        wanted = {"deliver_subject": inbox, "no_consumers": False, "chunk_size": CHUNK_BYTES, "jsck": False}
        described = await broker.api(f"STREAM.SNAPSHOT.{stream}", wanted)
        with (folder / CONTENT).open("wb") as file:
            while True:
                chunk = await _next(coming, stream)
                if not chunk.data:
                    break
                await asyncio.to_thread(file.write, chunk.data)
                total += len(chunk.data)
                if chunk.reply:
                    broker.connection.send(chunk.reply, b"")
    if chunk.headers and "Status" in chunk.headers and not str(chunk.headers["Status"]).startswith("2"):
        raise StoreError(f"stream {stream} cannot be copied: {chunk.headers.get('Description', '')}", "try again")
    kept = {name: described[name] for name in ("config", "state")}
    (folder / DESCRIPTION).write_text(json.dumps(kept, indent=2))
    return total


async def restore_stream(broker: Broker, folder: Path) -> int:
    """Make a stream of its copy; its messages. Raises ApiError when the broker has it, StoreError, OSError."""
    try:
        described: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text())
        stream = str(described["config"]["name"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{folder / DESCRIPTION} is no description of a stream", "take another copy") from error
    if not re.fullmatch(r"[A-Za-z0-9_@-]+", stream):
        raise StoreError(f"{folder / DESCRIPTION} names the stream {stream[:100]!a}", "take another copy")
    begun = await broker.api(f"STREAM.RESTORE.{stream}", {"config": described["config"], "state": described["state"]})
    place = str(begun["deliver_subject"])
    with (folder / CONTENT).open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            refused = (await broker.connection.request(place, chunk)).data
            if refused:
                _check_taken(refused)
    made = parse(await broker.connection.request(place, b""))
    return int(made["state"]["messages"])


def _check_taken(answer: bytes) -> None:
    """Raise StoreError for an answer that refuses a chunk."""
    try:
        error = json.loads(answer).get("error")
    except ValueError:
        error = None
    if error:
        raise StoreError(f"the broker refuses the copy: {error.get('description', '')}", "take another copy")


@asynccontextmanager
async def _inbox(broker: Broker) -> AsyncIterator[tuple[str, "asyncio.Queue[Msg]"]]:
    """A subject of our own, and what comes on it."""
    coming: asyncio.Queue[Msg] = asyncio.Queue()
    subject = f"{broker.settings.inbox}.{broker.connection.unique()}"
    nc = broker.connection.nc

    async def take(message: Msg) -> None:
        await coming.put(message)

    subscription = await nc.subscribe(subject, cb=take)
    await broker.connection.flush()
    try:
        yield subject, coming
    finally:
        await subscription.unsubscribe()


async def _next(coming: "asyncio.Queue[Msg]", stream: str) -> Msg:
    try:
        async with asyncio.timeout(SILENT_S):
            return await coming.get()
    except TimeoutError:
        raise BrokerError(
            f"the copy of stream {stream} has stopped", "try again when the broker is less busy"
        ) from None


def saved(folder: Path) -> Sequence[Path]:
    """The copies in a folder. Raises StoreError when there is none."""
    found = sorted(each.parent for each in folder.glob(f"*/{DESCRIPTION}"))
    if not found:
        raise StoreError(f"{folder} has no copy of a stream", "name the folder that `rigflow backup` wrote")
    return found
