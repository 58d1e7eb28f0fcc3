"""The command line `rigflow`."""

import sys

import typer

from schemas.errors import ExitCode, UsageError
from workers.cli.doctor import doctor
from workers.cli.near import near
from workers.cli.pipelines import app as pipelines
from workers.cli.run import run
from workers.cli.status import status
from workers.cli.up import up
from workers.cli.worker import worker

app = typer.Typer(
    name="rigflow",
    help="Turns machines with GPUs into one dependable media-inference service.\n\nExample: rigflow run scenes film.mp4",
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (run, up, worker, status):
    app.command()(command)
app.add_typer(pipelines)
for command in (near, doctor):
    app.command()(command)

_BadUsage = typer.BadParameter.__mro__[1]  # what the parser raises for any wrong usage


def main() -> None:
    """Entry point of `rigflow`. Wrong usage ends in one line, as every other error does."""
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name="rigflow", standalone_mode=False)
    except _BadUsage as error:
        print(f"rigflow: {_usage_error(error)}", file=sys.stderr)
        code = ExitCode.USAGE
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    sys.exit(code)


def _usage_error(error: Exception) -> UsageError:
    """What the parser says, and the help that would have told."""
    said = " ".join(str(getattr(error, "message", "") or error).split()).rstrip(".")
    if callable(described := getattr(error, "format_message", None)):
        said = " ".join(described().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "rigflow"
    return UsageError(said[:1].lower() + said[1:], f"see {command} --help")
