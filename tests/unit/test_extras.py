"""Errors and documents name extras that pyproject.toml has, and all by the same command."""

import re
import tomllib
from itertools import chain
from pathlib import Path

import engines

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
        for extra, quoted in re.findall(r"pip install rigflow\[(\w+)\]|pip install 'rigflow\[(\w+)\]'", text):
            assert not extra, f"{path}: a shell reads the brackets, quote rigflow[{extra}]"
            named.add(quoted)
    assert {"stt", "llm", "phonemes", "search", "cluster", "gpu"} <= named
    assert named <= extras
