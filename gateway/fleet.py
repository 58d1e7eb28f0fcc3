"""The connection of a gateway to its fleet, as a parameter of routes."""

import asyncio
from typing import Annotated, TypeAlias

from fastapi import Depends, Request

from gateway.callers import Caller
from pipelines.broker import Broker
from pipelines.client import Client
from pipelines.job_index import JobIndex
from schemas.errors import BrokerError

AWAY_HINT = "try again in a moment; if it stays so, tell the operator of the fleet"
AWAY_S = 5.0  # a broker that starts again is there sooner; a request waits no longer for one that is away
PATIENCE_S = 20.0  # how long an upload waits for a full fleet


async def _connected(request: Request) -> Broker:
    broker: Broker = request.app.state.broker
    try:
        async with asyncio.timeout(AWAY_S):
            await broker.connection.wait_connected()
    except TimeoutError:
        raise BrokerError("the broker is away", AWAY_HINT) from None
    return broker


Connected: TypeAlias = Annotated[Broker, Depends(_connected)]


async def _jobs(request: Request, broker: Connected) -> JobIndex:
    index: JobIndex = request.app.state.jobs
    return index


KnownJobs: TypeAlias = Annotated[JobIndex, Depends(_jobs)]


def client_of(broker: Broker, caller: Caller) -> Client:
    """A client for the jobs of a caller's tenant."""
    return Client(broker, caller.tenant, submitter=caller.name)
