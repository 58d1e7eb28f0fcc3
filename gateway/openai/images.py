"""`/v1/images/edits` enlarges a picture by `upscale`, `/v1/images/generations` draws pictures by `imagine`."""

import base64
import time
from typing import Annotated, Any, Literal

from fastapi import File, Form, Request, UploadFile
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from gateway.callers import Submitter
from gateway.fleet import Connected
from gateway.openai.route import NotOffered, api_router
from gateway.openai.running import Asked
from gateway.openai.uploads import check_size, pieces
from pipelines.job_files import JobFile

router = api_router("openai")
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
) -> Response:
    """Enlarge a picture by the fleet's super-resolution; the words of `prompt` are not read."""
    if response_format == "url":
        raise NotOffered("response_format url is not offered", "take b64_json, or run upscale by /api/v1/jobs")
    asked = Asked(request, broker, caller)
    size = check_size(image, caller)
    spec = await asked.pipeline("upscale", model, {"encode.format": "image"})
    job = await asked.submit(spec, pieces(image), image.filename or "picture", size)
    return JSONResponse(await _pictures(await asked.files(job)))


class GenerationRequest(BaseModel):
    """Words that are to become pictures."""

    model_config = ConfigDict(extra="allow")
    prompt: str = Field(min_length=1, max_length=32000)
    model: str = Field(default="", max_length=200)
    n: int = Field(default=1, ge=1, le=10)
    size: Size = "auto"
    response_format: Literal["b64_json", "url"] = "b64_json"


@router.post("/images/generations", response_model=None)
async def generations(request: Request, caller: Submitter, broker: Connected, wanted: GenerationRequest) -> Response:
    """Draw pictures from words."""
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
