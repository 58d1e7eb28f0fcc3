"""`/v1/models`: the models of the fleet's pipelines."""

from typing import Any

from gateway.callers import Reader
from gateway.fleet import Connected
from gateway.route import checked_router
from pipelines.variants import find_model, model_names

router = checked_router(prefix="/v1", tags=["openai"])


@router.get("/models")
async def models(caller: Reader, broker: Connected) -> dict[str, Any]:
    """List the models that a request may name."""
    return {"object": "list", "data": [_model(name) for name in sorted(await model_names(broker))]}


@router.get("/models/{name:path}")
async def model(name: str, caller: Reader, broker: Connected) -> dict[str, Any]:
    """Show a model."""
    return _model((await find_model(broker, name)).name)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "rigflow"}
