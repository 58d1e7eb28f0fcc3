"""Dead letters: failed work with its reason, to be sent again or deleted."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from fastapi import Path, Query
from pydantic import BaseModel, Field
from starlette.status import HTTP_204_NO_CONTENT

from gateway.callers import Caller, Operator, Reader
from gateway.fleet import Connected
from gateway.route import checked_router
from pipelines import dead
from pipelines.broker import Broker
from pipelines.dead import Letter, find_letter, letters
from schemas.results import Attempt

router = checked_router(prefix="/dead-letters", tags=["dead letters"])
Number = Annotated[int, Path(ge=1, le=1 << 53, description="number of a dead letter")]


class LetterView(BaseModel):
    """A dead letter: what failed, where and why."""

    number: int
    job: str
    pipeline: str
    stage: str
    segment: int = Field(description="-1: the whole job")
    part: int | None = Field(description="null: all of the segment")
    error: str
    detail: str
    start_s: float
    end_s: float
    worker: str
    attempts: list[Attempt]
    input_bytes: int
    at: float = Field(description="when it failed, in seconds since 1970")

    @classmethod
    def of(cls, letter: Letter) -> "LetterView":
        """The view of a dead letter."""
        failure = letter.failure
        return cls(
            number=letter.number,
            job=failure.key.job.id,
            pipeline=failure.key.job.pipeline,
            stage=failure.stage,
            segment=failure.key.segment,
            part=None if failure.entire_segment else failure.key.part,
            error=failure.error,
            detail=failure.detail,
            start_s=failure.start_s,
            end_s=failure.end_s,
            worker=failure.worker,
            attempts=list(failure.attempts),
            input_bytes=letter.nbytes,
            at=failure.at_s,
        )


class LetterPage(BaseModel):
    """Some dead letters, oldest first; `next` is the `after` of the following page."""

    letters: list[LetterView]
    next: int | None


@router.get("")
async def list_(
    caller: Reader,
    broker: Connected,
    job: Annotated[str, Query(description="only those of this job")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[int, Query(ge=0, le=1 << 53, description="`next` of the page before")] = 0,
) -> LetterPage:
    """List dead letters, oldest first."""
    page: list[LetterView] = []
    async with aclosing(own_letters(broker, caller, job, after)) as found:
        async for letter in found:
            if len(page) == limit:
                return LetterPage(letters=page, next=page[-1].number)
            page.append(LetterView.of(letter))
    return LetterPage(letters=page, next=None)


@router.get("/{number}")
async def show(number: Number, caller: Reader, broker: Connected) -> LetterView:
    """Show a dead letter, with every attempt."""
    return LetterView.of(await _find(broker, caller, number))


@router.post("/{number}/retry", status_code=HTTP_204_NO_CONTENT)
async def retry(number: Number, caller: Operator, broker: Connected) -> None:
    """Send the input of a dead letter again, to the queue that it came from."""
    await dead.retry(broker, await _find(broker, caller, number))


@router.delete("/{number}", status_code=HTTP_204_NO_CONTENT)
async def drop(number: Number, caller: Operator, broker: Connected) -> None:
    """Delete a dead letter and its input; the failure stays in the job's results."""
    await dead.drop(broker, await _find(broker, caller, number))


async def own_letters(broker: Broker, caller: Caller, job: str, after: int = 0) -> AsyncGenerator[Letter, None]:
    """The dead letters of a caller's tenant, of one job unless that is "". Raises BrokerError."""
    async for letter in letters(broker, job, after, caller.tenant):
        if letter.failure.key.job.tenant == caller.tenant:
            yield letter


async def _find(broker: Broker, caller: Caller, number: int) -> Letter:
    letter = await find_letter(broker, number, caller.tenant)
    if letter.failure.key.job.tenant != caller.tenant:
        raise dead.no_letter(number)
    return letter
