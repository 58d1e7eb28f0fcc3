"""Finds pipelines and their models, and publishes them to a fleet."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from engines.content import Content
from engines.models.catalogue import builtin_model, builtin_models, is_there, main_file, own_model
from engines.models.publishers import where_to_get
from engines.plan import plan_pipeline
from pipelines.broker import Broker
from pipelines.registry import (
    builtin_pipeline,
    builtin_pipelines,
    load_pipeline,
    pipeline_names,
    publish_pipeline,
    with_pins,
)
from pipelines.topology import apply_topology, ensure_topology
from pipelines.variants import changed_pipeline, put_as_needed
from schemas.errors import ModelMissing, PipelineError
from schemas.model import ModelSpec
from schemas.pipeline import PipelineSpec, parse_pipeline
from schemas.settings import Settings
from schemas.text import did_you_mean

Models = Mapping[str, tuple[ModelSpec, Content]]  # a model's name in its pipeline -> its model card and its files


class FleetModels(dict[str, tuple[ModelSpec, Content]]):
    """The cards of a pipeline that the fleet knows, pinned as it is there: the broker has the files of its models."""


def find_pipeline(name: str) -> tuple[PipelineSpec, Path | None]:
    """A pipeline by the path of its file, or by the name of one that comes with rigflow; and the file's folder.

    Raises PipelineError.
    """
    path = Path(name)
    if path.suffix != ".toml":
        return builtin_pipeline(name), None
    try:
        return parse_pipeline(path.read_text(), str(path)), path.resolve().parent
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise PipelineError(f"{path}: {reason}", _beside(path)) from error


def _beside(path: Path) -> str:
    """What to do where the file of a pipeline cannot be read: what was meant, if it is not there."""
    there = path.parent.glob("*.toml") if not path.exists() else ()
    known = {str(each) for each in there if each.name != "pyproject.toml"}
    if path.parent == Path() and path.stem in builtin_pipelines():
        known = {path.stem}
    return did_you_mean(str(path), known) or "give a pipeline file, or see `rigflow pipelines list`"


def find_models(
    spec: PipelineSpec, folder: Path | None, cache: Path | None = None
) -> dict[str, tuple[ModelSpec, Content]]:
    """The models of a pipeline: NAME.onnx beside the pipeline's file (with NAME.toml as its model card), built in, or
    one of the user's own in the folder of models. What is built stays in the folder `cache`.

    Raises ModelError when one is missing or does not fit its stage.
    """
    models: dict[str, tuple[ModelSpec, Content]] = {}
    for name, head in _heads(spec).items():
        try:
            model, content = find_model(name, folder, cache)
        except ModelMissing as error:
            others = [each for each in _heads(spec) if each != name and not _is_here(each, folder)]
            hints = [f"{error.hint}; {_other_model(spec, name)} runs another", *map(_missing_too, others)]
            raise ModelMissing(error.what, "; ".join(hints)) from error
        models[name] = model.with_head(head), content
    plan_pipeline(spec, {name: card for name, (card, _) in models.items()})
    return models


def _missing_too(model: str) -> str:
    """A further model that a pipeline lacks, and where people get it."""
    return f"model {model} is missing too: {where_to_get(model) or '`rigflow model add FILE` keeps one'}"


def _is_here(name: str, folder: Path | None) -> bool:
    return is_there(name) or (folder is not None and main_file(folder, name) is not None)


def find_model(name: str, folder: Path | None, cache: Path | None = None) -> tuple[ModelSpec, Content]:
    """One model of a pipeline, see `find_models`. Raises ModelError."""
    beside = folder is not None and main_file(folder, name) is not None
    if name in builtin_models() and not beside:
        return builtin_model(name, cache and cache / "builtin")
    return own_model(name, folder)


def _other_model(spec: PipelineSpec, model: str) -> str:
    """The options of `run` and other commands that run another model in the place of this one."""
    stages = spec.model_names
    if len(stages) == 1 or stages.get(spec.name) == model:
        return "--model NAME"
    return " ".join(f"--set {stage}.model=NAME" for stage, name in stages.items() if name == model)


def _heads(spec: PipelineSpec) -> dict[str, dict[str, JsonValue]]:
    """Model -> the options of its head that stages replace. Raises PipelineError if two stages differ in them."""
    heads: dict[str, dict[str, JsonValue]] = {}
    for stage in spec.operators:
        if stage.model is not None and heads.setdefault(stage.model, stage.head) != stage.head:
            what = f"pipeline {spec.name}: two stages run model {stage.model} with different `head`"
            raise PipelineError(what, "keep the model under a second name, or make two pipelines")
    return heads


async def fleet_pipeline(
    broker: Broker, name: str, fields: Mapping[str, Any], model: str | None, stream: int | None
) -> tuple[PipelineSpec, FleetModels]:
    """The newest revision of a pipeline that the fleet knows, with other values of fields; nothing is written.

    Raises PipelineError, also where the fleet knows none of this name, ModelError, BrokerError.
    """
    known = await pipeline_names(broker)
    if name not in known:
        there = sorted({*known, *builtin_pipelines()})
        hint = did_you_mean(name, there) or f"there are {', '.join(there)}; for one of your own give its file"
        raise PipelineError(f"no pipeline is called {name}, here or in the fleet", hint)
    spec, cards = await changed_pipeline(broker, await load_pipeline(broker, known[name]), fields, model, stream)
    return spec, FleetModels({each: (card, b"") for each, card in cards.items()})


def pinned(spec: PipelineSpec, models: Models) -> PipelineSpec:
    """A pipeline with the identities of its models, see `with_pins`; one of the fleet has them."""
    return spec if isinstance(models, FleetModels) else with_pins(spec, models)


async def register(
    broker: Broker, settings: Settings, spec: PipelineSpec, models: Models, variant: bool = False
) -> PipelineSpec:
    """Publish a pipeline with its streams and models to the fleet, see `publish_pipeline`; the pinned spec."""
    await ensure_topology(broker, settings, [spec])
    return await _publish(broker, spec, models, variant)


async def _publish(broker: Broker, spec: PipelineSpec, models: Models, variant: bool) -> PipelineSpec:
    if isinstance(models, FleetModels):
        await put_as_needed(broker, spec, [card for card, _ in models.values()])
        return spec
    return await publish_pipeline(broker, spec, models, variant)


async def repair(
    broker: Broker, settings: Settings, spec: PipelineSpec, models: Models, variant: bool = False
) -> list[str]:
    """Create streams and consumers of a pipeline that were deleted, and publish it again; names of the created ones."""
    made = await ensure_topology(broker, settings, [spec])
    if made:
        await _publish(broker, spec, models, variant)
    return [f"{change.stream} {change.consumer}".rstrip() for change in made]


async def register_builtin(settings: Settings, ours: bool = False) -> list[str]:
    """Publish the pipelines that come with rigflow to the fleet at `settings.nats`; the names of all that it knows.

    With `ours`, the broker is of this process, and its streams are changed to our settings. Pipelines whose model is
    missing are left out.
    """
    ready: list[tuple[PipelineSpec, Models]] = []
    for spec in map(builtin_pipeline, builtin_pipelines()):
        with suppress(ModelMissing):
            ready.append((spec, find_models(spec, None, settings.cache_folder)))
    async with Broker.connected(settings, name="rigflow-up") as broker:
        if ours:
            await apply_topology(broker, settings, [spec for spec, _ in ready])
        for spec, models in ready:
            await register(broker, settings, spec, models)
        return sorted(await pipeline_names(broker))
