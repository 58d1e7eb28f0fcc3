"""Pictures and films by words or by a picture, among the results that `embed` stored in the fleet."""

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
from fastapi import Depends, Query, Request
from pydantic import BaseModel, Field

from engines.content import Content
from engines.extras import install_extra
from engines.library.query import embed_row, picture_row
from engines.models.text import embed_texts
from engines.own_process import in_own_process
from engines.part import Array
from gateway.api.views import JobView
from gateway.callers import Reader
from gateway.fleet import Connected, KnownJobs
from gateway.problems import HttpError
from gateway.route import checked_router
from gateway.uploads import counted
from gateway.vectors import Collection, Library, Vectors
from pipelines.broker import Broker
from pipelines.models import ModelCache, load_card
from schemas.errors import RigflowError
from schemas.model import ModelSpec

Embed: TypeAlias = Callable[[ModelSpec, Content], Array]
router = checked_router(prefix="/search", tags=["search"])
MOST_PICTURE_BYTES = 64 << 20
_DECODES = "search by another picture"
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


class Searcher:
    """Searches one at a time: the tower of a model may use a core and much memory."""

    def __init__(self) -> None:
        self.library = Library()
        self.turn = asyncio.Lock()


def _searcher(request: Request) -> Searcher:
    found: Searcher = request.app.state.searcher
    return found


Search: TypeAlias = Annotated[Searcher, Depends(_searcher)]


@router.get("/models")
async def models(caller: Reader, broker: Connected, jobs: KnownJobs, search: Search) -> SearchView:
    """List the models whose vectors can be searched: those of jobs of `embed` that are done."""
    found = await search.library.collection(broker, await jobs.jobs(caller.tenant))
    views = [await _searchable(broker, each) for each in _by_model(found.jobs)]
    return SearchView(models=views, left_out=found.left_out)


@router.get("")
async def by_words(
    caller: Reader,
    broker: Connected,
    jobs: KnownJobs,
    search: Search,
    words: Annotated[str, Query(min_length=1, max_length=1000, description="what is to be seen")],
    most: Most = 50,
    model: Model = "",
) -> Hits:
    """Find what fits words. Needs a model with a tower of texts, and the extra `search`."""

    def embedded(spec: ModelSpec, content: Content) -> Array:
        return np.asarray(embed_texts(spec, content, [words])[0])

    found = await search.library.collection(broker, await jobs.jobs(caller.tenant))
    return await _hits(search, broker, found, model, most, embedded)


@router.post("", openapi_extra=_BODY)
async def by_picture(
    request: Request,
    caller: Reader,
    broker: Connected,
    jobs: KnownJobs,
    search: Search,
    most: Most = 50,
    model: Model = "",
) -> Hits:
    """Find what looks like the picture, or the first frame of the film, that the body is."""
    with tempfile.NamedTemporaryFile(prefix="rigflow-search-") as copy:
        total = 0
        async for piece in counted(request, caller):
            total += len(piece)
            if total > MOST_PICTURE_BYTES:
                what = f"a picture to search by may have {MOST_PICTURE_BYTES:,} bytes"
                raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, what, "send a smaller one")
            await asyncio.to_thread(copy.write, piece)
        copy.flush()

        def embedded(spec: ModelSpec, content: Content) -> Array:
            return embed_row(
                spec,
                content,
                in_own_process(spec.name, "gets the picture of", _DECODES, picture_row, spec, Path(copy.name), 0.0),
            )

        found = await search.library.collection(broker, await jobs.jobs(caller.tenant))
        return await _hits(search, broker, found, model, most, embedded)


async def _hits(
    search: Searcher, broker: Broker, collection: Collection, model: str, most: int, embedded: Embed
) -> Hits:
    spaces = _by_model(collection.jobs)
    space = next((each for each in spaces if model in ("", each[0].model, each[0].identity)), None)
    if space is None:
        there = ", ".join(sorted({each[0].model for each in spaces}))
        what = f"no vectors of model {model[:100]!a} are stored" if there else "no vectors are stored in the fleet"
        raise HttpError(
            HTTPStatus.CONFLICT, what, f"there are those of {there}" if there else "submit pictures to embed"
        )
    async with search.turn:
        vector = await _vector(broker, space[0].identity, embedded)
    hits = [hit for each in space if (hit := _best(each, vector)) is not None]
    hits.sort(key=lambda hit: -hit.score)
    pictures = sum(len(each.vectors) for each in space)
    return Hits(
        model=space[0].model, media=len(space), pictures=pictures, left_out=collection.left_out, hits=hits[:most]
    )


async def _vector(broker: Broker, identity: str, embedded: Embed) -> Array:
    """The vector of what is searched for, by the model that made the others."""
    cache = ModelCache(broker, broker.settings.cache_folder / "models")
    spec, content = await cache.load(identity)
    try:
        found: Array = await asyncio.to_thread(embedded, spec, content)
        return found
    finally:
        cache.close()


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
            why = f"model {card.name} has no tower of texts: search by a picture"
        elif find_spec("tokenizers") is None:
            why = f"words need the package tokenizers here: {install_extra('search')}"
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
