"""Pictures and films by words or by a picture, among the results that `embed` stored in the fleet."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, TypeAlias

import numpy as np
from fastapi import Depends, Query, Request
from pydantic import BaseModel, Field

from engines.part import Array
from gateway.api.views import JobView
from gateway.callers import Reader
from gateway.embedding import Embedding
from gateway.fleet import Connected, KnownJobs
from gateway.leaving import while_there
from gateway.problems import HttpError
from gateway.route import checked_router
from gateway.uploads import counted
from gateway.vectors import Library, Vectors
from pipelines.broker import Broker
from pipelines.models import load_card
from schemas.errors import RigflowError
from schemas.model import ModelSpec

router = checked_router(prefix="/search", tags=["search"])
MOST_PICTURE_BYTES = 64 << 20
TIMEOUT_S = 120.0  # a worker may load the model first
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
Most = Annotated[int, Query(ge=1, le=1000, description="how many are found")]
Model = Annotated[str, Query(description="a model's name, where several made vectors; else that of the newest job")]


class HitView(BaseModel):
    """A picture that was found; of a job of a film the best one."""

    job: str
    name: str
    pipeline: str
    time_s: float | None = Field(description="seconds from the first frame; null for an image")
    score: float = Field(description="the cosine")
    thumbnail: str | None


class Searchable(BaseModel):
    """What may be searched by a model: so many media, with so many pictures."""

    model: str
    identity: str
    media: int
    pictures: int
    words: bool = Field(description="whether it may be searched by words")
    why: str = Field(description="why not; empty if it may")


class SearchView(BaseModel):
    """What can be searched, the newest model first. `left_out` jobs are older, and more than a gateway holds."""

    models: list[Searchable]
    left_out: int


class Hits(BaseModel):
    """What was found, the best first."""

    model: str
    media: int
    pictures: int
    left_out: int
    hits: list[HitView]


def _library(request: Request) -> Library:
    found: Library = request.app.state.library
    return found


Stored: TypeAlias = Annotated[Library, Depends(_library)]


@router.get("/models")
async def models(caller: Reader, broker: Connected, jobs: KnownJobs, library: Stored) -> SearchView:
    """List the models whose vectors can be searched: those of jobs of `embed` that are done."""
    found = await library.collection(broker, await jobs.jobs(caller.tenant))
    views = [await _searchable(broker, each) for each in _by_model(found.jobs)]
    return SearchView(models=views, left_out=found.left_out)


@router.get("")
async def by_words(
    request: Request,
    caller: Reader,
    broker: Connected,
    jobs: KnownJobs,
    library: Stored,
    words: Annotated[str, Query(min_length=1, max_length=1000, description="what is to be seen")],
    most: Most = 50,
    model: Model = "",
) -> Hits:
    """Find what fits words. Needs a model with a tower of texts, and workers that run `embed-text`."""
    found = await library.collection(broker, await jobs.jobs(caller.tenant))
    space = _chosen(found.jobs, model)
    card = await load_card(broker, space[0].identity)
    if card.text is None:
        raise HttpError(HTTPStatus.CONFLICT, _wordless(card), "search by a picture")
    asking = Embedding(request.app.state.asker, broker, caller, card).texts({0: words.encode(errors="replace")})
    vectors, _ = await while_there(request, asking, TIMEOUT_S)
    return _hits(space, found.left_out, vectors[0], most)


@router.post("", openapi_extra=_BODY)
async def by_picture(
    request: Request,
    caller: Reader,
    broker: Connected,
    jobs: KnownJobs,
    library: Stored,
    most: Most = 50,
    model: Model = "",
) -> Hits:
    """Find what looks like the picture that the body is. Needs workers that run `embed`."""
    picture = bytearray()
    async for piece in counted(request, caller):
        picture += piece
        if len(picture) > MOST_PICTURE_BYTES:
            what = f"a picture to search by may have {MOST_PICTURE_BYTES:,} bytes"
            raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, what, "send a smaller one")
    found = await library.collection(broker, await jobs.jobs(caller.tenant))
    space = _chosen(found.jobs, model)
    card = await load_card(broker, space[0].identity)
    asking = Embedding(request.app.state.asker, broker, caller, card).pictures({0: bytes(picture)})
    vectors, _ = await while_there(request, asking, TIMEOUT_S)
    return _hits(space, found.left_out, vectors[0], most)


def _chosen(jobs: Sequence[Vectors], model: str) -> list[Vectors]:
    """The vectors of a model, or of that of the newest job. Raises HttpError where there are none."""
    spaces = _by_model(jobs)
    space = next((each for each in spaces if model in ("", each[0].model, each[0].identity)), None)
    if space is None:
        there = ", ".join(sorted({each[0].model for each in spaces}))
        what = f"no vectors of model {model[:100]!a} are stored" if there else "no vectors are stored in the fleet"
        raise HttpError(
            HTTPStatus.CONFLICT, what, f"there are those of {there}" if there else "submit pictures to embed"
        )
    return space


def _hits(space: Sequence[Vectors], left_out: int, vector: Array, most: int) -> Hits:
    hits = [hit for each in space if (hit := _best(each, vector)) is not None]
    hits.sort(key=lambda hit: -hit.score)
    pictures = sum(len(each.vectors) for each in space)
    return Hits(model=space[0].model, media=len(space), pictures=pictures, left_out=left_out, hits=hits[:most])


def _by_model(jobs: Sequence[Vectors]) -> list[list[Vectors]]:
    """The jobs of each model, the model of the newest job first."""
    found: dict[str, list[Vectors]] = {}
    for each in jobs:
        found.setdefault(each.identity, []).append(each)
    return list(found.values())


async def _searchable(broker: Broker, space: Sequence[Vectors]) -> Searchable:
    why = ""
    try:
        card = await load_card(broker, space[0].identity)
        if card.text is None:
            why = f"{_wordless(card)}: search by a picture"
    except RigflowError as error:
        why = error.what
    return Searchable(
        model=space[0].model,
        identity=space[0].identity,
        media=len(space),
        pictures=sum(len(each.vectors) for each in space),
        words=not why,
        why=why,
    )


def _wordless(card: ModelSpec) -> str:
    return f"model {card.name} has no tower of texts"


def _best(of: Vectors, vector: Array) -> HitView | None:
    if not len(of.vectors) or of.vectors.shape[1] != len(vector):
        return None
    scores = of.vectors @ vector
    row = int(np.argmax(scores))
    time_s = float(of.times[row])
    job = of.job.job
    return HitView(
        job=job.id,
        name=of.names[row],
        pipeline=job.pipeline,
        time_s=None if np.isnan(time_s) else time_s,
        score=round(float(scores[row]), 6),
        thumbnail=JobView.of(of.job).thumbnail,
    )
