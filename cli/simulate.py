"""`rigflow simulate`: jobs on a fleet that does not exist, in simulated time."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.chosen_pipeline import chosen_pipeline
from cli.options import Json, ModelName, SettingsFile, StageFields, ends_well, settings_from
from schemas.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from engines.workload import MediaFacts
    from placement.fleet import Fleet
    from placement.simulated import Fault, Submission
    from placement.simulated_machine import WorkerRules
    from schemas.pipeline import PipelineSpec
    from schemas.settings import Settings
    from workers.definitions import Models

FAULT = re.compile(r"\s*(\S+)\s+at\s+(\d{1,9}(?:\.\d+)?)(?:\s+for\s+(\d{1,9}(?:\.\d+)?))?\s*")


@ends_well
def simulate(
    rest: Annotated[list[str] | None, typer.Argument(help="`x N` behind --job FILE.", metavar="[x N]")] = None,
    rigs: Annotated[str, typer.Option(help="Rigs and their cards: '3 x P106 x 8, 1 x T4'.")] = "",
    fleet: Annotated[
        Path | None,
        typer.Option("--fleet", help="TOML file of an imagined fleet instead; see docs/placement.md.", metavar="FILE"),
    ] = None,
    job: Annotated[
        str, typer.Option(help="A file, or a film such as '2h 1080p h264'; and ` x N` of them.", metavar="FILM")
    ] = "",
    pipeline: Annotated[str, typer.Option(help="A pipeline's name, or the path of its file.")] = "fingerprint",
    link: Annotated[
        str,
        typer.Option(help="PCIe link of cards: x1, '3.0 x16', own. Default: x1 for those for mining, else own."),
    ] = "",
    cores: Annotated[
        int,
        typer.Option(min=0, max=1024, help="Cores of each rig. Default: 2 with cards for mining, else 8.", metavar="N"),
    ] = 0,
    network: Annotated[
        float | None, typer.Option(min=1e3, max=1e12, help="Of each rig's network. Default: 1e9.", metavar="BITS/S")
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(help="'rig1-gpu2 at 60': it dies; 'rig2 at 60 for 180': it reboots. Seconds.", metavar="TEXT"),
    ] = None,
    jitter: Annotated[
        float, typer.Option(min=0.0, max=2.0, help="Spread of the segments' times: 0.05 is 5%.", metavar="SHARE")
    ] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Of the spread: equal seeds give equal answers.", metavar="N")] = 0,
    cards: Annotated[bool, typer.Option("--cards", help="List the cards whose figures are known.")] = False,
    model: ModelName = None,
    fields: StageFields = None,
    as_json: Json = False,
    settings_file: SettingsFile = None,
) -> ExitCode:
    """Run jobs on a fleet that does not exist: when they end, how busy each card is, and what limits them.

    With the placement and the rules of real workers, and figures of cards that their makers publish. Nothing is sent.

    Example: rigflow simulate --rigs '3 x P106 x 8, 1 x T4' --job film.mp4 x 100
    """
    from cli import simulate_text
    from placement.rules import place
    from placement.simulation import simulate as run

    if cards:
        return simulate_text.list_cards(as_json)
    settings = settings_from(settings_file)
    imagined = _fleet(rigs, fleet, link, cores, network)
    spec, models, _ = chosen_pipeline(pipeline, model, fields, None, settings)
    text, facts, submission = _submission(job, rest or [], spec, models, settings)
    faults = [_fault(each, imagined) for each in fault or ()]
    placement = place(imagined, submission.work)
    outcome = run(imagined, [submission], [placement], _rules(settings), faults, jitter, seed)
    if as_json:
        simulate_text.say_answer(imagined, submission, outcome)
    else:
        simulate_text.show(text, facts, imagined, submission, outcome)
    return ExitCode.SOME_FAILED if outcome.unfinished else ExitCode.OK


def _fleet(rigs: str, file: Path | None, link: str, cores: int, network: float | None) -> "Fleet":
    """The fleet of --rigs or of --fleet. Raises UsageError."""
    from cli.plan import imagined_of
    from cli.simulate_rigs import SEE, USUAL_NETWORK, RigOptions, fleet_of

    if bool(rigs) == bool(file):
        raise UsageError("give the fleet by one of --rigs and --fleet", SEE)
    if file is None:
        return fleet_of(rigs, RigOptions(cores, network or USUAL_NETWORK, link))
    if link or cores or network:
        raise UsageError("--link, --cores and --network go with --rigs", f"state them in {file}, see docs/placement.md")
    return imagined_of(file, [])


def _submission(
    job: str, rest: list[str], spec: "PipelineSpec", models: "Models", settings: "Settings"
) -> "tuple[str, MediaFacts, Submission]":
    """The job in words, its media, and what is submitted. Raises UsageError, and what planning raises."""
    from cli.simulate_media import SEE, facts_of, times_of
    from engines.parts_of_work import parts_of
    from engines.workload import workload
    from placement.simulated import Submission

    if not job:
        raise UsageError("--job is missing, which says what is simulated", SEE)
    text, count = times_of(" ".join((job, *rest)))
    facts = facts_of(text, spec, settings)
    work = workload(spec, models, facts)
    parts, batch = parts_of(spec, models, facts, work)
    return text, facts, Submission(work, count, parts, batch)


def _rules(settings: "Settings") -> "WorkerRules":
    """The rules of workers by the settings."""
    from placement.simulated_machine import WorkerRules

    return WorkerRules(
        prefetch_s=settings.prefetch_s,
        credit_items=settings.credit_items,
        credit_bytes=float(settings.credit_bytes),
        queue_bytes=float(settings.queue_bytes),
        ack_wait_s=settings.ack_wait_s,
        decoders=settings.decoders,
    )


def _fault(text: str, fleet: "Fleet") -> "Fault":
    """A fault from its text. Raises UsageError."""
    from placement.simulated import Fault

    found = FAULT.fullmatch(text)
    if found is None:
        raise UsageError(
            f"--fault {text[:60]!a} is no fault", "as in --fault 'rig1-gpu2 at 60' or 'rig2 at 60 for 180'"
        )
    names = [rig.name for rig in fleet.rigs] + [device.name for _, device in fleet.places()]
    if found[1] not in names:
        raise UsageError(f"--fault names {found[1][:60]!a}", f"there are {', '.join(names[:3])} and others")
    return Fault(found[1], float(found[2]), float(found[3] or "inf"))
