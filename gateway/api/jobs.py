"""Jobs: created by an upload, listed, shown, cancelled, tried again, deleted."""

from http import HTTPStatus
from typing import Annotated

from fastapi import Header, Query, Request, Response
from starlette.status import HTTP_200_OK, HTTP_201_CREATED, HTTP_204_NO_CONTENT

from gateway.api.dead import own_letters
from gateway.api.views import JobPage, JobView
from gateway.callers import Reader, Submitter
from gateway.fleet import Connected, KnownJobs, client_of
from gateway.problems import HttpError
from gateway.route import checked_router
from gateway.uploads import BODY, MediaRequest, submit_body
from pipelines.dead import retry
from pipelines.inventory import take_inventories
from schemas.declared import TOKEN, Name
from schemas.errors import UsageError
from schemas.jobs import JobState, Manifest

router = checked_router(prefix="/jobs", tags=["jobs"])
_KEY = Header(alias="Idempotency-Key", description="becomes the job's id", json_schema_extra={"pattern": TOKEN})
IdempotencyKey = Annotated[Name, _KEY]


@router.post(
    "",
    status_code=HTTP_201_CREATED,
    responses={HTTP_200_OK: {"model": JobView, "description": "The same request was made before: the job is known"}},
    openapi_extra=BODY,
)
async def create(
    request: Request,
    response: Response,
    caller: Submitter,
    broker: Connected,
    wanted: Annotated[MediaRequest, Query()],
    key: IdempotencyKey = "",
) -> JobView:
    """Create a job from a media: the body is its bytes, or a form with the parameters and then a `file`.

    Or there is no body, and `url` is where the media is, at a host from which the fleet may fetch it.

    The body is stored as it comes, of any length. While the fleet is full, this answers 503 with `Retry-After`.
    """
    job = await submit_body(request, caller, broker, wanted, key)
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    if not job.new:
        response.status_code = HTTP_200_OK
    return JobView.of(job.manifest)


@router.get("")
async def list_(
    caller: Reader,
    broker: Connected,
    jobs: KnownJobs,
    state: Annotated[list[JobState] | None, Query(description="only jobs in one of these states")] = None,
    pipeline: Annotated[str, Query(description="only jobs of this pipeline")] = "",
    name: Annotated[str, Query(description="only jobs whose name contains this")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str, Query(description="`next` of the page before")] = "",
) -> JobPage:
    """List the jobs of the last seven days, the newest first."""
    before = _parse_cursor(cursor)
    known = [
        each
        for each in sorted(await jobs.jobs(caller.tenant), key=_place, reverse=True)
        if (not pipeline or each.job.pipeline == pipeline)
        and name.casefold() in each.name.casefold()
        and (state is None or each.state in state)
    ]
    rest = known if before is None else [each for each in known if _place(each) < before]
    page, more = rest[:limit], len(rest) > limit
    unfinished = [each for each in page if not each.state.ended]
    now = {taken.manifest.job: taken.progress for taken in await take_inventories(broker, unfinished)}
    views = [JobView.of(now.get(each.job, each)) for each in page]
    return JobPage(jobs=views, next="{}.{}".format(*_place(page[-1])) if more else None, total=len(known))


@router.get("/{job}")
async def show(job: str, caller: Reader, broker: Connected) -> JobView:
    """Show how far a job is."""
    return JobView.of(await (await client_of(broker, caller).find(job)).progress())


@router.post("/{job}/cancel")
async def cancel(job: str, caller: Submitter, broker: Connected) -> JobView:
    """Cancel a job and delete its results; one that is over stays as it is."""
    return JobView.of(await (await client_of(broker, caller).find(job)).cancel())


@router.post("/{job}/retry")
async def retry_(job: str, caller: Submitter, broker: Connected) -> JobView:
    """Send the parts of a job again that failed, from its dead letters."""
    found = await client_of(broker, caller).find(job)
    failed = [each async for each in own_letters(broker, caller, job)]
    if not failed:
        raise HttpError(HTTPStatus.CONFLICT, f"job {job} has no dead letters", "submit its media again")
    for letter in failed:
        await retry(broker, letter)
    return JobView.of(await found.progress())


@router.delete("/{job}", status_code=HTTP_204_NO_CONTENT)
async def delete(job: str, caller: Submitter, broker: Connected) -> None:
    """Cancel a job if it is not over, and delete its results and what is known of it."""
    await (await client_of(broker, caller).find(job)).delete()


def _place(known: Manifest) -> tuple[int, str]:
    """The place in the list: by the millisecond of its beginning, then by its id."""
    return int(known.created_s * 1000), known.job.id


def _parse_cursor(cursor: str) -> tuple[int, str] | None:
    if not cursor:
        return None
    created_ms, _, job = cursor.partition(".")
    if not (created_ms.isascii() and created_ms.isdigit() and len(created_ms) < 20 and job):
        raise UsageError(f"cursor {cursor[:100]!a} is none", "give `next` of the page before")
    return int(created_ms), job
