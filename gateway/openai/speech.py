"""`/v1/audio/speech`: the pipeline `speak`."""

from typing import Literal

from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from pydantic import Field, JsonValue

from gateway.callers import Submitter
from gateway.fleet import Connected
from gateway.openai.errors import NotOffered
from gateway.openai.fields import OpenAIRequest, check_offered, not_offered
from gateway.openai.running import Asked
from gateway.route import checked_router
from schemas.errors import StoreError

router = checked_router(prefix="/v1", tags=["openai"])
_TYPES = {"mp3": "audio/mpeg", "opus": "audio/ogg", "pcm": "audio/pcm", "m4a": "audio/mp4"}
# OpenAI's voices: they stand for the first voice of the fleet's model
_VOICES = frozenset(
    ["alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer", "verse"]
)
_WAV_HEAD = 44


class SpeechRequest(OpenAIRequest):
    """A text that is to be spoken. `m4a` is of rigflow; `aac` is not offered."""

    input: str = Field(min_length=1, max_length=1 << 20)
    voice: str = Field(default="", max_length=100)
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm", "m4a"] = "mp3"
    speed: float = Field(default=1.0, ge=0.25, le=4)
    stream_format: Literal["audio", "sse"] = "audio"
    instructions: JsonValue = not_offered()


@router.post("/audio/speech", response_model=None)
async def speak(request: Request, caller: Submitter, broker: Connected, wanted: SpeechRequest) -> Response:
    """Speak a text; the answer is the file."""
    check_offered(wanted)
    if wanted.stream_format == "sse" or wanted.response_format == "aac":
        what = "stream_format sse" if wanted.stream_format == "sse" else "response_format aac"
        raise NotOffered(f"{what} is not offered", "take mp3, opus, flac, wav, pcm or m4a, as a file")
    form = wanted.response_format
    fields: dict[str, JsonValue] = {"encode.format": "sound", "encode.file": "wav" if form == "pcm" else form}
    if wanted.voice and wanted.voice not in _VOICES:
        fields["speak.voice"] = wanted.voice
    if wanted.speed != 1.0:
        fields["speak.speed"] = wanted.speed
    asked = Asked(request, broker, caller)
    spec = await asked.pipeline("speak", wanted.model, fields)
    job = await asked.submit(spec, wanted.input.encode(), "speech.txt")
    files = await asked.files(job)
    if not files:
        raise StoreError("the results of the job are gone from the broker", "send the request again")
    [file] = files
    start = _WAV_HEAD if form == "pcm" else 0
    headers = {"Content-Length": str(file.size - start)}
    return StreamingResponse(file.chunks(start), media_type=_TYPES.get(form, f"audio/{form}"), headers=headers)
