"""`/v1/models`: the models of the fleet's pipelines."""

from typing import Any

from gateway.callers import Reader
from gateway.fleet import Connected
from gateway.route import checked_router
from pipelines.variants import find_model, models_since

router = checked_router(prefix="/v1", tags=["openai"])


@router.get("/models")
async def models(caller: Reader, broker: Connected) -> dict[str, Any]:
    """List the models that a request may name."""
    known = sorted((await models_since(broker)).items())
    return {"object": "list", "data": [_model(name, since_s) for name, since_s in known]}


@router.get("/models/{name:path}")
async def model(name: str, caller: Reader, broker: Connected) -> dict[str, Any]:
    """Show a model."""
    found = (await find_model(broker, name)).name
    return _model(found, (await models_since(broker)).get(name, 0.0))


def _model(name: str, since_s: float) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": int(since_s), "owned_by": "rigflow"}
