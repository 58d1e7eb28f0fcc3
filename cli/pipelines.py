"""`rigflow pipelines`: lists, shows and checks pipelines."""

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cli.help import Commands
from cli.interrupts import run_async
from cli.options import (
    Credentials,
    Json,
    NatsUrl,
    SettingsFile,
    ends_well,
    on_fleet,
    settings_from,
)
from cli.text import say, say_json, say_sentence, sentence, stdout, warn
from schemas.errors import ExitCode, PipelineError, StageFieldError, UsageError

if TYPE_CHECKING:
    from pipelines.broker import Broker
    from schemas.pipeline import PipelineSpec
    from schemas.settings import Settings

T = TypeVar("T")
app = Commands(
    name="pipelines",
    help="List, show and check pipelines.\n\nExample: rigflow pipelines list",
)


@app.command("list")
@ends_well
def list_(
    as_json: Json = False, nats: NatsUrl = None, credentials: Credentials = None, settings_file: SettingsFile = None
) -> ExitCode:
    """List the pipelines that there are.

    With what each takes, and whether it is ready: it is not if this machine lacks a model that it runs; `rigflow run
    PIPELINE FILE` names that, and says where to get it. With --nats those that a fleet knows, which has their models.

    Example: rigflow pipelines list
    """
    from cli.tables import list_of

    settings = settings_from(settings_file, nats=nats, credentials=credentials)
    specs = _at_fleet(settings, _all) if settings.nats else _builtin()
    missing = {spec.name: [] if settings.nats else _missing(spec) for spec in specs}
    if as_json:
        say_json([_as_json(spec) | {"missing": missing[spec.name]} for spec in specs])
        return ExitCode.OK
    if not specs:
        say(f"{settings.nats} knows none yet")
        return ExitCode.OK
    rows = list_of(
        ("pipeline", "takes", "ready", "description"),
        (
            (spec.name, ", ".join(spec.media), "no" if missing[spec.name] else "yes", sentence(spec.description))
            for spec in specs
        ),
        left=4,
        named=("pipeline",),
    )
    stdout().print(rows)
    if first := next((spec.name for spec in specs if missing[spec.name]), ""):
        warn(f"those that are not ready lack a model: `rigflow run {first} FILE` names it, and says where to get it")
    return ExitCode.OK


@app.command()
@ends_well
def show(
    name: Annotated[str, typer.Argument(help="Its name, or the path of its file; with --nats a revision too.")],
    as_json: Json = False,
    nats: NatsUrl = None,
    credentials: Credentials = None,
    settings_file: SettingsFile = None,
) -> ExitCode:
    """Print a pipeline as a pipeline file.

    You may change the file into a pipeline of your own.

    Example: rigflow pipelines show scenes > mine.toml
    """
    settings = settings_from(settings_file, nats=nats, credentials=credentials)
    if settings.nats:
        spec = _at_fleet(settings, lambda broker: _one(broker, name))
    else:
        from workers.definitions import find_pipeline

        spec, _ = find_pipeline(name)
    if as_json:
        say_json(_as_json(spec))
        return ExitCode.OK
    if settings.nats:
        say(f"# revision {spec.revision} at {settings.nats}")
        for model, sha256 in spec.models.items():
            say(f"# model {model} {sha256[:16]}")
        for plugin, release in spec.plugins.items():
            say(f"# plugin {plugin} of {release}")
    say(to_toml(spec).rstrip("\n"), keep="\n\t")
    return ExitCode.OK


@app.command()
@on_fleet
def withdraw(
    name: Annotated[str, typer.Argument(help="A pipeline that the fleet knows.")],
    as_json: Json = False,
    *,
    settings: "Settings",
) -> ExitCode:
    """Remove a pipeline from a fleet: its workers stop hosting it.

    Jobs that are not over are finished first: withdraw it again when they are. `rigflow publish` brings it back.

    Example: rigflow pipelines withdraw scenes --nats nats://rig1:4222
    """
    from pipelines.registry import withdraw_pipeline

    kept = _at_fleet(settings, lambda broker: withdraw_pipeline(broker, name))
    if as_json:
        say_json({"name": name, "withdrawn": True, "revisions_kept": list(kept)})
        return ExitCode.OK
    say(f"{name}: withdrawn")
    for revision in kept:
        say(f"{name}: revision {revision} stays until the jobs that need it are over; see `rigflow jobs list`")
    return ExitCode.OK


@app.command()
@ends_well
def check(
    file: Annotated[Path, typer.Argument(help="A pipeline file.", metavar="FILE")],
    as_json: Json = False,
) -> ExitCode:
    """Say what is wrong with a pipeline file, by line and field.

    Its models and the options of its output are checked too.

    Example: rigflow pipelines check mine.toml
    """
    from engines.options import check_options
    from schemas.pipeline_check import check_pipeline

    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise PipelineError(f"{file}: {reason}", "give the path of a pipeline file") from error
    errors = [*check_pipeline(text, str(file)), *check_options(text, str(file)), *_models_missing(text, file)]
    problems = sorted(map(str, errors), key=_line_in) or _unfit(text, file)
    if as_json:
        say_json({"file": str(file), "problems": problems})
    else:
        for problem in problems or [f"{file}: fine"]:
            say_sentence(problem, indent="  ")
    return ExitCode.USAGE if problems else ExitCode.OK


def _as_json(spec: "PipelineSpec") -> dict[str, Any]:
    return {"revision": spec.revision, **spec.model_dump(mode="json", exclude_defaults=True), "name": spec.name}


def _line_in(problem: str) -> int:
    """The line of the file that an error names; 0 for none."""
    found = re.search(r", line (\d+)", problem)
    return int(found[1]) if found else 0


def _models_missing(text: str, file: Path) -> list[PipelineError]:
    """An error for each stage of a file whose model cannot be used, whatever else is wrong with the file."""
    from schemas.pipeline_check import models_in
    from schemas.toml import line_of
    from workers.definitions import find_model

    errors = []
    for number, model in models_in(text).items():
        try:
            find_model(model, file.resolve().parent)
        except UsageError as error:
            line = line_of(text, ["stage", number, "model"])
            errors.append(PipelineError(f"{file}, line {line}, stage.{number}.model: {error.what}", error.hint))
    return errors


def _unfit(text: str, file: Path) -> list[str]:
    """Why a file whose fields, options and models are fine cannot be run: its models do not fit its stages."""
    from schemas.toml import line_of
    from workers.definitions import find_models, find_pipeline

    spec, folder = find_pipeline(str(file))
    try:
        find_models(spec, folder)
    except StageFieldError as error:
        number = [stage.name for stage in spec.stage].index(error.stage)
        path: list[str | int] = ["stage", number, *error.field]
        where = f"{file}, line {line_of(text, path)}, {'.'.join(map(str, path))}"
        return [str(PipelineError(f"{where}: {error.reason}", error.hint))]
    except UsageError as error:
        return [f"{file}: {error}"]
    return []


def _missing(spec: "PipelineSpec") -> list[str]:
    """The models of a pipeline that are not here."""
    from engines.models.catalogue import is_there

    return [model for model in dict.fromkeys(spec.model_names.values()) if not is_there(model)]


def _builtin() -> "list[PipelineSpec]":
    from pipelines.registry import builtin_pipeline, builtin_pipelines

    return [builtin_pipeline(name) for name in builtin_pipelines()]


async def _all(broker: "Broker") -> "list[PipelineSpec]":
    from pipelines.registry import known_pipelines

    return await known_pipelines(broker)


async def _one(broker: "Broker", name: str) -> "PipelineSpec":
    from pipelines.registry import load_pipeline

    return await load_pipeline(broker, name)


def _at_fleet(settings: "Settings", ask: Callable[["Broker"], Awaitable[T]]) -> T:
    from pipelines.broker import Broker

    async def asking() -> T:
        async with Broker.connected(settings, name="rigflow-pipelines") as broker:
            return await ask(broker)

    return run_async(asking())


def to_toml(spec: "PipelineSpec") -> str:
    """The pipeline file of a spec, without default values; `parse_pipeline` gives the spec back."""
    head = spec.model_dump(mode="json", exclude_defaults=True, exclude={"stage", "models", "plugins", "signatures"})
    blocks = [_lines(head | {"name": spec.name, "media": spec.media})]
    for stage in spec.stage:
        fields = {"kind": stage.kind} | stage.model_dump(mode="json", exclude_defaults=True)
        if stage.kind != "encode":  # an operator's options stand beside its kind
            fields |= fields.pop("options", {})
        if stage.name == stage.kind:
            fields.pop("name", None)
        blocks.append("[[stage]]\n" + _lines(fields))
    return "\n".join(blocks)


def _lines(fields: dict[str, Any]) -> str:
    return "".join(f"{_key(name)} = {_value(value)}\n" for name, value in fields.items())


def _value(value: Any) -> str:
    """A value in TOML; strings, numbers and booleans look as in json."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(name)} = {_value(item)}" for name, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)
