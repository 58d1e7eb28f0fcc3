"""The command line as a whole: help, wrong usage, exit codes, and how fast it answers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from cli.app import app
from cli.options import settings_from
from cli.rig import check_devices
from cli.text import Verbosity, set_verbosity
from schemas.errors import ExitCode
from schemas.rig import RigSpec, WorkerGroup
from tests.cli import environment, rigflow, rigflow_process
from tests.clips import real_clip

DOCS = Path(__file__).parents[2] / "docs"


def commands() -> dict[str, object]:
    """Every command, those of groups too: what a person types -> typer's own."""
    return within(typer.main.get_group(app), "")


def within(group: object, path: str) -> dict[str, object]:
    """Every command of a group."""
    found: dict[str, object] = {}
    for name, command in getattr(group, "commands", {}).items():
        found |= {f"{path}{name}": command, **within(command, f"{path}{name} ")}
    return found


def test_every_command_has_help_with_an_example() -> None:
    for name, command in commands().items():
        assert f"Example: rigflow {name}" in str(getattr(command, "help", "")), name
        example = str(getattr(command, "help", "")).partition("Example: ")[2]
        assert len(f"  Example: {example.splitlines()[0]}") <= 80, "it is not broken, to be copied"


@pytest.mark.parametrize("group", [[], *(name.split() for name, of in commands().items() if hasattr(of, "commands"))])
def test_the_short_help_of_every_command_fits_its_line(group: list[str]) -> None:
    listed = rigflow(*group, "--help", COLUMNS="80").stdout
    assert "..." not in listed.split("Commands:")[1]


def test_every_command_is_in_the_docs_with_an_example() -> None:
    text = (DOCS / "cli.md").read_text()
    for name, command in commands().items():
        if not hasattr(command, "commands"):
            assert re.search(rf"^#+ rigflow {name}$", text, re.MULTILINE), f"docs/cli.md has no heading for {name}"
            assert re.search(rf"^\$ rigflow {name}\b", text, re.MULTILINE), f"docs/cli.md has no example of {name}"


def test_the_docs_list_every_exit_code() -> None:
    text = (DOCS / "cli.md").read_text()
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    assert listed == {code.value for code in ExitCode}


@pytest.mark.parametrize("words", [[], ["run"], ["jobs", "wait"], ["keys", "api", "add"]])
def test_help_is_what_the_option_shows(words: list[str]) -> None:
    asked, shown = rigflow("help", *words), rigflow(*words, "--help")
    assert asked.returncode == 0
    assert asked.stdout == shown.stdout


def test_a_shell_completes_names_of_commands() -> None:
    words = {"_RIGFLOW_COMPLETE": "complete_bash", "COMP_WORDS": "rigflow job", "COMP_CWORD": "1"}
    assert rigflow_process(**words).stdout.split() == ["jobs"]


def test_a_shell_completes_names_of_pipelines() -> None:
    words = {"_RIGFLOW_COMPLETE": "complete_bash", "COMP_WORDS": "rigflow run sc", "COMP_CWORD": "2"}
    assert rigflow_process(**words).stdout.split() == ["scenes"]


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["runn"], "there is no command `rigflow runn`: did you mean `rigflow run`? see `rigflow --help`"),
        (["help", "runn"], "there is no command `rigflow runn`: did you mean `rigflow run`? see `rigflow --help`"),
        (
            ["help", "jobs", "wat"],
            "there is no command `rigflow jobs wat`: did you mean `rigflow jobs wait`? see `rigflow jobs --help`",
        ),
        (["run"], "PIPELINE is missing: write `rigflow run PIPELINE INPUT...`; see `rigflow run --help`"),
        (["status", "--jsn"], "there is no option --jsn: did you mean --json? see `rigflow status --help`"),
        (["up", "--port", "no"], "--port: it must be a whole number: see `rigflow up --help`"),
        (["up", "--port", "99999"], "--port: it must be at most 65535"),
        (["jobs", "wait", "j", "--timeout", "soon"], "--timeout: it must be a number"),
        (["up", "--workers", "-1"], "--workers: it must be at least 0"),
        (["up", "--port"], "option --port is without its value: see `rigflow up --help`"),
        (["near", "a"], "B is missing: write `rigflow near A B`; see `rigflow near --help`"),
        (["near", "a", "b", "c"], "too many arguments: c: see `rigflow near --help`"),
        (["up", "--workers", "100000"], "--workers 100,000 is too many for "),
        (["watch", str(DOCS), "scenes", "--out", "o"], f"{DOCS} stands where the name of a pipeline belongs: the"),
        (["watch", "scenes", str(DOCS / "cli.md"), "--out", "o"], f"{DOCS / 'cli.md'}: is a file: watch a folder, or "),
        (["restore", str(DOCS / "cli.md")], f"{DOCS / 'cli.md'}: is not a folder: name the folder that `rigflow"),
        (["restore", "/no/such"], "/no/such: no such folder: name the folder that `rigflow backup` wrote"),
        (["run", "film.mp4"], "film.mp4 stands where the name of a pipeline belongs: the pipeline comes first"),
        (
            ["run", "film.mp4", "scenes"],
            "film.mp4 stands where the name of a pipeline belongs: the pipeline comes first, as `scenes film.mp4`",
        ),
        (["watch", "scenes", "in"], "--out is missing: write `rigflow watch PIPELINE DIR --out DIR`"),
        (["run", "scenes", "-weird.mp4"], "there is no option -w: write ./-weird.mp4 if that is a file"),
        (["keys", "api", "add", "x", "--role", "y"], "--role: y is not one of submit, read, operate: see"),
        (["jobs"], "rigflow jobs is a group of commands: add one of them: list, show, cancel, delete, wait; see"),
        (["pipelines"], "rigflow pipelines is a group of commands: add one of them: list, show, withdraw"),
        (["worker", "--stages", "de code"], "de code: not a stage"),
        (["run", "fingerprint", "/no/such.mp4"], "/no/such.mp4: no such file: check the path"),
        (
            ["run", "scenes", "https://a.org/b.mp4"],
            "https:/a.org/b.mp4: it is a URL, not a file: download it first",
        ),
        (["run", "nosuch", str(DOCS / "cli.md")], "no pipeline is called nosuch here: there are "),
    ],
)
def test_wrong_usage_ends_in_one_line_and_exit_code_2(arguments: list[str], output: str) -> None:
    ended = (rigflow_process if "nosuch" in arguments else rigflow)(*arguments)
    assert ended.returncode == ExitCode.USAGE
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith(f"rigflow: {output}")


def test_a_device_that_is_not_here_ends_a_run_before_it_starts_workers() -> None:
    ended = rigflow("run", "fingerprint", DOCS / "cli.md", RIGFLOW_DEVICE="cuda:99")
    assert ended.returncode == ExitCode.USAGE
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("rigflow: device cuda:99: there is ")


def test_a_file_in_place_of_the_output_folder_is_named() -> None:
    ended = rigflow("run", "fingerprint", __file__, "--out", __file__)
    assert ended.returncode == ExitCode.OUTPUT
    assert ended.stderr == f"rigflow: {__file__}: a file is where the folder would be: choose another --out\n"


def test_without_arguments_it_prints_its_help() -> None:
    ended = rigflow()
    assert ended.returncode == ExitCode.OK
    assert ended.stdout.startswith("Usage: rigflow")


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, cli.app; print(*{name.partition('.')[0] for name in sys.modules})"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True, timeout=100
    )
    heavy = {"av", "nats", "numpy", "onnx", "onnxruntime", "pydantic", "rich", "watchfiles"}
    assert not heavy & set(ended.stdout.split())


def test_ctrl_c_while_it_imports_is_no_traceback(tmp_path: Path) -> None:
    """An import in whose middle Ctrl-C comes, without a race for the moment."""
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    ended = rigflow_process("status", PYTHONPATH=os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])]))
    assert (ended.returncode, ended.stdout, ended.stderr) == (ExitCode.INTERRUPTED, "", "rigflow: interrupted\n")


def test_a_wrong_setting_is_named() -> None:
    ended = rigflow("status", RIGFLOW_PORT="many")
    assert ended.returncode == ExitCode.USAGE
    assert ended.stderr.startswith("rigflow: setting port: should be a valid integer")


def test_a_broker_that_is_away_is_reported_at_once_with_what_to_do() -> None:
    ended = rigflow("status", "--nats", "nats://127.0.0.1:9")
    assert ended.returncode == ExitCode.BROKER
    assert ended.stderr.count("\n") == 1
    assert "no broker at nats://127.0.0.1:9" in ended.stderr
    assert "rigflow up" in ended.stderr


ABSENT = "cuda:GPU-00000000-0000-0000-0000-000000000000"


def test_a_rig_without_any_of_its_gpus_ends_at_once(tmp_path: Path) -> None:
    """No broker is needed to know that, and none is waited for."""
    (tmp_path / "rig.toml").write_text(f'[[worker]]\ndevice = "{ABSENT}"\n')
    ended = rigflow("rig", "--config", tmp_path / "rig.toml", "--nats", "nats://127.0.0.1:9")
    assert ended.returncode == ExitCode.USAGE
    assert ended.stderr.count("\n") == 1
    assert f"rigflow: device {ABSENT}: there is " in ended.stderr


def test_a_rig_with_one_of_its_devices_works() -> None:
    check_devices(RigSpec(worker=(WorkerGroup(device=ABSENT), WorkerGroup(device="cpu"))))


def test_help_is_a_command_too() -> None:
    for words in ((), ("status",), ("keys", "api", "add")):
        assert rigflow("help", *words).stdout == rigflow(*words, "--help").stdout
    wrong = rigflow("help", "nosuch")
    assert (wrong.returncode, "there is no command" in wrong.stderr) == (2, True)


@pytest.mark.parametrize("words", [["-q", "keys", "nats", "a.nk"], ["keys", "nats", "a.nk", "-q"]])
def test_quiet_leaves_messages_out_wherever_it_stands(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = rigflow(*words)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("U")
    assert rigflow(*words).stderr.startswith("rigflow: a.nk is there already"), "an error is said"
    assert rigflow("keys", "nats", "--", "-q").returncode == 0
    assert (tmp_path / "-q").is_file(), "behind -- it is a name"
    assert rigflow("keys", "nats", "b.nk").stderr.startswith("rigflow: the seed is in b.nk"), (
        "the next one is not quiet"
    )


def test_quiet_and_verbose_exclude_each_other_and_are_log_levels() -> None:
    assert rigflow("status", "-v", "-q").stderr == "rigflow: -v says more and -q says less: leave out one of them\n"
    for verbosity, level in ((Verbosity.NORMAL, "info"), (Verbosity.VERBOSE, "debug"), (Verbosity.QUIET, "warning")):
        set_verbosity(verbosity)
        try:
            assert settings_from(None).log_level == level
        finally:
            set_verbosity(Verbosity.NORMAL)


@pytest.mark.slow
def test_verbose_shows_what_workers_do(tmp_path: Path) -> None:
    ended = rigflow_process("run", "fingerprint", real_clip("bikes"), "--out", tmp_path, "--workers", "1", "-v")
    assert ended.returncode == 0
    assert "worker local-1 runs all" in ended.stderr
    ended = rigflow_process("run", "fingerprint", real_clip("bikes"), "--out", tmp_path, "--workers", "1", "-q")
    assert ended.stderr == ""


@pytest.mark.parametrize("command", ["run", "publish", "watch", "plan"])
def test_a_wrong_path_is_reported_before_a_model_that_is_missing(command: str, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out") if command in ("run", "watch") else ()
    done = rigflow(command, "chat", tmp_path / "nothing", *out, HOME=str(tmp_path))
    assert done.returncode == ExitCode.USAGE
    assert done.stderr.startswith(f"rigflow: {tmp_path / 'nothing'}: no such f")


@pytest.mark.parametrize("command", ["run", "publish"])
def test_a_file_of_another_kind_is_reported_before_a_model_that_is_missing(command: str, tmp_path: Path) -> None:
    film = real_clip("bikes")
    done = rigflow(command, "chat", film, HOME=str(tmp_path))
    assert done.returncode == ExitCode.USAGE
    assert done.stderr.startswith(f"rigflow: {film}: pipeline chat takes text, this is video: ")


def test_help_says_which_options_are_required() -> None:
    assert re.search(
        r"^  --out DIR +.*\n(?: {10,}.*\n)* +.*Required\.$", rigflow("watch", "--help").stdout, re.MULTILINE
    )


def test_results_of_a_folder_are_to_be_named(tmp_path: Path) -> None:
    for command in (("cluster", tmp_path), ("near", tmp_path, tmp_path)):
        done = rigflow(*command)
        assert done.returncode == ExitCode.USAGE
        assert (
            done.stderr
            == f"rigflow: {tmp_path}: is a folder: name its results, for example {tmp_path}/*.fingerprint.npz\n"
        )


@pytest.mark.parametrize("words", [["--help"], ["pipelines", "show", "scenes"]])
def test_an_answer_that_finds_no_room_is_a_line(words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "cli", *words]
        ended = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment(), check=False, timeout=100
        )
    line = "rigflow: cannot write: No space left on device: make room on the disk that it goes to\n"
    assert (ended.returncode, ended.stderr) == (ExitCode.OUTPUT, line)
