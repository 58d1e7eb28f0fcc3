"""What standard input is taken for."""

import io
from types import SimpleNamespace

import pytest

from cli.stdin import from_stdin, name_stdin
from schemas.errors import MediaError


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


def test_closed_and_empty_input_are_errors_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(MediaError, match="standard input is closed: give a text or a file"), from_stdin():
        pass
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"\n")))
    with pytest.raises(MediaError, match="standard input has nothing in it: give a text or a file"), from_stdin():
        pass


def test_errors_name_no_temporary_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"noise")))
    with from_stdin() as file:
        error = MediaError(f"{file.path} is no film", f"look into {file.path.name}")
        name_stdin(error, file.path)
    assert str(error) == "standard input is no film: look into standard input"
