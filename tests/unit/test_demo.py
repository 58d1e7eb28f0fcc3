"""The end of `make demo`: the page's address, and commands that are there."""

import re
from pathlib import Path

import pytest

from cli import demo
from cli.gateway import PORT


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
