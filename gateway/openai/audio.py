"""`/v1/audio/transcriptions` and `/v1/audio/translations`: the pipeline `transcribe`."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import File, Form, Request, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import JsonValue

from gateway.callers import Submitter
from gateway.fleet import Connected
from gateway.openai.errors import NotOffered
from gateway.openai.fields import check_neutral, not_offered_form
from gateway.openai.running import Asked, content_of
from gateway.openai.streams import streamed
from gateway.openai.transcripts import TextInOrder, plain, usage_of, verbose
from gateway.openai.uploads import check_size, pieces
from gateway.route import checked_router
from pipelines.job import Job
from pipelines.job_events import PartMade
from schemas.errors import UsageError

router = checked_router(prefix="/v1", tags=["openai"])
ResponseFormat = Literal["json", "text", "srt", "verbose_json", "vtt", "diarized_json"]
_FILES: list[JsonValue] = ["json", "srt", "vtt", "txt"]  # one variant for all forms of an answer
_TYPES = {"srt": "application/x-subrip", "vtt": "text/vtt"}


@router.post("/audio/transcriptions", response_model=None)
async def transcriptions(
    request: Request,
    caller: Submitter,
    broker: Connected,
    file: Annotated[UploadFile, File()],
    model: Annotated[str, Form(max_length=200)] = "",
    language: Annotated[str, Form(max_length=32)] = "",
    prompt: Annotated[str, Form(max_length=4000)] = "",
    response_format: Annotated[ResponseFormat, Form()] = "json",
    temperature: Annotated[float, Form(ge=0, le=1)] = 0.0,
    stream: Annotated[bool, Form()] = False,
    times: Annotated[list[Literal["word", "segment"]], Form(alias="timestamp_granularities[]")] = [],  # noqa: B006
    chunking: Annotated[str, Form(alias="chunking_strategy", description="has no effect")] = "",
    include: Annotated[list[str], not_offered_form("include[]")] = [],  # noqa: B006
    keywords: Annotated[list[str], not_offered_form("keywords[]")] = [],  # noqa: B006
    languages: Annotated[list[str], not_offered_form("languages[]")] = [],  # noqa: B006
    speakers: Annotated[list[str], not_offered_form("known_speaker_names[]")] = [],  # noqa: B006
    voices: Annotated[list[str], not_offered_form("known_speaker_references[]")] = [],  # noqa: B006
) -> Response:
    """Write what is said in a sound or a film. Times of words are in `verbose_json`, always."""
    refused = {"include": include, "keywords": keywords, "languages": languages}
    for name, value in {**refused, "known_speaker_names": speakers, "known_speaker_references": voices}.items():
        check_neutral(name, list(value))
    fields: dict[str, JsonValue] = {"transcribe.language": language} if language else {}
    asked = Asked(request, broker, caller)
    return await _transcribed(asked, file, model, prompt, response_format, temperature, stream, fields)


@router.post("/audio/translations", response_model=None)
async def translations(
    request: Request,
    caller: Submitter,
    broker: Connected,
    file: Annotated[UploadFile, File()],
    model: Annotated[str, Form(max_length=200)] = "",
    prompt: Annotated[str, Form(max_length=4000)] = "",
    response_format: Annotated[ResponseFormat, Form()] = "json",
    temperature: Annotated[float, Form(ge=0, le=1)] = 0.0,
) -> Response:
    """Write in English what is said in a sound or a film."""
    fields: dict[str, JsonValue] = {"transcribe.task": "translate"}
    asked = Asked(request, broker, caller)
    return await _transcribed(asked, file, model, prompt, response_format, temperature, False, fields)


async def _transcribed(
    asked: Asked,
    file: UploadFile,
    model: str,
    prompt: str,
    form: ResponseFormat,
    temperature: float,
    stream: bool,
    fields: dict[str, JsonValue],
) -> Response:
    if form == "diarized_json":
        raise NotOffered("diarized_json is not offered", "run the pipeline transcribe-speakers by /api/v1/jobs")
    if temperature:
        raise UsageError("a temperature is not offered: texts are the most probable ones", "leave it out, or send 0")
    size = check_size(file, asked.caller)
    fields |= {"encode.files": _FILES} | ({"transcribe.prompt": prompt} if prompt else {})
    spec = await asked.pipeline("transcribe", model, fields)
    job = await asked.submit(spec, pieces(file), file.filename or "sound", size)
    if stream:
        return streamed(_text(asked, job))
    files = await asked.files(job)
    if form in ("srt", "vtt"):
        return PlainTextResponse(await content_of(files, f".{form}"), media_type=_TYPES[form])
    found = json.loads(await content_of(files, ".json"))
    if form == "text":
        return PlainTextResponse(plain(found) + "\n")
    task = "translate" if "transcribe.task" in fields else "transcribe"
    short = {"text": plain(found), "usage": usage_of(found)}
    return JSONResponse(verbose(found, task) if form == "verbose_json" else short)


async def _text(asked: Asked, job: Job) -> AsyncIterator[dict[str, Any]]:
    """The text as it comes, in its order, then all of it."""
    text = TextInOrder(asked.broker, asked.caller.tenant)
    async with aclosing(asked.events(job)) as events:
        async for event in events:
            if isinstance(event, PartMade):
                async for new in text.take(event):
                    yield {"type": "transcript.text.delta", "delta": new}
    found = json.loads(await content_of([file async for file in job.files()], ".json"))
    if rest := text.finish(plain(found)):
        yield {"type": "transcript.text.delta", "delta": rest}
    yield {"type": "transcript.text.done", "text": plain(found), "usage": usage_of(found)}
