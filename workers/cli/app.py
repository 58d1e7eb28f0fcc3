"""All commands of `rigflow`, and what the parser says when it does not understand."""

from importlib.metadata import version
from typing import Annotated

import typer

from schemas.errors import ExitCode, UsageError
from workers.cli.cluster import cluster
from workers.cli.dead import app as dead
from workers.cli.doctor import doctor
from workers.cli.engine import app as engine
from workers.cli.jobs import app as jobs
from workers.cli.near import near
from workers.cli.pipelines import app as pipelines
from workers.cli.publish import publish
from workers.cli.results import results
from workers.cli.rig import rig
from workers.cli.run import run
from workers.cli.status import status
from workers.cli.topology import app as topology
from workers.cli.up import up
from workers.cli.watch import watch
from workers.cli.words import warn
from workers.cli.worker import worker

app = typer.Typer(
    name="rigflow",
    help="One dependable media-inference service from many machines.\n\nExample: rigflow run scenes film.mp4",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"rigflow {version('rigflow')}")
        raise typer.Exit


@app.callback()
def _rigflow(
    _: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


app.command()(run)
app.command()(publish)
app.command()(results)
app.add_typer(jobs)
app.command()(watch)
app.command()(up)
app.command()(rig)
app.command()(worker)
app.command()(status)
app.add_typer(dead)
app.add_typer(pipelines)
app.add_typer(engine)
app.add_typer(topology)
app.command()(near)
app.command()(cluster)
app.command()(doctor)

_BadUsage: type[Exception] = typer.BadParameter.__mro__[1]  # what the parser raises for any wrong usage


def answer(arguments: list[str]) -> int:
    """Run one command; its exit code. Wrong usage ends in one line, as every other error does."""
    try:
        return int(app(arguments or ["--help"], prog_name="rigflow", standalone_mode=False) or ExitCode.OK)
    except _BadUsage as error:
        warn(_usage_error(error))
        return ExitCode.USAGE


def _usage_error(error: Exception) -> UsageError:
    """What the parser says, and the help that would have told."""
    said = " ".join(getattr(error, "format_message", error.__str__)().split()).rstrip(".")
    if name := getattr(getattr(error, "param", None), "name", None):
        said = said.replace(f"'{name.upper()}'", f"'{name}'")  # some releases of typer write it in capitals
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "rigflow"
    return UsageError(said[:1].lower() + said[1:], f"see {command} --help")
