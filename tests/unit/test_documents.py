"""Every document can be reached from the README, its links lead somewhere, and what it names exists."""

import re
from functools import cache
from pathlib import Path

import pytest

from pipelines.registry import builtin_pipelines
from schemas.settings import Settings

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
IDS = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
VARIABLES = {f"RIGFLOW_{name.upper()}" for name in Settings.model_fields}
STREAMS = re.compile(r"RIGFLOW_(MEDIA|WORK|RESULTS|DEAD|CANCEL|USAGE|AUDIT)\b")


def prose(text: str) -> str:
    """A document without its blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def links(path: Path) -> list[tuple[str, str]]:
    """The links inside the repository: the path as it is written, and the heading's anchor or nothing."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(path.read_text()))
    return [(file, anchor) for file, _, anchor in (each.partition("#") for each in targets) if "://" not in file]


@cache
def anchors(path: Path) -> set[str]:
    """The anchors that a page has for its headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose(path.read_text()), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        same = sum(each == slug or re.fullmatch(rf"{re.escape(slug)}-\d+", each) is not None for each in found)
        found.add(f"{slug}-{same}" if same else slug)
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_links_lead_to_files_and_headings(path: Path) -> None:
    for file, anchor in links(path):
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), file
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{file}#{anchor}"


def test_every_document_can_be_reached_from_the_readme() -> None:
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        path = ahead.pop()
        if path not in reached:
            reached.add(path)
            ahead += [(path.parent / file).resolve() for file, _ in links(path) if file.endswith(".md")]
    assert [str(path) for path in DOCUMENTS if path not in reached] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_pipelines_and_variables_of_a_document_exist(path: Path) -> None:
    """A pipeline is one of rigflow's, or a file that the document shows."""
    text = path.read_text()
    named = re.findall(r"^\$ .*\brigflow (?:run|publish|watch|plan) ([a-z][\w-]*)(?=[ \n])", text, re.MULTILINE)
    own = set(re.findall(r'^name = "([\w-]+)"', text, re.MULTILINE)) | set(re.findall(r"([\w-]+)\.toml\b", text))
    assert [name for name in named if name not in {*builtin_pipelines(), *own}] == []
    variables = set(re.findall(r"\bRIGFLOW_[A-Z_]+\b", STREAMS.sub("", text)))
    assert {each for each in variables if not each.endswith("_")} - VARIABLES == set()
