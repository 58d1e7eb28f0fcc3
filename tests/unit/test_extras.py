"""Errors and documents name extras that pyproject.toml has, and all by the same command."""

import re
import shlex
import tomllib
from itertools import chain
from pathlib import Path

import pytest

import engines
from engines.extras import extra_command, install_extra

ROOT = Path(engines.__file__).parent.parent


def test_extras_that_are_named_exist() -> None:
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    named: set[str] = set()
    code = chain.from_iterable(
        (ROOT / folder).rglob("*.py") for folder in ("placement", "engines", "pipelines", "workers", "gateway", "cli")
    )
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *code):
        text = path.read_text()
        named.update(re.findall(r"install_extra\(['\"](\w+)['\"]\)", text))
        assert not re.search(r"install (-e )?'?rigflow\[", text), f"{path}: rigflow is installed from its checkout"
        for quote, extras_there in re.findall(r"pip install -e (')?\.\[([\w,-]+)\]", text):
            assert quote, f"{path}: a shell reads the brackets, quote .[{extras_there}]"
            named.update(extras_there.split(","))
    assert {"stt", "llm", "phonemes", "search", "cluster", "gpu"} <= named
    assert named <= extras


@pytest.mark.parametrize(
    ("files", "name", "source", "command"),
    [
        ((), "env", (Path("/my work/rigflow"), True), "-e '/my work/rigflow[search]'"),
        ((), "env", (None, False), "'rigflow[search]'"),
        ((), "rigflow-venv", (Path("/src"), False), "make -C /src install EXTRAS='[search]'"),
        (("uv-receipt.toml",), "rigflow", (Path("/src"), False), "uv tool install --force '/src[search]'"),
        (("pipx_metadata.json",), "rigflow", (Path("/src"), False), "pipx install --force '/src[search]'"),
    ],
)
def test_the_command_is_for_the_way_of_installing(
    tmp_path: Path, files: tuple[str, ...], name: str, source: tuple[Path | None, bool], command: str
) -> None:
    (environment := tmp_path / name).mkdir()
    for file in files:
        (environment / file).touch()
    made = extra_command("search", environment, source)
    assert made.endswith(command)
    assert made == command or str(environment / "bin" / "python") in made


def test_the_command_for_this_environment_can_be_typed() -> None:
    """It adds the extra to the environment that these tests run in."""
    words = shlex.split(install_extra("cluster").removeprefix("install the extra cluster: "))
    assert words[-1].endswith("[cluster]")
    assert "install" in words
