"""The pipeline that a command names: one that comes with rigflow, one by its file, or one that the fleet knows."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.interrupts import run_async
from schemas.errors import ModelMissing, RigflowError

if TYPE_CHECKING:
    from schemas.pipeline import PipelineSpec
    from schemas.settings import Settings
    from workers.definitions import Models


def chosen_pipeline(
    name: str,
    model: str | None,
    fields: Sequence[str] | None,
    stream: int | None,
    settings: "Settings",
    inputs: Sequence[Path] = (),
) -> "tuple[PipelineSpec, Models, bool]":
    """A pipeline with what the command line changes of it, its models, and whether that makes it a variant.

    A variant is for the jobs of this command alone, see `pipelines.registry`. Where the settings name a fleet, a name
    that does not come with rigflow is that of a pipeline of the fleet, and so is one of which a model is not here.
    Raises PipelineError, ModelError, BrokerError; where a model is missing and none of the `inputs` is media of the
    pipeline, the error of the first of them.
    """
    from pipelines.registry import builtin_pipelines
    from schemas.given_fields import parse_fields
    from workers.definitions import find_models, find_pipeline
    from workers.inputs import check_media

    given = parse_fields(fields or (), "--set", "encode.crf=16")
    if settings.nats and Path(name).suffix != ".toml" and name not in builtin_pipelines():
        return *run_async(_of_fleet(settings, name, given, model, stream)), False
    found, folder = find_pipeline(name)
    spec = found.with_fields(given).with_model(model).with_stream(stream)
    try:
        models = find_models(spec, folder, settings.cache_folder)
    except ModelMissing:
        check_media(inputs, spec)
        if settings.nats and folder is None:
            with suppress(RigflowError):  # it is away, or lacks the model, too
                return *run_async(_of_fleet(settings, name, given, model, stream)), False
        raise
    return spec, models, spec.revision != found.revision


async def _of_fleet(
    settings: "Settings", name: str, fields: Mapping[str, Any], model: str | None, stream: int | None
) -> "tuple[PipelineSpec, Models]":
    from pipelines.broker import Broker
    from workers.definitions import fleet_pipeline

    async with Broker.connected(settings, name="rigflow-pipelines") as broker:
        return await fleet_pipeline(broker, name, fields, model, stream)
