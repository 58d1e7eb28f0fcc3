"""Pipelines at the broker, by content hash: a worker needs no files of its own.

`revision.REVISION` is the content of a revision, `name.NAME` the newest revision of a name, and `model.NAME` the
identity of the model of a name that was published last. A *variant* is a revision
that a command changed by options, for the jobs of that command alone: it never becomes the newest of its name, which
raw media and other people's jobs run on. `variant.NAME` is the variant that was published last: where a pipeline has no
other revision, workers load it when they start, and the status finds the pipeline's queues by it.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from functools import cache

from pydantic import ValidationError

from engines.content import Content
from engines.models.sounds import with_sound
from engines.models.tensors import as_run, runs_as_added, with_tensors
from engines.plugins import UPGRADE, plugins_of, unknown_field
from pipelines.audit import audit
from pipelines.broker import Broker
from pipelines.follow import follow_bucket
from pipelines.models import publish_model
from pipelines.revisions import needed_revisions
from pipelines.signing import check_signed, signed, with_signatures
from pipelines.values import report_skipped
from schemas.declared import is_token
from schemas.errors import ModelError, PipelineError, PipelineUnknown, PluginMissing
from schemas.model import ModelSpec
from schemas.pipeline import PipelineSpec, parse_pipeline
from schemas.text import did_you_mean


def builtin_pipelines() -> list[str]:
    """Names of the pipelines that come with rigflow."""
    return sorted(_definitions())


def builtin_pipeline(name: str) -> PipelineSpec:
    """A pipeline that comes with rigflow. Raises PipelineError when there is none of that name."""
    text = _definitions().get(name)
    if text is None:
        near = did_you_mean(name, builtin_pipelines())
        others = "for one of your own give its file, and for one of a fleet --nats"
        there = near or f"there are {', '.join(builtin_pipelines())}; {others}"
        raise PipelineError(f"no pipeline is called {name} here", there)
    return parse_pipeline(text, f"{name}.toml")


async def publish_pipeline(
    broker: Broker, spec: PipelineSpec, models: Mapping[str, tuple[ModelSpec, Content]], variant: bool = False
) -> PipelineSpec:
    """Publish a pipeline as the newest of its name, or as a variant; returns it with models and plugins pinned.

    It also says how long the warm-up of its segments is: the sum of what its models remember, one after the other; and
    what windows of sound, or what tensors, they take.
    `models` has an entry for each model of its infer stages, as they name it. Raises ModelError, PipelineError for a
    name that is not there, BrokerError.
    """
    pinned = with_pins(spec, models)
    run = as_run(spec, {name: models[name][0] for name in pinned.models})
    for name in pinned.models:
        card, content = models[name]
        for each in {card.identity: card, run[name].identity: run[name]}.values():  # differ where a stage is `raw`
            await publish_model(broker, each, content)
    return await put_revision(broker, pinned, variant, {name: models[name][0].identity for name in pinned.models})


async def put_revision(
    broker: Broker, pinned: PipelineSpec, variant: bool = False, identities: Mapping[str, str] | None = None
) -> PipelineSpec:
    """Write a revision whose models are at the broker, signed, as the newest of its name or as a variant.

    `identities` of its models, if others than the pinned ones are to be found by their names: see `as_run`.
    """
    bucket, revision = broker.names.pipelines, pinned.revision
    named = {stage.model for stage in pinned.operators if stage.model is not None and not stage.head}
    if identities is None:
        named -= {stage.model for stage in pinned.operators if not runs_as_added(stage)}
    known = pinned.models if identities is None else identities
    entries = {f"revision.{revision}": b"", f"{'variant' if variant else 'name'}.{pinned.name}": revision.encode()}
    entries |= {f"model.{name}": identity.encode() for name, identity in known.items() if name in named}
    held = await asyncio.gather(*(broker.get(bucket, key) for key in entries))
    pinned = signed(_with_signatures_of(held[0], pinned), broker.settings)
    entries[f"revision.{revision}"] = pinned.model_dump_json().encode()
    if not variant and held[1] != revision.encode():
        await audit(broker, "pipeline-published", pinned.name, revision=revision)
    for (key, value), old in zip(entries.items(), held, strict=True):  # the revision first: the name refers to it
        if old != value:
            await broker.put(bucket, key, value)
    return pinned


def _with_signatures_of(held: bytes | None, spec: PipelineSpec) -> PipelineSpec:
    """A revision with the signatures that it has at the broker, and no others: those of a changed one are void."""
    try:
        known = () if held is None else _parse(held, spec.revision).signatures
    except PipelineError:
        known = ()
    return with_signatures(spec, known)


def with_pins(spec: PipelineSpec, models: Mapping[str, tuple[ModelSpec, Content]]) -> PipelineSpec:
    """The pipeline with the identities of its models and the versions of its plugins. Raises as `publish_pipeline`."""
    for stage, model in spec.model_names.items():
        if model not in models:
            raise ModelError(f"stage {stage}: model {model} is missing", "give its ONNX file")
    used = as_run(spec, {model: models[model][0] for model in spec.model_names.values()})
    identities = {name: card.identity for name, card in sorted(used.items())}
    plugins = plugins_of(spec, list(used.values()))
    if spec.decode.warm_up is None:
        remembered = sum(models[model][0].warm_up for model in spec.model_names.values())
        spec = spec.with_fields({f"{spec.decode.name}.warm_up": remembered})
    spec = with_tensors(with_sound(spec, used), used)
    return spec.model_copy(update={"models": identities, "plugins": plugins})


async def withdraw_pipeline(broker: Broker, name: str) -> list[str]:
    """Remove a pipeline from the fleet: workers stop hosting it. Returns the revisions that stay.

    A revision stays while a job that is not over needs it; withdraw again afterwards. Its queues and models stay.
    Raises PipelineError when the broker does not know it.
    """
    bucket = broker.names.pipelines
    items = await broker.items(bucket, "revision.*")
    revisions = sorted(key.removeprefix("revision.") for key, body in items.items() if _name_in(body) == name)
    if await broker.get(bucket, f"name.{name}") is None and not revisions:
        known = ", ".join(sorted(await pipeline_names(broker))) or "none"
        raise PipelineUnknown(f"the broker knows no pipeline {name}", f"it knows {known}")
    needed = await needed_revisions(broker, retried=False)
    await audit(broker, "pipeline-removed", name)
    for key in (f"name.{name}", f"variant.{name}"):
        await broker.delete_key(bucket, key)
    for revision in revisions:
        if revision not in needed:
            await broker.delete_key(bucket, f"revision.{revision}")
    return [revision for revision in revisions if revision in needed]


async def load_pipeline(broker: Broker, name: str) -> PipelineSpec:
    """A pipeline by its revision, or the newest one of a name.

    Raises PipelineError: none, unreadable, or signed by none of the setting `trusted_signers`; PluginMissing: a later
    version of rigflow may read it.
    """
    bucket, body = broker.names.pipelines, None
    if is_token(name):
        body, newest = await asyncio.gather(broker.get(bucket, f"revision.{name}"), broker.get(bucket, f"name.{name}"))
        if body is None and newest is not None:
            return await load_newest(broker, name, newest)
    if body is None:
        known = ", ".join(sorted(await pipeline_names(broker))) or "none yet"
        raise PipelineUnknown(f"the broker knows no pipeline {name}", f"it knows {known}")
    return _trusted(broker, body, name)


async def load_newest(broker: Broker, name: str, newest: bytes) -> PipelineSpec:
    """The newest revision of a name, which the entry of the name is. Raises as `load_pipeline`."""
    revision = newest.decode(errors="replace")
    body = await broker.get(broker.names.pipelines, f"revision.{revision}") if is_token(revision) else None
    if body is None:
        raise PipelineError(f"pipeline {name} has a revision that is not at the broker", "publish it again")
    return _trusted(broker, body, revision)


def _trusted(broker: Broker, body: bytes, revision: str) -> PipelineSpec:
    spec = _parse(body, revision)
    check_signed(spec, broker.settings.trusted_signers)
    return spec


async def known_pipelines(broker: Broker) -> list[PipelineSpec]:
    """The newest revision of each pipeline that the broker knows, by name. Those that cannot be read are reported."""
    return await _specs(broker, await pipeline_names(broker))


async def hosted_pipelines(broker: Broker) -> list[PipelineSpec]:
    """All pipelines that have queues, by name: `known_pipelines`, and one variant of each that has variants alone."""
    return await _specs(broker, await hosted_names(broker))


async def _specs(broker: Broker, names: Mapping[str, str]) -> list[PipelineSpec]:
    found = await asyncio.gather(*(_known(broker, name, names[name]) for name in sorted(names)))
    return [spec for spec in found if spec is not None]


async def _known(broker: Broker, name: str, revision: str) -> PipelineSpec | None:
    try:
        spec = await load_pipeline(broker, revision)
    except (PipelineError, PluginMissing) as error:
        report_skipped(f"pipeline {name}", str(error))
        return None
    if spec.name != name:
        report_skipped(f"pipeline {name}", f"its revision {revision} is one of {spec.name}")
        return None
    return spec


async def pipeline_names(broker: Broker) -> dict[str, str]:
    """The pipelines that the broker knows: name -> newest revision. Invalid entries are reported."""
    return await _revisions(broker, "name.")


async def hosted_names(broker: Broker) -> dict[str, str]:
    """`pipeline_names`, and of each pipeline that has variants alone the one that was published last."""
    variants, names = await asyncio.gather(_revisions(broker, "variant."), pipeline_names(broker))
    return variants | names


async def _revisions(broker: Broker, prefix: str) -> dict[str, str]:
    items = await broker.items(broker.names.pipelines, f"{prefix}*")
    names = {key.removeprefix(prefix): revision.decode(errors="replace") for key, revision in items.items()}
    for name, revision in names.items():
        if not (is_token(name) and is_token(revision)):
            report_skipped(f"pipeline {name}", "its value is no revision")
    return {name: revision for name, revision in names.items() if is_token(name) and is_token(revision)}


async def watch_pipelines(broker: Broker) -> AsyncIterator[PipelineSpec]:
    """Every known pipeline revision, then new ones as they come, each once. Unreadable ones are reported."""
    seen: set[str] = set()
    async for key, body in follow_bucket(broker, broker.names.pipelines, "revision.*"):
        if key not in seen:
            try:
                spec = _parse(body, key.removeprefix("revision."))
            except (PipelineError, PluginMissing) as error:
                report_skipped(key, str(error))
            else:
                seen.add(key)
                yield spec


def _name_in(body: bytes) -> str:
    """The name in a revision, also in one that only another version of rigflow can read; "" where there is none."""
    try:
        spec = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    return str(spec.get("name", "")) if isinstance(spec, dict) else ""


def _parse(body: bytes, revision: str) -> PipelineSpec:
    """Raises PipelineError, and PluginMissing for a revision with fields of a later version of rigflow."""
    try:
        spec = PipelineSpec.model_validate_json(body)
    except ValidationError as error:
        if found := unknown_field(error):
            what = f"pipeline revision {revision} at the broker has a field {found} that is not known here"
            raise PluginMissing(what, UPGRADE) from error
        hint = "it was published by another version of rigflow; publish it again"
        raise PipelineError(f"pipeline revision {revision} at the broker is not readable", hint) from error
    if spec.revision != revision:  # fields of stages that are not known here are read as options
        what = f"pipeline revision {revision} at the broker has the content of revision {spec.revision}"
        raise PluginMissing(what, UPGRADE)
    return spec


@cache
def _definitions() -> dict[str, str]:
    """Name -> text of each pipeline file in pipelines/definitions."""
    from importlib.resources import files

    entries = files("pipelines").joinpath("definitions").iterdir()
    return {entry.name.removesuffix(".toml"): entry.read_text() for entry in entries if entry.name.endswith(".toml")}
