"""Pipelines of the fleet with other options or models, from what the broker has: no file of this machine is needed.

`model.NAME` in the bucket of pipelines is the identity of the model that was published last under a name, by any
pipeline that leaves its head as it is. By it a pipeline can be given another model, and follow a model's update.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from engines.content import Content
from engines.models.tensors import as_run, without_tensors
from engines.plan import plan_pipeline
from pipelines.audit import audit
from pipelines.blob_upload import put_blob
from pipelines.blobs import blob_info, delete_blob
from pipelines.broker import DELETED, Broker
from pipelines.models import load_card, publish_model
from pipelines.registry import known_pipelines, put_revision, with_pins
from pipelines.revisions import is_kept
from pipelines.topology import ensure_topology
from pipelines.values import decoded
from schemas.errors import ModelMissing, NotFound, UsageError
from schemas.model import ModelSpec
from schemas.pipeline import PipelineSpec


class ModelInUse(UsageError):
    """A pipeline of the fleet runs the model."""


class ModelUnknown(ModelMissing, NotFound):
    """The fleet knows no model of this name."""


async def model_names(broker: Broker) -> dict[str, str]:
    """The models that the fleet knows: name -> identity."""
    found = await broker.items(broker.names.pipelines, "model.>")
    return {key.removeprefix("model."): body.decode(errors="replace") for key, body in found.items()}


async def models_since(broker: Broker) -> dict[str, float]:
    """The models that the fleet knows, and when each was published last, in seconds since 1970."""
    bucket = broker.names.pipelines
    prefix = f"$KV.{bucket}.model."
    entries = [entry async for entry in broker.read(f"KV_{bucket}", f"{prefix}>")]
    return {each.subject.removeprefix(prefix): each.stored_s for each in entries if DELETED not in each.headers}


async def find_model(broker: Broker, name: str) -> ModelSpec:
    """The card of the model that was published last under a name. Raises ModelUnknown, ModelError."""
    names = await model_names(broker)
    if name not in names:
        there = ", ".join(sorted(names)) or "none yet"
        raise ModelUnknown(f"the fleet knows no model {name[:128]}", f"it knows {there}")
    return await load_card(broker, names[name])


async def put_model(broker: Broker, card: ModelSpec, content: Content) -> list[PipelineSpec]:
    """Publish a model, and have the pipelines that run one of its name run it; their new revisions.

    Jobs that were submitted before keep the model that they have. Raises, before anything is changed, PipelineError or
    ModelError when it does not fit one of the pipelines; BrokerError, StoreError.
    """
    changed = await _updated(broker, card)
    await ensure_topology(broker, broker.settings, [])  # the fleet may be new
    await audit(broker, "model-published", card.name, identity=card.identity)
    await publish_model(broker, card, content)
    await broker.put(broker.names.pipelines, f"model.{card.name}", card.identity.encode())
    return [await put_revision(broker, spec) for spec in changed]


async def remove_model(broker: Broker, name: str) -> None:
    """Forget a model, and delete what no revision of a pipeline needs of it. Raises ModelUnknown, ModelInUse."""
    card = await find_model(broker, name)
    using = [spec.name for spec in await known_pipelines(broker) if name in spec.models]
    if using:
        raise ModelInUse(f"model {name} is in use by pipelines {', '.join(using)}", "withdraw them first")
    bucket = broker.names.pipelines
    await audit(broker, "model-removed", name, identity=card.identity)
    await broker.delete_key(bucket, f"model.{name}")
    revisions = [decoded(PipelineSpec, body, key) for key, body in (await broker.items(bucket, "revision.*")).items()]
    needed = {identity for spec in revisions if spec is not None for identity in spec.models.values()}
    needed |= set((await model_names(broker)).values())
    if card.identity in needed:
        return
    cards = [await load_card(broker, identity) for identity in needed]
    kept = {file for each in cards for file in _files_of(each)}
    for blob in {card.identity, *_files_of(card)} - kept:
        await delete_blob(broker, broker.names.models, blob)


def _files_of(card: ModelSpec) -> set[str]:
    return {card.sha256, *(file.sha256 for file in card.files)}


async def variant(
    broker: Broker,
    known: PipelineSpec,
    fields: Mapping[str, Any],
    model: str | None = None,
    stream: int | None = None,
) -> PipelineSpec:
    """A pipeline of the fleet with other values of its stages' fields, or another model, as a revision of its own.

    Without changes it is `known`. Raises PipelineError, ModelError.
    """
    wanted = known.with_fields(fields).with_model(model).with_stream(stream)
    if wanted.revision == known.revision:  # no card is read, for each request of the gateway comes here
        return known
    changed, cards = await _changed(broker, known, wanted, fields)
    if changed.revision == known.revision:
        return known
    await _put_cards(broker, cards.values())
    return await put_revision(broker, changed, variant=True)


async def changed_pipeline(
    broker: Broker,
    known: PipelineSpec,
    fields: Mapping[str, Any],
    model: str | None = None,
    stream: int | None = None,
) -> tuple[PipelineSpec, dict[str, ModelSpec]]:
    """What `variant` would publish, and the cards by which its models run, by their names. Raises the same."""
    wanted = known.with_fields(fields).with_model(model).with_stream(stream)
    if wanted.revision == known.revision:
        return known, {name: await load_card(broker, identity) for name, identity in known.models.items()}
    return await _changed(broker, known, wanted, fields)


async def _changed(
    broker: Broker, known: PipelineSpec, wanted: PipelineSpec, fields: Mapping[str, Any]
) -> tuple[PipelineSpec, dict[str, ModelSpec]]:
    return await _pinned(broker, known, wanted, {}, keep_warm_up=f"{known.decode.name}.warm_up" in fields)


async def known_cards(broker: Broker) -> list[ModelSpec]:
    """The cards of the models that the fleet knows, by name."""
    return [await load_card(broker, identity) for _, identity in sorted((await model_names(broker)).items())]


async def publish_as_needed(broker: Broker, spec: PipelineSpec, models: Mapping[str, ModelSpec]) -> PipelineSpec:
    """Publish a pipeline, unless the fleet has it, whose models the fleet knows; it with its models pinned.

    It becomes a variant. Raises PipelineError, ModelError where a model does not fit, BrokerError, StoreError.
    """
    plan_pipeline(spec, models)
    pinned = with_pins(spec, {name: (card, b"") for name, card in models.items()})
    await put_as_needed(broker, pinned, as_run(spec, models).values())
    return pinned


async def put_as_needed(broker: Broker, pinned: PipelineSpec, cards: Iterable[ModelSpec]) -> None:
    """Write a variant with its queues and the cards by which its models run, unless the fleet has it."""
    if await is_kept(broker, pinned.revision):
        return
    await ensure_topology(broker, broker.settings, [pinned])
    await _put_cards(broker, cards)
    await put_revision(broker, pinned, variant=True)


async def _put_cards(broker: Broker, cards: Iterable[ModelSpec]) -> None:
    """Write cards by which models run that are not those with which they were added; their files are there."""
    for card in cards:
        if await blob_info(broker, broker.names.models, card.identity) is None:
            await put_blob(broker, broker.names.models, card.model_dump_json().encode(), card.identity)


async def _updated(broker: Broker, card: ModelSpec) -> list[PipelineSpec]:
    """What each pipeline that runs a model of this name becomes with another one."""
    using = [spec for spec in await known_pipelines(broker) if card.name in spec.model_names.values()]
    changed = [await _pinned(broker, spec, spec, {card.name: card}) for spec in using]
    for _, cards in changed:
        await _put_cards(broker, cards.values())
    return [spec for spec, _ in changed]


async def _pinned(
    broker: Broker,
    known: PipelineSpec,
    wanted: PipelineSpec,
    given: Mapping[str, ModelSpec],
    keep_warm_up: bool = False,
) -> tuple[PipelineSpec, dict[str, ModelSpec]]:
    """`wanted`, a changed `known`, with the identities of its models, and their cards; `given` are new models."""
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
    return with_pins(wanted, {name: (card, b"") for name, card in cards.items()}), cards
