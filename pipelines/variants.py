"""Pipelines of the fleet with other options or models, from what the broker has: no file of this machine is needed.

`model.NAME` in the bucket of pipelines is the identity of the model that was published last under a name, by any
pipeline that leaves its head as it is. By it a pipeline can be given another model, and follow a model's update.
"""

from collections.abc import Mapping
from typing import Any

from engines.models.tensors import as_run, without_tensors
from engines.plan import plan_pipeline
from pipelines.blob_upload import put_blob
from pipelines.blobs import blob_info
from pipelines.broker import Broker
from pipelines.models import load_card
from pipelines.registry import known_pipelines, load_pipeline, put_revision, with_pins
from schemas.errors import ModelMissing, NotFound
from schemas.model import ModelSpec
from schemas.pipeline import PipelineSpec


class ModelUnknown(ModelMissing, NotFound):
    """The fleet knows no model of this name."""


async def model_names(broker: Broker) -> dict[str, str]:
    """The models that the fleet knows: name -> identity."""
    found = await broker.items(broker.names.pipelines, "model.>")
    return {key.removeprefix("model."): body.decode(errors="replace") for key, body in found.items()}


async def find_model(broker: Broker, name: str) -> ModelSpec:
    """The card of the model that was published last under a name. Raises ModelUnknown, ModelError."""
    names = await model_names(broker)
    if name not in names:
        there = ", ".join(sorted(names)) or "none yet"
        raise ModelUnknown(f"the fleet knows no model {name[:128]}", f"it knows {there}")
    return await load_card(broker, names[name])


async def variant(
    broker: Broker, name: str, fields: Mapping[str, Any], model: str | None = None, stream: int | None = None
) -> PipelineSpec:
    """A pipeline of the fleet with other values of its stages' fields, or another model, as a revision of its own.

    Without changes it is the newest of its name. Raises PipelineError, ModelError.
    """
    known = await load_pipeline(broker, name)
    wanted = known.with_fields(fields).with_model(model).with_stream(stream)
    if wanted.revision == known.revision:
        return known
    changed = await _pinned(broker, known, wanted, {}, keep_warm_up=f"{known.decode.name}.warm_up" in fields)
    await put_revision(broker, changed, variant=True)
    return changed


async def updated(broker: Broker, card: ModelSpec) -> list[PipelineSpec]:
    """What each pipeline that runs a model of this name becomes with another one. Raises when it does not fit one."""
    using = [spec for spec in await known_pipelines(broker) if card.name in spec.model_names.values()]
    return [await _pinned(broker, spec, spec, {card.name: card}) for spec in using]


async def _pinned(
    broker: Broker,
    known: PipelineSpec,
    wanted: PipelineSpec,
    given: Mapping[str, ModelSpec],
    keep_warm_up: bool = False,
) -> PipelineSpec:
    """`wanted`, a changed `known`, with the identities of its models; `given` are new models by name."""
    before = {name: await load_card(broker, identity) for name, identity in known.models.items()}
    cards: dict[str, ModelSpec] = {}
    for stage in wanted.operators:
        name = stage.model
        if name is not None and name not in cards:
            card = given.get(name) or before.get(name) or await find_model(broker, name)
            cards[name] = card.with_head(stage.head)
    derived = known.decode.warm_up == sum(before[name].warm_up for name in known.model_names.values())
    if derived and not keep_warm_up:  # it is what the models say, and another model may say something else
        wanted = wanted.with_fields({f"{wanted.decode.name}.warm_up": None})
    wanted = without_tensors(wanted, known, before)  # as with the warm-up
    cards = as_run(wanted, cards)
    plan_pipeline(wanted, cards)
    pinned = with_pins(wanted, {name: (card, b"") for name, card in cards.items()})
    for card in cards.values():
        if await blob_info(broker, broker.names.models, card.identity) is None:  # with another head; its file is there
            await put_blob(broker, broker.names.models, card.model_dump_json().encode(), card.identity)
    return pinned
