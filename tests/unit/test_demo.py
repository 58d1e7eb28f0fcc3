"""The end of `make demo`: the page's address, and commands that are there."""

import os
import pty
import re
import subprocess
import termios
from pathlib import Path

import pytest

from cli import demo
from cli.gateway import PORT
from cli.samples import draw_samples
from engines.media.medium import Input, PipelineMedia
from pipelines.registry import builtin_pipeline

README = Path(__file__).parents[2] / "README.md"


def test_it_ends_with_the_address_of_the_page_and_commands_that_exist() -> None:
    pytest.importorskip("fastapi")
    *_, up, gateway, address = demo.page_hint().splitlines()
    assert address == f"http://127.0.0.1:{PORT}"
    for line, name in ((up, "up"), (gateway, "gateway")):
        found = re.fullmatch(r"  (\S+) (\w+)(  +#.*)?", line)
        assert found
        assert found[2] == name
        assert Path(found[1]).is_file()


def test_it_says_nothing_of_a_page_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == "uvicorn" else object())
    assert demo.page_hint() == ""


def test_a_terminal_breaks_its_lines_between_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 60))
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "run", lambda *_: 0)
    monkeypatch.setattr(demo, "page_hint", lambda: "")
    monkeypatch.setattr("sys.argv", ["demo"])
    with os.fdopen(ours, "rb", 0) as shown, os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        assert demo.main() == 0
        terminal.flush()
        lines = shown.read(4000).decode().splitlines()
    assert max(map(len, lines)) <= 60
    assert len(lines) > 4


def test_samples_are_media_of_the_pipelines_of_the_readme(tmp_path: Path) -> None:
    draw_samples(tmp_path / "demo-out")
    lines = re.findall(r"^\$ rigflow (?:run|publish) (\S+) (demo-out/\S+)", README.read_text(), re.MULTILINE)
    assert {name for _, name in lines} >= {f"demo-out/{name}" for name in ("film.mp4", "picture.jpg", "text.txt")}
    for pipeline, name in lines:
        media = PipelineMedia(builtin_pipeline(pipeline))
        assert media.recognised(Input(tmp_path / name, Path(name).name)).kind in builtin_pipeline(pipeline).media


def test_the_targets_of_make_fit_into_a_narrow_terminal() -> None:
    said = subprocess.run(["make", "help"], cwd=README.parent, capture_output=True, text=True, check=True).stdout
    assert "make demo " in said
    assert max(map(len, said.splitlines())) <= 80
