"""The Chinese documents say the same as the English ones beside them: headings, commands, tables and links."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "zh-CN"
PAIRS = [
    (ROOT / "README.md", ROOT / "README.zh-CN.md"),
    *((ROOT / "docs" / each.name, each) for each in FOLDER.glob("*")),
]
CHINESE = re.compile("[\u4e00-\u9fff]")


def headings(text: str) -> list[int]:
    """The levels of its headings."""
    return [len(level) for level in re.findall(r"^(#+) ", _without_blocks(text), re.MULTILINE)]


def commands(text: str) -> list[str]:
    """The lines of its code blocks, without comments and blanks."""
    lines = "\n".join(re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)).splitlines()
    return [re.sub(r"\s+# .*$", "", line).rstrip() for line in lines]


def code(text: str) -> Counter[str]:
    """What stands in backticks in its sentences."""
    return Counter(" ".join(each.split()) for each in re.findall(r"`([^`]+)`", _without_blocks(text)))


def links(text: str, of: Path) -> Counter[Path]:
    """The files that it links to, without the other language's."""
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", _without_blocks(text))
    found = ((of.parent / each).resolve() for each in targets)
    return Counter(
        ROOT / "docs" / each.name if each.parent == FOLDER else each for each in found if "README" not in each.name
    )


def _without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=[each.name for each, _ in PAIRS])
def test_a_chinese_document_has_what_the_english_one_has(english: Path, chinese: Path) -> None:
    ours, theirs = english.read_text(), chinese.read_text()
    assert headings(theirs) == headings(ours)
    assert commands(theirs) == commands(ours)
    assert code(theirs) == code(ours)
    assert links(theirs, chinese) == links(ours, english)
    assert theirs.count("\n| ") == ours.count("\n| "), "rows of tables"
    assert len(CHINESE.findall(theirs)) > len(ours) / 8


@pytest.mark.parametrize("path", [path for pair in PAIRS for path in pair], ids=lambda path: path.name)
def test_links_of_both_languages_lead_to_files(path: Path) -> None:
    assert [each for each in links(path.read_text(), path) if not each.exists()] == []


@pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=[each.name for each, _ in PAIRS])
def test_each_document_names_the_other_at_its_top(english: Path, chinese: Path) -> None:
    for path, other in ((english, chinese), (chinese, english)):
        [target] = re.findall(r"^\[(?:中文|English)\]\((.*)\)$", path.read_text(), re.MULTILINE)
        assert (path.parent / target).resolve() == other


def test_the_chinese_readme_leads_to_the_chinese_documents() -> None:
    text = PAIRS[0][1].read_text()
    assert [each.name for _, each in PAIRS[1:] if f"](docs/zh-CN/{each.name})" not in text] == []
    assert {each.name for _, each in PAIRS[1:]} >= {"quick-start.md", "operations.md", "models.md"}
