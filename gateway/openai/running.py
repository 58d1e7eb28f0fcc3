"""Runs the job of a request: its pipeline by a model's name, its end, its rows. A client that leaves cancels it."""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from pydantic import JsonValue

from gateway.callers import Caller
from gateway.fleet import PATIENCE_S, client_of
from gateway.leaving import client_left
from gateway.route import check_size
from pipelines.broker import Broker
from pipelines.job import Job
from pipelines.job_events import Ended, Event
from pipelines.job_files import JobFile
from pipelines.registry import load_pipeline
from pipelines.variants import variant
from schemas.errors import MediaError, RigflowError, StoreError, UsageError
from schemas.jobs import Priority
from schemas.pipeline import PipelineSpec
from schemas.results import Done
from schemas.wire import Buffer

# names that OpenAI's clients have in their examples: they stand for the model that the fleet's pipeline has
_OPENAIS = re.compile(r"(gpt|chatgpt|o\d|whisper|tts|dall-e|text-embedding|text-davinci|davinci|babbage)([-.].*)?")
MOST_TIMES = 4  # json_bytes: the lines of a request escape its letters and repeat its question


def is_openais(model: str) -> bool:
    """Whether a name is one that OpenAI gives its own models."""
    return _OPENAIS.fullmatch(model) is not None


class ClientGone(RigflowError):
    """The client closed its connection: its job is cancelled."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for a job, and who sends it."""

    request: Request
    broker: Broker
    caller: Caller

    async def pipeline(self, name: str, model: str, fields: Mapping[str, JsonValue] | None = None) -> PipelineSpec:
        """A pipeline with a model, as clients name it, and with other fields. Raises NotFound, PipelineError."""
        spec = await load_pipeline(self.broker, name)
        own = model in ("", name, *spec.model_names.values()) or is_openais(model)
        return await variant(self.broker, spec, fields or {}, None if own else model)

    async def submit(
        self, spec: PipelineSpec, source: Buffer | AsyncIterable[Buffer], name: str, size: int | None = None
    ) -> Job:
        """Begin the job of the request, before bulk work. Raises as `Client.submit`."""
        return await client_of(self.broker, self.caller).submit(
            spec,
            source,
            job=self.request.headers.get("idempotency-key", "") or uuid.uuid4().hex[:20],
            name=name,
            priority=Priority.INTERACTIVE,
            size=size,
            patience_s=PATIENCE_S,
        )

    async def ask(self, spec: PipelineSpec, lines: Sequence[Mapping[str, Any]]) -> Job:
        """Begin the job of a request that is lines of JSON, each choice with its question. Raises as `submit`.

        Raises HttpError where there are more of them than `MOST_TIMES` what a request may have.
        """
        text, most = bytearray(), MOST_TIMES * self.request.app.state.settings.json_bytes
        for line in lines:
            text += f"{json.dumps(line)}\n".encode()
            check_size(len(text), most, "a question, once for each of its choices,")
        return await self.submit(spec, text, "request.jsonl")

    async def events(self, job: Job) -> AsyncGenerator[Event, None]:
        """What happens to the job, until its end. Cancels it when the client leaves. Raises ClientGone, MediaError."""
        async with aclosing(job.events()) as events:
            leaving = asyncio.create_task(client_left(self.request))
            coming: asyncio.Future[Event] | None = None
            try:
                while True:
                    coming = asyncio.ensure_future(anext(events))
                    await asyncio.wait((coming, leaving), return_when=asyncio.FIRST_COMPLETED)
                    if not coming.done():
                        await job.cancel()
                        raise ClientGone("the client closed its connection")
                    event = coming.result()
                    if isinstance(event, Ended):
                        _check(event.done)
                    yield event
                    if isinstance(event, Ended):
                        return
            except asyncio.CancelledError:
                await asyncio.shield(job.cancel())
                raise
            finally:
                under_way: list[asyncio.Future[Any]] = [leaving, *([coming] if coming is not None else [])]
                for each in under_way:
                    each.cancel()
                await asyncio.gather(*under_way, return_exceptions=True)

    async def files(self, job: Job) -> list[JobFile]:
        """The files of the job, once it is over. Raises as `events`."""
        async with aclosing(self.events(job)) as events:
            async for _ in events:
                pass
        return [file async for file in job.files()]


def _check(done: Done) -> None:
    """Raise MediaError for a job that has failures and nothing else, UsageError for one that was cancelled."""
    if done.cancelled:
        raise UsageError("the job was cancelled", "send the request again")
    if done.failures and not done.files:
        raise MediaError(done.failures[0])


async def rows_of(files: list[JobFile]) -> list[dict[str, Any]]:
    """The rows of a job's file of lines of JSON. Raises StoreError without one."""
    return [json.loads(line) for line in (await content_of(files, ".jsonl")).splitlines() if line]


async def content_of(files: list[JobFile], suffix: str) -> bytes:
    """The content of a job's file by its suffix. Raises StoreError."""
    file = next((file for file in files if file.name.endswith(suffix)), None)
    if file is None:
        raise StoreError("the results of the job are gone from the broker", "send the request again")
    return await file.read()
