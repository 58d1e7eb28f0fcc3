"""`rigflow topology`: compares the broker's streams and consumers with the settings, and changes them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.answers import answers
from cli.help import Commands
from cli.interrupts import run_async
from cli.options import Json, SettingsFile, ends_well, on_fleet, settings_from
from cli.text import age, say
from schemas.errors import ExitCode
from schemas.text import count, size

if TYPE_CHECKING:
    from pipelines.broker import Broker
    from pipelines.streams import StreamPlan
    from pipelines.sweep import Swept
    from pipelines.topology import Change
    from schemas.pipeline import PipelineSpec
    from schemas.settings import Settings

app = Commands(
    name="topology",
    help="Compare the broker's streams with the settings, or change them.\n\nExample: rigflow topology plan",
)

Pipelines = Annotated[
    list[str] | None,
    typer.Argument(help="Pipelines, by name or file. Default: those the broker knows.", metavar="PIPELINE..."),
]
NANOSECONDS = frozenset({"max_age", "duplicate_window", "ack_wait", "inactive_threshold"})
WORDS = {"num_replicas": "copies"}  # plain words for names of JetStream


@app.command()
@on_fleet
def plan(
    pipelines: Pipelines = None,
    as_json: Json = False,
    *,
    settings: "Settings",
) -> ExitCode:
    """Show what `apply` would change.

    Settings say what should be: durability, queue_bytes, results_bytes, ack_wait_s and their like.

    Example: rigflow topology plan --settings fleet.toml --nats nats://rig1:4222
    """
    changes = run_async(_changes(settings, pipelines or [], applying=False))
    _report(changes, "as it should be: nothing to change", as_json)
    return ExitCode.OK


@app.command()
@on_fleet
def apply(
    pipelines: Pipelines = None,
    as_json: Json = False,
    *,
    settings: "Settings",
) -> ExitCode:
    """Make the broker's streams and consumers what settings say.

    Limits change at once; a lower one is refused where messages would be deleted for it. Copies are added and removed
    while work goes on. Nothing is deleted. Pipelines that are named are registered with their models, so that the fleet
    can process what their streams take. Exit code 1 when something was refused.

    Example: rigflow topology apply --settings fleet.toml --nats nats://rig1:4222
    """
    changes = run_async(_changes(settings, pipelines or [], applying=True))
    _report(changes, "as it should be: nothing changed", as_json)
    return ExitCode.SOME_FAILED if any(change.action == "refuse" for change in changes) else ExitCode.OK


@app.command()
@on_fleet
def sweep(
    age: Annotated[float, typer.Option(min=0.0, help="Keep what is younger, in seconds.", metavar="SECONDS")] = 3600.0,
    as_json: Json = False,
    *,
    settings: "Settings",
) -> ExitCode:
    """Remove what killed processes and late repeats left behind.

    That is results of jobs that are over, acknowledged messages that a killed broker kept in its queues, notes of
    attempts at messages that are settled, stored objects that no message names, chunks of models that were not
    published to their end, and revisions of pipelines that no job needs. Workers that collect do the same every 15
    minutes, but for the queues, models and pipelines; a gateway removes revisions that are a day old.

    Example: rigflow topology sweep --nats nats://rig1:4222
    """
    swept = run_async(_sweep(settings, age))
    found = {"result": swept.results, "message": swept.queued, "attempt": swept.attempts, "object": swept.blobs}
    found["revision"] = swept.revisions
    with answers(as_json) as answer:
        said = ", ".join(count(number, noun) for noun, number in found.items())
        answer(f"removed {said}", **{f"{noun}s": number for noun, number in found.items()})
    return ExitCode.OK


@app.command()
@ends_well
def roles(settings_file: SettingsFile = None) -> ExitCode:
    """Print the permissions of each role, as nats-server includes it.

    It is for the prefix and the tenant of the settings; the users' public keys come from the broker's environment.

    Example: rigflow topology roles > roles.conf
    """
    from pipelines.roles import configuration
    from schemas.subjects import Names

    settings = settings_from(settings_file)
    print(configuration(Names(settings.prefix), settings.tenant), end="")
    return ExitCode.OK


async def _sweep(settings: "Settings", age_s: float) -> "Swept":
    from pipelines.audit import audit
    from pipelines.broker import Broker
    from pipelines.sweep import sweep as sweep_now

    async with Broker.connected(settings, name="rigflow-topology") as broker:
        await audit(broker, "leftovers-swept", f"of {age_s:.0f} s and older")
        return await sweep_now(broker, age_s, entire=True)


async def _changes(settings: "Settings", pipelines: list[str], applying: bool) -> "list[Change]":
    """The differences; with `applying` they are removed."""
    from pipelines.broker import Broker
    from pipelines.registry import hosted_pipelines, publish_pipeline
    from pipelines.streams import desired
    from pipelines.topology import plan as differences
    from workers.definitions import find_models, find_pipeline

    named = [find_pipeline(name) for name in pipelines]
    ready = [(spec, find_models(spec, folder, settings.cache_folder)) for spec, folder in named] if applying else []
    async with Broker.connected(settings, name="rigflow-topology") as broker:
        specs: list[PipelineSpec] = [spec for spec, _ in named]
        specs = specs or await hosted_pipelines(broker)
        wanted: list[StreamPlan] = desired(broker.names, settings, specs, broker.tenants)
        changes = await differences(broker, wanted)
        if applying:
            await _apply(broker, settings, specs, changes)
            for spec, models in ready:  # streams without a pipeline would take media that no worker can process
                await publish_pipeline(broker, spec, models)
        return changes


async def _apply(
    broker: "Broker", settings: "Settings", specs: "list[PipelineSpec]", changes: "Sequence[Change]"
) -> None:
    """Make the changes, with an entry of the audit log before them; after them where they create the log."""
    from pipelines.audit import audit
    from pipelines.old_letters import move_letters
    from pipelines.topology import apply_topology

    made = sorted({change.stream for change in changes if change.action != "refuse"})
    facts = {"streams": ", ".join(made)[:1000]}
    has_log = all(each.action != "create" or each.stream != broker.names.audit_stream for each in changes)
    if made and has_log:
        await audit(broker, "topology-applied", count(len(made), "stream"), **facts)
    await apply_topology(broker, settings, specs)
    await move_letters(broker)
    if made and not has_log:
        await audit(broker, "topology-applied", count(len(made), "stream"), **facts)


def _report(changes: "Sequence[Change]", otherwise: str, as_json: bool) -> None:
    with answers(as_json) as answer:
        for change in changes:
            differences = {key: [before, after] for key, (before, after) in change.differences.items()}
            facts = {"action": change.action, "stream": change.stream, "consumer": change.consumer}
            answer(line(change), **facts, reason=change.reason, differences=differences)
    if not changes and not as_json:
        say(otherwise)


def line(change: "Change") -> str:
    """One change for people."""
    name = f"{change.stream} {change.consumer}".strip()
    if change.action == "refuse":
        return f"! {name}: {change.reason}"
    if change.action == "create":
        return f"+ {name}{_limits(change.config)}"
    moves = (
        f"{WORDS.get(key, key)} {_value(key, before)} -> {_value(key, after)}"
        for key, (before, after) in sorted(change.differences.items())
    )
    return f"~ {name}: {', '.join(moves)}"


def _limits(config: Mapping[str, Any]) -> str:
    """What a new stream may hold, in how many copies; nothing for a consumer."""
    if "max_bytes" not in config:
        return ""
    copies = config["num_replicas"]
    return f": {_value('max_bytes', config['max_bytes'])}, {copies} {'copy' if copies == 1 else 'copies'}"


def _value(key: str, value: Any) -> str:
    if key == "max_bytes":
        return size(value) if value and value > 0 else "no limit"
    if key in NANOSECONDS:
        return age(value / 1e9) if value else "no limit"
    if isinstance(value, list):
        return f"{len(value)} of them"
    return "none" if value is None else str(value)
