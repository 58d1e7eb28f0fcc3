"""Parses TOML from any source: every text that is no TOML ends in one error."""

import re
import tomllib
from typing import Any


class TomlError(ValueError):
    """The text is no TOML, or more of it than this parser takes."""


def parse_toml(content: str | bytes) -> dict[str, Any]:
    """Return the table that a text, or its UTF-8, declares; a byte order mark is ignored. Raises TomlError.

    tomllib has no error of its own for arrays that nest too deep and for integers of more than 4,300 digits.
    """
    try:
        text = content if isinstance(content, str) else content.decode()
        return tomllib.loads(text.removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        raise TomlError(f"it is not UTF-8 text (at byte {error.start})") from error
    except RecursionError as error:
        raise TomlError("it nests too deep") from error
    except tomllib.TOMLDecodeError as error:
        raise TomlError(str(error)) from error
    except ValueError as error:
        raise TomlError("a number in it has too many digits") from error


def line_of(text: str, path: list[str | int]) -> int:
    """1-based line of the field at `path` in TOML `text`; the table's line when the field is missing."""
    lines = text.splitlines()
    start, end = 0, len(lines)
    if len(path) > 1 and path[0] == "stage" and isinstance(path[1], int):
        heads = [number for number, line in enumerate(lines) if re.match(r"\s*\[\[\s*stage\s*\]\]", line)]
        if path[1] < len(heads):
            start, end = heads[path[1]], (*heads, len(lines))[path[1] + 1]
    for part in path:
        pattern = re.compile(rf"^\s*\[*\s*\"?{re.escape(str(part))}\"?\s*[\]=.]")
        hit = next((n for n in range(start, end) if isinstance(part, str) and pattern.match(lines[n])), None)
        start = start if hit is None else hit
    return start + 1
