"""Parses TOML from any source: every text that is no TOML ends in one error."""

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
