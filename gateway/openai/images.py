"""`/v1/images/edits` enlarges a picture by `upscale`, `/v1/images/generations` draws pictures by `imagine`."""

import base64
import time
from typing import Annotated, Any, Literal

from fastapi import File, Form, Request, UploadFile
from fastapi.responses import JSONResponse, Response
from pydantic import Field, JsonValue

from gateway.callers import Submitter
from gateway.fleet import Connected
from gateway.openai.errors import NotOffered
from gateway.openai.fields import OpenAIRequest, Unused, check_neutral, check_offered, not_offered, not_offered_form
from gateway.openai.running import Asked
from gateway.openai.uploads import check_size, pieces
from gateway.route import checked_router
from pipelines.job_files import JobFile

router = checked_router(prefix="/v1", tags=["openai"])
Size = Annotated[str, Field(pattern=r"^(auto|[0-9]{2,4}x[0-9]{2,4})$")]


@router.post("/images/edits", response_model=None)
async def edits(
    request: Request,
    caller: Submitter,
    broker: Connected,
    image: Annotated[UploadFile, File()],
    prompt: Annotated[str, Form(max_length=32000)] = "",
    model: Annotated[str, Form(max_length=200)] = "",
    response_format: Annotated[Literal["b64_json", "url"], Form()] = "b64_json",
    n: Annotated[Literal["1"], Form()] = "1",
    size: Annotated[Literal["auto"], Form(description="the model says it")] = "auto",
    output_format: Annotated[Literal["png"], Form()] = "png",
    user: Annotated[str, Form()] = "",
    safety_identifier: Annotated[str, Form()] = "",
    quality: Annotated[str, Form(description="has no effect")] = "",
    input_fidelity: Annotated[str, Form(description="has no effect")] = "",
    background: Annotated[str, not_offered_form()] = "",
    mask: Annotated[UploadFile | None, File(description="is not offered")] = None,
    output_compression: Annotated[str, not_offered_form()] = "",
    partial_images: Annotated[str, not_offered_form()] = "",
    stream: Annotated[bool, not_offered_form()] = False,
) -> Response:
    """Enlarge a picture by the fleet's super-resolution; the words of `prompt` are not read."""
    if response_format == "url":
        raise NotOffered("response_format url is not offered", "take b64_json, or run upscale by /api/v1/jobs")
    refused: dict[str, JsonValue] = {"background": background, "output_compression": output_compression}
    refused["partial_images"] = partial_images
    for name, value in {**refused, "stream": stream, "mask": mask is not None}.items():
        check_neutral(name, value)
    asked = Asked(request, broker, caller)
    nbytes = check_size(image, caller)
    spec = await asked.pipeline("upscale", model, {"encode.format": "image"})
    job = await asked.submit(spec, pieces(image), image.filename or "picture", nbytes)
    return JSONResponse(await _pictures(await asked.files(job)))


class GenerationRequest(OpenAIRequest):
    """Words that are to become pictures."""

    prompt: str = Field(min_length=1, max_length=32000)
    n: int = Field(default=1, ge=1, le=10)
    size: Size = "auto"
    response_format: Literal["b64_json", "url"] = "b64_json"
    output_format: Literal["png"] = "png"
    quality: Unused = None
    moderation: Unused = None
    background: JsonValue = not_offered()
    output_compression: JsonValue = not_offered()
    partial_images: JsonValue = not_offered()
    stream: JsonValue = not_offered()
    style: JsonValue = not_offered()


@router.post("/images/generations", response_model=None)
async def generations(request: Request, caller: Submitter, broker: Connected, wanted: GenerationRequest) -> Response:
    """Draw pictures from words."""
    check_offered(wanted)
    if wanted.response_format == "url":
        raise NotOffered("response_format url is not offered", "take b64_json, or run imagine by /api/v1/jobs")
    line: dict[str, Any] = {"prompt": wanted.prompt}
    if wanted.size != "auto":
        line["width"], line["height"] = map(int, wanted.size.split("x"))
    asked = Asked(request, broker, caller)
    spec = await asked.pipeline("imagine", wanted.model, {"encode.format": "image"})
    lines = [{"id": str(number), **line} for number in range(wanted.n)]
    job = await asked.ask(spec, lines)
    return JSONResponse(await _pictures(await asked.files(job)))


async def _pictures(files: list[JobFile]) -> dict[str, Any]:
    data = [{"b64_json": base64.b64encode(await file.read()).decode()} for file in files]
    return {"created": int(time.time()), "data": data}
