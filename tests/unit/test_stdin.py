"""What standard input is taken for."""

import io
from types import SimpleNamespace

import pytest

from cli.stdin import from_stdin


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (b"hi", True),
        ("grüße \N{GRINNING FACE}".encode(), True),
        (("a" * 65533 + "\N{GRINNING FACE}" * 3).encode(), True),  # the head ends within a character
        (b"\xff\xd8\xff\xe0", False),
        (b"RIFF\0\0", False),
    ],
)
def test_utf_8_is_a_text(given: bytes, text: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(given)))
    with from_stdin() as file:
        assert (file.text, file.path.read_bytes()) == (text, given)
