"""What reaches a terminal or a log is printable, and has no passwords in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import RigflowError, UsageError, first_error
from schemas.text import is_text, printable, without_passwords


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\n\x1b[31mb.jpg", "a\\n\\x1b[31mb.jpg"),
        ("\udcff\udcfe.jpg", "\\xff\\xfe.jpg"),
        ("\x9b2J\u202egpj.exe", "\\x9b2J\\u202egpj.exe"),
        ("Müller 東京 10.30\u202fAM.png", "Müller 東京 10.30\u202fAM.png"),
    ],
)
def test_what_moves_a_cursor_or_is_no_text_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert str(UsageError(text)) == shown
    assert printable(text, keep="\n").count("\n") == text.count("\n")


@given(st.text())
def test_any_text_is_one_line_that_can_be_encoded(text: str) -> None:
    line = printable(text)
    assert line.encode().decode() == line
    assert line.splitlines() == ([line] if line else [])
    assert printable(line) == line
    assert is_text(line)


@pytest.mark.parametrize("secret", ["s3cret", "p%40ss", "a:b", "p@ss", "p/s?s#", "x" * 200])
def test_passwords_are_taken_out_of_every_url(secret: str) -> None:
    text = f"no broker at nats://me:{secret}@rig1:4222,tls://{secret}@rig2 (away)"
    assert without_passwords(text) == "no broker at nats://rig1:4222,tls://rig2 (away)"
    assert secret not in str(RigflowError(text))
    assert without_passwords(f"me:{secret}@rig1:4222,rig2") == "rig1:4222,rig2"
    assert without_passwords("rig-7: a@b, 12:30, x@y.mp4") == "rig-7: a@b, 12:30, x@y.mp4"


def test_the_error_of_nested_groups_is_ours() -> None:
    ours = UsageError("bad")
    group = BaseExceptionGroup("a", [ValueError("x"), ExceptionGroup("b", [ExceptionGroup("c", [ours])])])
    assert first_error(group) is ours
    assert first_error(ours) is ours
