"""All commands of `rigflow`, and the errors of wrong usage."""

from importlib.metadata import version
from typing import Annotated, Any

import typer

from cli.api_keys import app as api_keys
from cli.audit import audit
from cli.backup import backup, restore
from cli.broker import OPTIONS_PASS, broker
from cli.bundle import bundle
from cli.cards import app as cards
from cli.cluster import cluster
from cli.dead import app as dead
from cli.doctor import doctor
from cli.engine import app as engine
from cli.gateway import gateway
from cli.help import Commands
from cli.jobs import app as jobs
from cli.join_tokens import app as join_tokens
from cli.keys import app as keys
from cli.label import label
from cli.model import app as model
from cli.nats_keys import nats
from cli.near import near
from cli.options import report_error
from cli.pipelines import app as pipelines
from cli.plan import plan
from cli.profile import profile
from cli.publish import publish
from cli.results import results
from cli.rig import app as rig
from cli.run import run
from cli.search import search
from cli.selftest import selftest
from cli.simulate import simulate
from cli.status import status
from cli.tenants import app as tenants
from cli.text import Verbosity, complain, set_verbosity
from cli.topology import app as topology
from cli.up import up
from cli.usage import usage
from cli.usage_errors import usage_error
from cli.watch import watch
from cli.worker import app as worker
from schemas.errors import ExitCode, UsageError

VERBOSITIES = {"-v": Verbosity.VERBOSE, "-q": Verbosity.QUIET}

app = Commands(
    name="rigflow",
    help="One dependable media-inference service from many machines.\n\nExample: rigflow run scenes film.mp4",
    pretty_exceptions_enable=False,
    # `--install-completion` and `--show-completion`, for bash, zsh, fish and PowerShell
    add_completion=True,
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
    _verbose: Annotated[
        bool, typer.Option("-v", help="Say more: what processes do. It may stand anywhere, as -q.")
    ] = False,
    _quiet: Annotated[bool, typer.Option("-q", help="Say less: answers and errors alone.")] = False,
) -> None:
    pass


keys.add_typer(api_keys)
keys.add_typer(join_tokens)
keys.command()(nats)
app.command()(run)
app.command()(publish)
app.command()(results)
app.add_typer(jobs)
app.command()(watch)
app.command()(up)
app.command(context_settings=OPTIONS_PASS)(broker)
app.add_typer(rig)
app.add_typer(worker)
app.command()(gateway)
app.command()(status)
app.add_typer(cards)
app.add_typer(dead)
app.add_typer(pipelines)
model.command()(label)
app.add_typer(model)
app.add_typer(engine)
app.add_typer(topology)
app.add_typer(tenants)
app.command()(bundle)
app.command()(selftest)
app.command()(near)
app.command()(cluster)
app.command()(search)
app.add_typer(keys)
app.command()(usage)
app.command()(audit)
app.command()(backup)
app.command()(restore)
app.command()(doctor)
app.command()(profile)
app.command()(plan)
app.command()(simulate)


@app.command("help")
def help_(
    words: Annotated[
        list[str] | None, typer.Argument(help="A command, as in `help jobs wait`.", metavar="COMMAND...")
    ] = None,
) -> None:
    """Show the help of a command, as its --help does.

    Example: rigflow help jobs wait
    """
    _run([*(words or []), "--help"])


def _run(arguments: list[str]) -> Any:
    return app(arguments, prog_name="rigflow", standalone_mode=False, obj=tuple(arguments))  # `obj`: what was typed


_BadUsage: type[Exception] = typer.BadParameter.__mro__[1]  # what the parser raises for any wrong usage


def answer(arguments: list[str]) -> int:
    """Run one command and return its exit code. Wrong usage ends with one line, as every other error does."""
    try:
        verbosity, words = _verbosity_of(arguments)
        set_verbosity(verbosity)
        return int(_run(words or ["--help"]) or ExitCode.OK)
    except UsageError as error:
        complain(error)
        return ExitCode.USAGE
    except _BadUsage as error:
        complain(usage_error(error, _path_of(words), words))
        return ExitCode.USAGE
    except OSError as error:  # of a help or a version, which has no command to report it
        return report_error(error)


def _verbosity_of(arguments: list[str]) -> tuple[Verbosity, list[str]]:
    """-v and -q, which may stand anywhere before `--`, and the other words. Raises UsageError for both of them."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    found = {VERBOSITIES[word] for word in arguments[:end] if word in VERBOSITIES}
    if len(found) > 1:
        raise UsageError("-v says more and -q says less", "leave out one of them")
    rest = [word for word in arguments[:end] if word not in VERBOSITIES] + arguments[end:]
    return next(iter(found), Verbosity.NORMAL), rest


def _path_of(words: list[str]) -> str:
    """The command that words begin with, as a person types it."""
    path, command = "rigflow", typer.main.get_group(app)
    for word in words:
        if (found := getattr(command, "commands", {}).get(word)) is None:
            break
        path, command = f"{path} {word}", found
    return path
