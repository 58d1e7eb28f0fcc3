"""`/v1/embeddings`: vectors of texts and pictures by a model that compares them, as CLIP does.

They are computed by workers, through the pipelines `embed-text` and `embed`. Such a request is no job in the list.
"""

import asyncio
import base64
import binascii
import re
from typing import Literal

import numpy as np
from fastapi import Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from engines.part import Array
from gateway.callers import Submitter
from gateway.embedding import PICTURES, TEXTS, Embedding
from gateway.fleet import Connected
from gateway.leaving import while_there
from gateway.openai.fields import OpenAIRequest, texts_of
from gateway.openai.running import is_openais
from gateway.route import checked_router
from pipelines.broker import Broker
from pipelines.registry import load_pipeline, pipeline_names
from pipelines.variants import ModelUnknown, find_model, known_cards
from schemas.errors import UsageError
from schemas.model import ModelSpec

router = checked_router(prefix="/v1", tags=["openai"])
MOST_INPUTS = 2048
TIMEOUT_S = 300.0
_DATA_URL = re.compile(r"data:image/[a-z0-9.+-]{1,40}(?:;[a-z0-9=._-]{1,80})*;base64,", re.IGNORECASE)


class PictureUrl(BaseModel):
    """Where a picture is: a `data:` URL."""

    model_config = ConfigDict(extra="forbid")
    url: str
    detail: str = ""


class EmbeddedInput(BaseModel):
    """A text or a picture: `{"text": ...}`, `{"image": BASE64}`, or a part of a message of chat."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text", "image", "image_url", "input_text", "input_image"] | None = None
    text: str | None = None
    image: str | None = None
    image_url: PictureUrl | str | None = None


class EmbeddingRequest(OpenAIRequest):
    """Texts and pictures that are to become vectors. A `data:` URL is a picture wherever it stands."""

    input: str | EmbeddedInput | list[str | EmbeddedInput] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1, le=1 << 20)


@router.post("/embeddings", response_model=None)
async def embeddings(request: Request, caller: Submitter, broker: Connected, wanted: EmbeddingRequest) -> Response:
    """Make vectors of unit length of texts and pictures, which compare with each other by their dot product."""
    texts, pictures = _inputs(wanted)
    card = await _model(broker, wanted.model, bool(texts))
    asking = Embedding(request.app.state.asker, broker, caller, card)
    made = asyncio.gather(asking.texts(texts), asking.pictures(pictures))
    (of_texts, tokens), (of_pictures, _) = await while_there(request, made, TIMEOUT_S)
    vectors = of_texts | of_pictures
    width = len(vectors[0])
    if wanted.dimensions not in (None, width):
        what = f"dimensions is {wanted.dimensions}, and vectors of model {card.name} have {width} numbers"
        raise UsageError(what, "leave it out: they cannot be cut")
    data = [
        {"object": "embedding", "index": number, "embedding": _encoded(vectors[number], wanted.encoding_format)}
        for number in range(len(vectors))
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JSONResponse({"object": "list", "data": data, "model": card.name, "usage": usage})


async def _model(broker: Broker, name: str, texts: bool) -> ModelSpec:
    """The model that a client names; for a name of OpenAI's own that of a pipeline of the fleet, or any with texts."""
    if name not in ("", TEXTS, PICTURES) and not is_openais(name):
        card = await find_model(broker, name)
    else:
        card = await _own_model(broker)
    if texts and card.text is None:
        raise UsageError(f"model {card.name} embeds no texts", "name one with a text tower: GET /v1/models")
    return card


async def _own_model(broker: Broker) -> ModelSpec:
    """The model of `embed-text` or `embed`, as the fleet has them, or else the first with a text tower."""
    there = await pipeline_names(broker)
    for pipeline in (each for each in (TEXTS, PICTURES) if each in there):
        return await find_model(broker, next(iter((await load_pipeline(broker, pipeline)).model_names.values())))
    for card in await known_cards(broker):
        if card.text is not None:
            return card
    raise ModelUnknown("the fleet has no model that embeds texts", "the operator adds one, see docs/search.md")


def _inputs(wanted: EmbeddingRequest) -> tuple[dict[int, bytes], dict[int, bytes]]:
    """Texts and pictures by their numbers. Raises UsageError."""
    texts: dict[int, bytes] = {}
    pictures: dict[int, bytes] = {}
    for number, each in enumerate(texts_of("input", wanted.input, MOST_INPUTS)):
        text, picture = _one(number, each)
        if picture is not None:
            pictures[number] = picture
        else:
            texts[number] = text.encode(errors="replace")
    return texts, pictures


def _one(number: int, given: str | EmbeddedInput) -> tuple[str, bytes | None]:
    """The text of an entry, or its picture."""
    if isinstance(given, str):
        return given, _picture(number, given) if _DATA_URL.match(given) else None
    url = given.image_url.url if isinstance(given.image_url, PictureUrl) else given.image_url
    has = [each for each in (given.text, given.image, url) if each is not None]
    if len(has) != 1:
        raise UsageError(f"input {number} has {len(has)} of text, image and image_url", "give one of them")
    if given.text is not None:
        return given.text, None
    if has[0].startswith(("http:", "https:")):
        raise UsageError(f"input {number} is a URL, which is not fetched", "send the picture as a data: URL")
    return "", _picture(number, has[0])


def _picture(number: int, given: str) -> bytes:
    """The bytes of a picture in base64, alone or in a `data:` URL. Raises UsageError."""
    found = _DATA_URL.match(given)
    try:
        data = base64.b64decode(given[found.end() if found else 0 :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise UsageError(f"input {number}: its picture is no base64: {error}", "encode its bytes in base64") from error
    if not data:
        raise UsageError(f"input {number}: its picture is empty", "send its bytes in base64")
    return data


def _encoded(vector: Array, form: str) -> str | list[float]:
    """A vector of float32: its bytes, little-endian, in base64, or numbers that are exactly those when read again."""
    if form == "base64":
        return base64.b64encode(np.ascontiguousarray(vector, "<f4").tobytes()).decode()
    return [float(f"{number:.9g}") for number in vector.tolist()]
