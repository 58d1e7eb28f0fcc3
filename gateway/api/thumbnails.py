"""A small picture of a job, made of its first picture or film as it is asked for."""

import asyncio
import logging
import tempfile
from collections import OrderedDict
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

from fastapi import Query, Request, Response
from starlette.status import HTTP_200_OK, HTTP_204_NO_CONTENT

from engines.outputs.pictures import encode_jpeg
from engines.outputs.thumbnail import thumbnail
from gateway.api.results import Place
from gateway.api.views import has_picture
from gateway.callers import Reader
from gateway.fleet import Connected, client_of
from gateway.route import checked_router
from pipelines.job import Job
from pipelines.job_files import JobFile
from schemas.errors import NotFound, RigflowError
from schemas.fields import clean_name

log = logging.getLogger("rigflow")
router = checked_router(prefix="/jobs", tags=["results"])
BOX = (180, 320)  # the most rows and columns
MOST_BYTES = 32 << 20  # of a file that is read for it: the first picture of a film is at its beginning
Version = Annotated[str, Query(description="has no meaning: a job's `thumbnail` has another one when it is done again")]
KEPT = 500  # pictures of some 10 kB, the last that were asked for
_JPEG = {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}


class Thumbnails:
    """Makes small pictures, one at a time: a decoder may use a core, and much memory."""

    def __init__(self) -> None:
        self._made: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._turn = asyncio.Lock()

    async def of(self, tenant: str, file: JobFile) -> bytes:
        """The small picture of a file, a JPEG. Raises MediaError, StoreError."""
        place = tenant, file.tag  # a header says the tag
        async with self._turn:
            found = self._made.pop(place, None) or await _make(file)
            self._made[place] = found
            while len(self._made) > KEPT:
                self._made.popitem(last=False)
            return found


@router.get(
    "/{job}/thumbnail",
    response_class=Response,
    responses={HTTP_200_OK: {"content": _JPEG}, HTTP_204_NO_CONTENT: {"description": "there is no picture of it"}},
)
async def show(
    request: Request, job: str, caller: Reader, broker: Connected, file: str = "", at: Place = 0, v: Version = ""
) -> Response:
    """A small JPEG of a job's first picture or film, or of that `file`; empty (204) where none can be made."""
    found = await _file(await client_of(broker, caller).find(job), file, at)
    made: Thumbnails = request.app.state.thumbnails
    content = b""
    if found is not None:
        try:
            content = await made.of(caller.tenant, found)
        except RigflowError as error:
            log.info("no picture of %s: %s", clean_name(found.name), error)
    if not content:  # a browser would report any other answer as an error of the page
        return Response(status_code=HTTP_204_NO_CONTENT)
    headers = {"Cache-Control": "private, max-age=86400", "X-Content-Type-Options": "nosniff"}
    return Response(content, media_type="image/jpeg", headers=headers)


async def _file(job: Job, wanted: str, place: int) -> JobFile | None:
    """The file that is asked for; without a name the first with a picture, if the broker has any."""
    if not wanted:
        async with aclosing(job.files()) as files:
            return await anext((each async for each in files if has_picture(each.name)), None)
    found = await job.file(wanted, place)
    if found is None or not has_picture(found.name):
        raise NotFound(f"job {job.id} has no such picture", f"GET /api/v1/jobs/{job.id}/results lists its files")
    return found


async def _make(file: JobFile) -> bytes:
    with tempfile.NamedTemporaryFile(prefix="rigflow-thumbnail-", suffix=Path(file.name).suffix) as copy:
        async for chunk in file.chunks(0, min(file.size, MOST_BYTES)):
            await asyncio.to_thread(copy.write, chunk)
        copy.flush()
        return await asyncio.to_thread(_small, Path(copy.name))


def _small(path: Path) -> bytes:
    picture = thumbnail(path, 0.0, BOX)
    return encode_jpeg(picture[: picture.shape[0] // 2 * 2 or 1, : picture.shape[1] // 2 * 2 or 1].copy())
