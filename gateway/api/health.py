"""Health, for an orchestrator: whether the process lives, and whether it reaches its broker."""

from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from pipelines.broker import Broker

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """`ok`, or the reason that it is not."""

    status: str


@router.get("/livez")
@router.get("/api/v1/health/live", name="live")
async def live() -> Health:
    """Whether the gateway runs."""
    return Health(status="ok")


@router.get("/readyz", responses={503: {"model": Health}})
@router.get("/api/v1/health/ready", name="ready", responses={503: {"model": Health}})
async def ready(request: Request, response: Response) -> Health:
    """Whether the gateway reaches its broker."""
    broker: Broker = request.app.state.broker
    if broker.connection.connected:
        return Health(status="ok")
    response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return Health(status="the broker is away")
