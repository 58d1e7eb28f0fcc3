"""Pipelines and models by content hash, at the broker: any worker can serve any of them with no file of its own."""

import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from functools import cache
from pathlib import Path

from pydantic import ValidationError

from engines.whole import write_whole
from pipelines.broker import Broker
from pipelines.jobs import all_manifests
from schemas.errors import ModelError, PipelineError, StoreError
from schemas.pipeline import ModelSpec, PipelineSpec, parse_pipeline

CARD = "card"  # metadata of a model's object: its ModelSpec as json


def builtin_pipelines() -> list[str]:
    """Names of the pipelines that come with rigflow."""
    return sorted(_definitions())


def builtin_pipeline(name: str) -> PipelineSpec:
    """A pipeline that comes with rigflow. Raises PipelineError when there is none of that name."""
    text = _definitions().get(name)
    if text is None:
        raise PipelineError(f"no pipeline is called {name}", f"there are {', '.join(builtin_pipelines())}")
    return parse_pipeline(text, f"{name}.toml")


async def publish_pipeline(
    broker: Broker, spec: PipelineSpec, models: Mapping[str, tuple[ModelSpec, bytes]]
) -> PipelineSpec:
    """Make a pipeline known with its models pinned, under its name and its revision; the pinned spec.

    `models` has an entry for each model of its infer stages, as they name it. Raises ModelError, BrokerError.
    """
    for stage in spec.infers:
        if stage.model not in models:
            raise ModelError(f"stage {stage.name}: model {stage.model} is missing", "give its ONNX file")
    used = {stage.model: models[stage.model] for stage in spec.infers}
    pinned = spec.model_copy(update={"models": {name: card.sha256 for name, (card, _) in sorted(used.items())}})
    bucket, revision = broker.names.pipelines, pinned.revision
    body = pinned.model_dump_json().encode()
    if await broker.get(bucket, f"revision.{revision}") != body:
        for card, model in used.values():
            await _publish_model(broker, card, model)
        await broker.put(bucket, f"revision.{revision}", body)
    if await broker.get(bucket, f"name.{spec.name}") != revision.encode():
        await broker.put(bucket, f"name.{spec.name}", revision.encode())
    return pinned


async def withdraw_pipeline(broker: Broker, name: str) -> list[str]:
    """Take a pipeline and its revisions from the fleet: workers stop hosting it; the revisions that stay.

    Those stay that jobs which are not over need: withdraw it again when they are. Its queues and models stay. Raises
    PipelineError when the broker does not know it.
    """
    bucket = broker.names.pipelines
    items = await broker.items(bucket, "revision.*")
    revisions = sorted(key.removeprefix("revision.") for key, body in items.items() if _name_in(body) == name)
    if await broker.get(bucket, f"name.{name}") is None and not revisions:
        known = ", ".join(sorted(await pipeline_names(broker))) or "none"
        raise PipelineError(f"the broker knows no pipeline {name}", f"it knows {known}")
    needed = {manifest.job.revision for manifest in await all_manifests(broker) if not manifest.state.ended}
    await broker.delete_key(bucket, f"name.{name}")
    for revision in revisions:
        if revision not in needed:
            await broker.delete_key(bucket, f"revision.{revision}")
    return [revision for revision in revisions if revision in needed]


async def load_pipeline(broker: Broker, name: str) -> PipelineSpec:
    """A pipeline by its revision, or the newest one of a name. Raises PipelineError when nobody published it."""
    bucket = broker.names.pipelines
    body = await broker.get(bucket, f"revision.{name}")
    if body is None and (revision := await broker.get(bucket, f"name.{name}")) is not None:
        body = await broker.get(bucket, f"revision.{revision.decode()}")
    if body is None:
        known = ", ".join(sorted(await pipeline_names(broker))) or "none yet"
        raise PipelineError(f"the broker knows no pipeline {name}", f"it knows {known}")
    return _parse(body)


async def pipeline_names(broker: Broker) -> dict[str, str]:
    """The pipelines that the broker knows: name -> newest revision."""
    items = await broker.items(broker.names.pipelines, "name.*")
    return {key.removeprefix("name."): revision.decode() for key, revision in items.items()}


async def watch_pipelines(broker: Broker) -> AsyncIterator[PipelineSpec]:
    """Every pipeline revision that the broker knows and will know, each once."""
    seen: set[str] = set()
    async for key, body in broker.watch(broker.names.pipelines, "revision.*"):
        if key not in seen:
            seen.add(key)
            yield _parse(body)


async def load_model(broker: Broker, sha256: str, folder: Path) -> tuple[ModelSpec, bytes]:
    """A model by its hash, from `folder` or the broker; what comes from the broker is kept in `folder`.

    Raises ModelError when the broker has no such model, StoreError when it is damaged or `folder` not writable.
    """
    kept_card, kept_model = folder / f"{sha256}.json", folder / f"{sha256}.onnx"
    if kept_card.exists() and kept_model.exists():
        model = kept_model.read_bytes()
        if hashlib.sha256(model).hexdigest() == sha256:
            return _parse_card(kept_card.read_bytes(), sha256), model
    from pipelines.blobs import blob_info, get_blob

    info = await blob_info(broker, broker.names.models, sha256)
    if info is None:
        raise ModelError(f"the broker has no model {sha256[:12]}", "publish its pipeline again")
    model = await get_blob(broker, broker.names.models, sha256)
    if hashlib.sha256(model).hexdigest() != sha256:
        raise StoreError(f"model {sha256[:12]} is damaged in the broker's store", "publish its pipeline again")
    card = info.metadata[CARD].encode()
    _keep(kept_model, model)
    _keep(kept_card, card)
    return _parse_card(card, sha256), model


async def _publish_model(broker: Broker, card: ModelSpec, model: bytes) -> None:
    from pipelines.blobs import blob_info, put_blob

    if hashlib.sha256(model).hexdigest() != card.sha256:
        raise ModelError(f"model {card.name}: its file is not the one its card describes", "make its card anew")
    if await blob_info(broker, broker.names.models, card.sha256) is None:
        await put_blob(broker, broker.names.models, model, card.sha256, {CARD: card.model_dump_json()})


def _keep(path: Path, content: bytes) -> None:
    try:
        write_whole(path, content)
    except OSError as error:
        raise StoreError(
            f"cannot keep models in {path.parent}: {error.strerror}", "set `cache` to another folder"
        ) from error


def _name_in(body: bytes) -> str:
    """The name in a revision, also in one that only another version of rigflow can read; "" where there is none."""
    try:
        spec = json.loads(body)
    except ValueError:
        return ""
    return str(spec.get("name", "")) if isinstance(spec, dict) else ""


def _parse(body: bytes) -> PipelineSpec:
    try:
        return PipelineSpec.model_validate_json(body)
    except ValidationError as error:
        hint = "it was published by another version of rigflow; publish it again"
        raise PipelineError("a pipeline at the broker is not readable", hint) from error


def _parse_card(card: bytes, sha256: str) -> ModelSpec:
    try:
        return ModelSpec.model_validate_json(card)
    except ValidationError as error:
        hint = "it was published by another version of rigflow; publish it again"
        raise ModelError(f"the card of model {sha256[:12]} is not readable", hint) from error


@cache
def _definitions() -> dict[str, str]:
    """Name -> text of each pipeline file in pipelines/definitions."""
    from importlib.resources import files

    entries = files("pipelines").joinpath("definitions").iterdir()
    return {entry.name.removesuffix(".toml"): entry.read_text() for entry in entries if entry.name.endswith(".toml")}
