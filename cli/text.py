"""Lines, numbers and tables for people; unprintable characters in text from outside are escaped."""

import contextlib
import json
import os
import re
import sys
import textwrap
import time
from collections.abc import Iterable
from contextvars import ContextVar
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TextIO, cast

from cli.interrupts import waits
from schemas.text import printable, without_passwords

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


_UNBROKEN = 10_000  # columns of a console that breaks no line


def say(text: object, keep: str = "") -> None:
    """Print an answer: a line on stdout, or with line ends in `keep` many. Raises BrokenPipeError (`| head -1`)."""
    print(printable(without_passwords(str(text)), keep), flush=True)


def say_json(answer: object, lines: bool = False) -> None:
    """Print an answer for programs; with `lines` in one line, for those that read one after the other."""
    print(json.dumps(answer, indent=None if lines else 2, default=str), flush=True)


def say_sentence(text: str, indent: str = "") -> None:
    """`say` a line that is for people; further lines of it on a terminal begin with `indent`."""
    print(_between_words(printable(without_passwords(text)), sys.stdout, indent), flush=True)


def say_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Print an answer of several fields, a line each: title and text; a title may be empty, or repeated."""
    for title, text in fields:
        say_sentence(f"{title:<9} {text}", indent=" " * 10)


class Verbosity(IntEnum):
    """How much a command says beside its answer: -q, nothing, -v."""

    QUIET = -1  # errors alone
    NORMAL = 0
    VERBOSE = 1  # what its processes do, too


_verbosity = ContextVar("verbosity", default=Verbosity.NORMAL)


def set_verbosity(verbosity: Verbosity) -> None:
    """Choose how much this process says."""
    _verbosity.set(verbosity)


def is_quiet() -> bool:
    """Whether this process says nothing but answers and errors."""
    return _verbosity.get() is Verbosity.QUIET


def is_verbose() -> bool:
    """Whether this process says what it does."""
    return _verbosity.get() is Verbosity.VERBOSE


def warn(text: object) -> None:
    """Print a message that is neither the answer nor an error: a line on stderr, which -q leaves out."""
    if not is_quiet() and not waits():
        complain(text)


def complain(text: object) -> None:
    """Print an error: a line on stderr."""
    line = f"rigflow: {printable(without_passwords(str(text)))}"
    print(_between_words(line, sys.stderr), file=sys.stderr, flush=True)


def _between_words(line: str, stream: TextIO, indent: str = "") -> str:
    """The line; for a terminal it is broken between words, because the terminal would break it within words."""
    if not stream.isatty():
        return line
    lines = textwrap.wrap(
        line, _columns(stream), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines)


def cell(text: object, style: str = "") -> "Text":
    """Text of a table or of a line of `rich` that is shown as it is, and is no markup."""
    from rich.text import Text

    return Text(printable(without_passwords(str(text))), style=style)


def line_about(name: str, text: str, style: str) -> "Text":
    """A line about a job, which names it once."""
    return cell(text if name in text else f"{name}: {text}", style)


def cells(*parts: tuple[object, str]) -> "Text":
    """A `cell` of several parts, each with its style."""
    from rich.text import Text

    return Text("").join(cell(text, style) for text, style in parts)


def age(seconds: float, units: int = 2) -> str:
    """A duration: its largest units, two or one."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next(number for number, (count, unit) in enumerate(parts) if count or unit == "s")
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + units])


def took(seconds: float) -> str:
    """How long something took: an `age`, with two digits below 10 s, so that quick work is not `0 s`."""
    return age(seconds) if seconds >= 9.95 else f"{round(seconds, 2):.2g} s"


def clock(at_s: float) -> str:
    """A Unix time as date and time of this machine's time zone; `-` for none."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_s)) if at_s else "-"


def moment(at_s: float) -> str:
    """A Unix time as time of the day, with the date unless that is today, in this machine's time zone."""
    date, at = clock(at_s).split(" ")
    return at if date == time.strftime("%Y-%m-%d") else f"{date} {at}"


def one_line(text: object) -> "Text":
    """A `cell` that ends with an ellipsis where its column is too narrow, in place of several lines."""
    made = cell(text)
    made.no_wrap, made.overflow = True, "ellipsis"
    return made


def sentence(text: object) -> "Text":
    """A `cell` that goes on below itself where its column is too narrow, broken between words."""
    made = cell(text)
    made.overflow = "fold"
    return made


def stdout() -> "Console":
    """stdout for tables. Raises BrokenPipeError when its reader has left.

    Where it is no terminal and COLUMNS is not set, no line is broken or shortened, so that programs find whole names.
    """
    made = _console(stderr=False)
    if "COLUMNS" not in os.environ and not made.file.isatty():  # FORCE_COLOR has rich call all a terminal
        made.width = _UNBROKEN
    return made


def stderr() -> "Console":
    """stderr for people; where that is no terminal, no line is broken, so that programs find whole paths."""
    made = _console(stderr=True)
    if not made.is_terminal:
        made.width = _UNBROKEN
    return made


def _console(stderr: bool) -> "Console":
    from rich.console import Console

    class Ours(Console):
        """A console that leaves it to the command how it ends, and cuts no line off: terminals show it in several."""

        def print(self, *shown: Any, **options: Any) -> None:
            super().print(*shown, **{"crop": False} | options)

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    file = sys.stderr if stderr else sys.stdout
    shown = file if file.isatty() else cast(TextIO, _WithoutPadding(file))
    made = Ours(file=shown, highlight=False, markup=False, emoji=False)  # names have brackets and colons
    if made.is_dumb_terminal:  # rich would take it for one of 80 columns
        given = os.environ.get("COLUMNS", "")
        made.size = (int(given) if given.isdigit() and int(given) else _columns(file), 25)
    return made


def _columns(stream: TextIO) -> int:
    """The width of a terminal; 80 of one that does not know its size, and of what FORCE_COLOR makes one."""
    with contextlib.suppress(OSError, ValueError):  # no terminal, or no file at all
        return os.get_terminal_size(stream.fileno()).columns or 80
    return 80


class _WithoutPadding:
    """A file that is no terminal; the blanks that fill the lines of a table are not written."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        """Write whole lines."""
        return self._file.write(re.sub(r" +(?=\n)", "", text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
