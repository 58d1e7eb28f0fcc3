"""What documents name is there: files, settings, options, commands, headings and targets of make."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from cli.app import app
from pipelines.registry import builtin_pipelines
from schemas.settings import Settings

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FOLDERS = ("benchmarks", "cli", "deploy", "docs", "engines", "gateway", "pipelines", "placement", "schemas", "tests")
TEXTS = {path: path.read_text() for path in DOCUMENTS}
IDS = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
# options of other programs, which documents name in backticks
OTHERS = {
    *("--no-deps", "--require-hashes", "--build-arg", "--profile", "--env-file", "--reload", "--addr"),
    *("--network", "--gpus", "--store_dir", "--signal", "--idle", "--no-templates"),
}
# variables of the environment that are no settings
VARIABLES = {"TRACE", "PYTHON", "TEST"}


def options(command: object) -> Iterator[str]:
    """All options of a command and of those in it."""
    for param in getattr(command, "params", ()):
        yield from (*param.opts, *param.secondary_opts)
    for each in getattr(command, "commands", {}).values():
        yield from options(each)


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchor(heading: str) -> str:
    """The anchor of a heading, as web sites of repositories make it."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", heading).strip().lower()
    return re.sub(r" ", "-", re.sub(r"[^\w\- ]", "", plain))


def anchors(text: str) -> set[str]:
    return {anchor(each) for each in re.findall(r"^#+ (.*)$", without_blocks(text), re.MULTILINE)}


def named_files(text: str) -> set[str]:
    """Paths of the repository: of a folder of it, with a suffix or a pattern."""
    folders = "|".join(FOLDERS)
    found = re.findall(rf"(?<![\w/.:~-])((?:{folders})/[\w./*-]*[\w*]\.\w+|(?:{folders})/[\w/-]+/)(?![\w{{<])", text)
    return {each for each in found if not each.startswith("docs/") or each.endswith(".md")}


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_files_that_a_document_names_are_there(path: Path) -> None:
    missing = [name for name in named_files(TEXTS[path]) if not list(ROOT.glob(name))]
    assert missing == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_links_lead_to_files_and_headings(path: Path) -> None:
    wrong = []
    for target, heading in re.findall(r"\]\(([^)#:\s]*)(?:#([^)]*))?\)", without_blocks(TEXTS[path])):
        file = (path.parent / target).resolve() if target else path
        if not file.exists():
            wrong.append(target)
        elif heading and heading not in anchors(file.read_text()):
            wrong.append(f"{target}#{heading}")
    assert wrong == []


def test_every_document_can_be_reached_from_the_readme() -> None:
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        path = ahead.pop()
        if path not in reached:
            reached.add(path)
            targets = re.findall(r"\]\(([^)#:\s]+\.md)(?:#[^)]*)?\)", without_blocks(path.read_text()))
            ahead += [(path.parent / target).resolve() for target in targets]
    assert [str(path) for path in DOCUMENTS if path not in reached] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_pipelines_of_commands_are_those_of_rigflow_or_of_the_page(path: Path) -> None:
    text = TEXTS[path]
    named = re.findall(r"^\$ .*\brigflow (?:run|publish|watch|plan) ([a-z][\w-]*)(?=[ \n])", text, re.MULTILINE)
    shown = re.findall(r'^name = "([\w-]+)"|([\w-]+)\.toml\b', text, re.MULTILINE)
    known = {*builtin_pipelines(), *(name for each in shown for name in each)}
    assert [name for name in named if name not in known] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_settings_in_the_environment_are_settings(path: Path) -> None:
    streams = {"RESULTS", "WORK", "MEDIA", "DEAD", "CANCEL", "USAGE", "AUDIT"}  # names of the broker's streams
    named = set(re.findall(r"(?<!\w)RIGFLOW_([A-Z][A-Z_]*[A-Z])(?![\w.<])", TEXTS[path])) - streams
    known = {name.upper() for name in Settings.model_fields}
    assert {name for name in named if name not in known} == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_options_that_a_sentence_names_are_options(path: Path) -> None:
    known = {*options(typer.main.get_group(app)), *OTHERS, "--help", "--install-completion", "--show-completion"}
    for source in (ROOT / "benchmarks").glob("*.py"):
        known |= set(re.findall(r"\"(--[a-z-]+)\"", source.read_text()))
    named = {
        option
        for code in re.findall(r"`([^`]+)`", without_blocks(TEXTS[path]))
        if not re.match(r"(?!rigflow)[a-z-]+ ", code) or code.startswith("run ")  # a command of another program
        for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9_-]*", code)
    }
    assert named - known == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_commands_that_a_sentence_names_are_commands(path: Path) -> None:
    group, wrong = typer.main.get_group(app), []
    for words in re.findall(r"`rigflow ([a-z][a-z -]*)", without_blocks(TEXTS[path])):
        command: object = group
        for word in words.split():
            inner = getattr(command, "commands", {})
            if not inner or word.startswith("-"):
                break
            if word not in inner:
                if command is group or not getattr(command, "invoke_without_command", False):
                    wrong.append(words)
                break
            command = inner[word]
    assert wrong == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_targets_of_make_are_there(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:^\$ |`)make ([a-z][a-z-]*)", TEXTS[path], re.MULTILINE)
    assert set(named) - targets == set()


def test_the_searches_find_what_is_wrong() -> None:
    assert named_files("see docs/nothing.md, cli/*.py and a/cli/b.py in tests/unit/") == {
        *("docs/nothing.md", "cli/*.py", "tests/unit/"),
    }
    assert anchor("Three set-ups: `a`, b") == "three-set-ups-a-b"
    assert sum(len(named_files(each)) for each in TEXTS.values()) > 60
