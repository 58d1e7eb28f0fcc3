"""The models of the fleet: shown, added, updated while jobs run, and removed."""

import asyncio
import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Query, Request
from pydantic import BaseModel, Field
from starlette.status import HTTP_201_CREATED, HTTP_204_NO_CONTENT

from engines.content import Content, graph_of
from engines.models.catalogue import travelling
from engines.models.files import NewFiles
from engines.models.proposal import propose
from engines.models.store import check_name, find
from gateway.callers import Operator, Reader
from gateway.fleet import Connected
from gateway.model_files import received
from gateway.route import checked_router
from pipelines.models import load_card
from pipelines.registry import known_pipelines
from pipelines.variants import find_model, model_names, put_model, remove_model
from schemas.declared import ModelName
from schemas.errors import RigflowError
from schemas.given_fields import parse_fields
from schemas.model import ModelSpec
from schemas.model_files import bytes_of

router = checked_router(prefix="/models", tags=["models"])
_FILE = {"type": "string", "format": "binary"}
_FORM: dict[str, Any] = {
    "type": "object",
    "properties": {"file": {"type": "array", "items": _FILE}},
    "required": ["file"],
    "additionalProperties": False,
}
_BINARY = {
    **{kind: {"schema": _FILE} for kind in ("application/octet-stream", "application/zip")},
    "multipart/form-data": {"schema": _FORM},
}


class ModelView(BaseModel):
    """A model, by the name under which it was published last."""

    name: str
    version: str
    identity: str
    heads: list[str] = Field(description="what its outputs mean")
    further_bytes: int = Field(description="of files beside its graph")
    pipelines: list[str] = Field(description="pipelines of the fleet that run it")

    @classmethod
    def of(cls, card: ModelSpec, pipelines: list[str]) -> "ModelView":
        """The view of a model."""
        return cls(
            name=card.name,
            version=card.version,
            identity=card.identity,
            heads=[head.kind for head in card.heads],
            further_bytes=bytes_of(card.files),
            pipelines=pipelines,
        )


class ModelDetail(ModelView):
    """A model with its card."""

    card: dict[str, Any]


class ModelList(BaseModel):
    """The models of the fleet."""

    models: list[ModelView]


@router.get("")
async def list_(caller: Reader, broker: Connected) -> ModelList:
    """List the models of the fleet, by name."""
    specs = await known_pipelines(broker)
    names = sorted((await model_names(broker)).items())
    cards = [(name, await load_card(broker, identity)) for name, identity in names]
    return ModelList(
        models=[ModelView.of(card, [spec.name for spec in specs if name in spec.models]) for name, card in cards]
    )


@router.get("/{model}")
async def show(model: str, caller: Reader, broker: Connected) -> ModelDetail:
    """Show a model and its card."""
    card = await find_model(broker, model)
    using = [spec.name for spec in await known_pipelines(broker) if model in spec.models]
    return ModelDetail(**ModelView.of(card, using).model_dump(), card=card.model_dump(mode="json"))


@router.post("", status_code=HTTP_201_CREATED, openapi_extra={"requestBody": {"required": True, "content": _BINARY}})
async def add(
    request: Request,
    caller: Operator,
    broker: Connected,
    name: Annotated[ModelName, Query(description="what pipelines call it")],
    fields: Annotated[list[str], Query(alias="set", description="FIELD=VALUE of its card; repeat it")] = [],  # noqa: B006
) -> ModelView:
    """Add a model, or update the one of that name; its card is proposed as `rigflow model add` does.

    The body is an ONNX file, an archive (zip) of the model's files, or a form with a part for each of them.
    Pipelines that run a model of that name run the new one from now on; jobs that were submitted before keep theirs.
    Nothing is changed if it does not fit one of them.
    """
    changes = {**parse_fields(fields, "set", "inputs.0.colours=bgr"), "name": name}
    with tempfile.TemporaryDirectory(prefix="rigflow-model-") as folder, _without(folder):
        path = await received(request, caller, Path(folder), name, broker.settings.models_bytes)
        card, content = await asyncio.to_thread(_proposed, path, Path(folder) / ".store", changes)
        changed = await put_model(broker, card, content)
    return ModelView.of(card, [spec.name for spec in changed])


@router.delete("/{model}", status_code=HTTP_204_NO_CONTENT)
async def remove(model: str, caller: Operator, broker: Connected) -> None:
    """Delete a model that no pipeline of the fleet runs."""
    await remove_model(broker, model)


@contextmanager
def _without(folder: str) -> Iterator[None]:
    """Errors of a block name files as the caller did: without the path of this folder."""
    try:
        yield
    except RigflowError as error:
        error.what, error.hint = (text.replace(f"{folder}/", "") for text in (error.what, error.hint))
        raise


def _proposed(path: Path, store: Path, changes: Mapping[str, Any]) -> tuple[ModelSpec, Content]:
    """The model of a file or folder in the form in which workers use it; its files stay in `store`.

    Raises ModelError, UsageError.
    """
    with NewFiles(store, lambda: None) as new:
        found = find(path, new)
        proposal = propose(found.path, found.content, found.name).changed(changes, "given here")
        sha256 = hashlib.sha256(graph_of(found.content)).hexdigest()
        card = proposal.card().model_copy(update={"sha256": sha256, "files": found.taken.files})
        check_name(card.name)
        return travelling(found.path, card, found.content)
