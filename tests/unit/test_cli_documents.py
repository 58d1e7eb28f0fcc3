"""Every command line of the documents is one that the command line takes."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from cli.app import app

ROOT = Path(__file__).parents[2]
GROUP = typer.main.get_group(app)
DOCUMENTS = sorted([*ROOT.glob("README*.md"), *(ROOT / "docs").rglob("*.md")])
_ENDS = re.compile(r"\s*(?:\||&&|;|>|<)\s*")  # of a command of a shell's line


def commands(path: Path) -> Iterator[list[str]]:
    """The words of each command `rigflow` of a document, without the name; variables of the shell are a number."""
    for line in re.findall(r"^\$ (.*rigflow .*)$", path.read_text(), re.MULTILINE):
        inner = re.findall(r"\$\(([^()]*)\)", line)  # what another command gets as a word
        line = re.sub(r"\$\([^()]*\)", "1", line)
        for part in (*inner, *_ENDS.split(re.sub(r"\s+(#.*|\\)$", "", line))):
            words = shlex.split(re.sub(r'"?\$\w+"?', "1", part))
            while words and re.match(r"\w+=", words[0]):
                words.pop(0)
            if words and words[0] == "rigflow":
                yield [word for word in words[1:] if word not in ("-v", "-q")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS])
def test_the_commands_of_a_document_have_their_arguments_and_options(path: Path) -> None:
    for words in commands(path):
        command, left = GROUP, list(words)
        while left and left[0] in getattr(command, "commands", {}):
            command = command.commands[left.pop(0)]  # type: ignore[assignment]
        assert command is not GROUP, words
        try:
            command.make_context("rigflow", left)
        except typer.Exit:
            pass  # `--version`
        except Exception as error:
            pytest.fail(f"rigflow {shlex.join(words)}: {error}")


def hinted() -> Iterator[str]:
    """The commands that texts of the code name in backticks; what is put into them is the word `it`."""
    for room in ("schemas", "placement", "engines", "pipelines", "workers", "gateway", "cli"):
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    text = "".join(str(each.value) if isinstance(each, ast.Constant) else "it" for each in node.values)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    text = node.value
                else:
                    continue
                yield from re.findall("`rigflow ([a-z][^`|]*)[`|]", text)


def test_the_commands_that_hints_name_exist_with_their_options() -> None:
    found = set(hinted())
    assert len(found) > 80
    assert "jobs delete it" in found
    for line in found:
        command, left = GROUP, line.split()
        while left and left[0] in getattr(command, "commands", {}):
            command = command.commands[left.pop(0)]  # type: ignore[assignment]
        assert command is not GROUP, line
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word.partition("=")[0] for word in left if word.startswith("-") and word != "-"} <= known, line


def test_there_are_commands_to_be_checked() -> None:
    assert sum(len(list(commands(path))) for path in DOCUMENTS) > 150
