"""What several commands share: their options, and how an error ends a command."""

import errno
import inspect
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, ParamSpec, TypeAlias

import typer

from cli.closed_output import reader_gone
from cli.interrupts import is_interrupt, say_interrupted
from cli.text import complain, is_quiet, is_verbose
from cli.usage_errors import CHMOD
from schemas.errors import ExitCode, OutputError, RigflowError, UsageError, first_error
from schemas.text import count, nearest, shell_word

if TYPE_CHECKING:  # commands import what they use when they run, so that `rigflow --help` answers at once
    from schemas.settings import Settings

P = ParamSpec("P")

WORKERS_A_CORE = 32  # at most: each takes about 130 MB
UP_PORT = 4222  # of `rigflow up`; other commands use it when no broker is named
NATS_HELP = "URL of the fleet's broker; or set RIGFLOW_NATS."

FleetUrl: TypeAlias = Annotated[
    str | None,
    typer.Option("--nats", help=f"{NATS_HELP} Default: nats://127.0.0.1:{UP_PORT}.", metavar="URL"),
]
NatsUrl: TypeAlias = Annotated[str | None, typer.Option("--nats", help=NATS_HELP, metavar="URL")]
Credentials: TypeAlias = Annotated[
    str | None, typer.Option("--credentials", help="nkey seed or .creds file for the broker.", metavar="FILE")
]
Store: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="Folder where the broker keeps its work. Default: ~/.local/share/rigflow/store.",
        metavar="DIR",
    ),
]
OwnStore: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="Folder where the broker that is started here keeps its work. Default: a new one.",
        metavar="DIR",
    ),
]
Interactive: TypeAlias = Annotated[
    bool, typer.Option("--interactive", help="Process it before the bulk work of the fleet.")
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print json, for programs.")]
Overwrite: TypeAlias = Annotated[bool, typer.Option("--overwrite", help="Replace results of the same name.")]
Stream: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--stream",
        "--track",
        min=0,
        help="Index of the track of pictures or of sound, as ffprobe counts. Default: FFmpeg's best.",
        metavar="N",
    ),
]


def _no_file(context: typer.Context, name: str) -> str:
    """A pipeline's name. Raises UsageError for the path of media: the name was forgotten, or stands behind it."""
    path = Path(name)
    if path.suffix == ".toml":
        return name
    is_folder = path.is_dir() and not _is_pipeline(name)
    if nearest(path.suffix, (".toml",)) or path.suffixes[-2:-1] == [".toml"]:
        _wrong_suffix(path)
    if not name or path.suffix or path.is_file() or is_folder or "/" in name:
        what = f"{name or repr(name)} stands where the name of a pipeline belongs"
        typed: tuple[str, ...] = context.find_root().obj or ()
        meant = next(filter(_is_pipeline, typed), "fingerprint")  # the first of them, where it stands behind the media
        hint = f"the pipeline comes first, as `{meant} {shell_word(name)}`" if name else "name a pipeline"
        raise UsageError(what, f"{hint}; `rigflow pipelines list` has all")
    return name


def _wrong_suffix(path: Path) -> NoReturn:
    """Raise UsageError for the file of a pipeline that does not end in .toml, or the name of one that does."""
    meant = path.with_name(f"{path.name.partition('.')[0]}.toml")
    if path.is_file():
        raise UsageError(f"{path}: the file of a pipeline ends in .toml", f"rename it, as {meant.name}")
    hint = f"did you mean {meant}?" if meant.is_file() else "check the path; the file of a pipeline ends in .toml"
    raise UsageError(f"{path}: no such file", hint)


def _is_pipeline(name: str) -> bool:
    from pipelines.registry import builtin_pipelines

    return name in builtin_pipelines()


def _pipelines(incomplete: str) -> list[str]:
    """For shell completion; where there is none, shells complete names of files."""
    from pipelines.registry import builtin_pipelines

    return [name for name in sorted(builtin_pipelines()) if name.startswith(incomplete)]


PipelineName: TypeAlias = Annotated[
    str,
    typer.Argument(help="A pipeline's name, or the path of its file.", callback=_no_file, autocompletion=_pipelines),
]
ModelName: TypeAlias = Annotated[
    str | None,
    typer.Option("--model", help="A model to run in place of the pipeline's own, for these files.", metavar="NAME"),
]
StageFields: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="A stage's field for these files, as encode.crf=16; repeat it.", metavar="STAGE.FIELD=VALUE"
    ),
]
Workers: TypeAlias = Annotated[
    int | None, typer.Option(min=0, help="Worker processes here. Default: one a core, none with --nats.", metavar="N")
]
SettingsFile: TypeAlias = Annotated[
    Path | None, typer.Option("--settings", help="TOML file of settings; see docs/settings.md.", metavar="FILE")
]


def settings_from(file: Path | None, **given: Any) -> "Settings":
    """`_settings` of a command that may start a broker of its own. Raises UsageError for credentials without a URL."""
    settings = _settings(file, **given)
    if given.get("credentials") and not settings.nats:
        raise UsageError("--credentials is for a broker that is there", "give its URL, too, by --nats")
    return settings


def _settings(file: Path | None, **given: Any) -> "Settings":
    """The settings of a command: its options go before the environment, then the file, then the defaults."""
    from engines.registry import exists, names
    from schemas.settings import load_settings

    if (is_verbose() or is_quiet()) and given.get("log_level") is None:
        given = given | {"log_level": "debug" if is_verbose() else "warning"}
    settings = load_settings(given, os.environ, file)
    if not exists("backends", settings.backend):
        there = ", ".join(names("backends"))
        raise UsageError(f"setting backend: there is no {settings.backend}", f"there are {there}")
    return settings


def fleet_from(file: Path | None, **given: Any) -> "Settings":
    """`_settings` for commands that speak to a fleet: without a URL, the one `rigflow up` started here."""
    settings = _settings(file, **given)
    return settings if settings.nats else settings.model_copy(update={"nats": f"nats://127.0.0.1:{UP_PORT}"})


def workers_here(settings: "Settings", given: int | None) -> int:
    """How many workers a command starts: as many as given, or one a core where no fleet has any. Raises UsageError."""
    from engines.machine import cores

    workers = given if given is not None else 0 if settings.nats else cores()
    if workers == 0 and not settings.nats:
        raise UsageError("no workers and no fleet", "give --workers 1 or more, or --nats URL")
    check_workers(workers)
    return workers


def check_workers(number: int) -> None:
    """Raise UsageError for more than `WORKERS_A_CORE` workers for each core of this machine."""
    from engines.machine import cores

    if number > (most := WORKERS_A_CORE * cores()):
        raise UsageError(f"--workers {number:,} is too many for {count(cores(), 'core')}", f"give at most {most:,}")


def default_store() -> Path:
    """The default folder for the work of `rigflow up`."""
    from schemas.settings import home_folder

    return home_folder() / ".local" / "share" / "rigflow" / "store"


def ends_well(command: Callable[P, ExitCode | None]) -> Callable[P, None]:
    """End the process with a command's exit code; an error or Ctrl-C gives one line on stderr and a named code.

    A group's own function gives None where one of its commands is to run.
    """

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code: int | None = command(*args, **kwargs)
        except (Exception, KeyboardInterrupt) as error:
            if is_interrupt(error):
                say_interrupted()
                code = ExitCode.INTERRUPTED
            else:
                code = report_error(first_error(error))
        if code is not None:
            raise typer.Exit(code)

    return run


def on_fleet(command: Callable[..., ExitCode | None]) -> Callable[..., None]:
    """`ends_well` for a command that speaks to a fleet: its parameter `settings` is made of the options --nats,
    --credentials and --settings, which it gets here.
    """

    @wraps(command)
    def run(
        *args: Any, nats: FleetUrl, credentials: Credentials, settings_file: SettingsFile, **kwargs: Any
    ) -> ExitCode | None:
        return command(*args, settings=fleet_from(settings_file, nats=nats, credentials=credentials), **kwargs)

    signature = inspect.signature(command)
    own = [each for each in signature.parameters.values() if each.name != "settings"]
    options = {"nats": FleetUrl, "credentials": Credentials, "settings_file": SettingsFile}
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
        for name, option in options.items()
    ]
    run.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in (*own, *added)}
    return ends_well(run)


def command_of(context: typer.Context) -> str | None:
    """The command of a group that is to run in place of the group itself. Raises UsageError for options before it."""
    name = context.invoked_subcommand
    given = [key for key in context.params if getattr(context.get_parameter_source(key), "name", "") == "COMMANDLINE"]
    if name is not None and given:
        path = context.command_path
        raise UsageError(f"options of {path} stand before {name}", f"put them behind: {path} {name} NAME --nats URL")
    return name


def report_error(error: BaseException) -> int:
    """Report the error that ended a command; its exit code. An unexpected error is raised again."""
    if isinstance(error, RigflowError):
        complain(error)
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        return reader_gone()
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT) and not error.filename:
        complain(OutputError(f"cannot write: {error.strerror}", "make room on the disk that it goes to"))
        return ExitCode.OUTPUT
    if isinstance(error, PermissionError) and error.filename:
        complain(UsageError(f"{error.filename}: {error.strerror}", CHMOD))
        return ExitCode.USAGE
    if isinstance(error, OSError) and error.strerror:
        complain(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
        return ExitCode.SOME_FAILED
    raise error
