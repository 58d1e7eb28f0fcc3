"""One item of text: checked where it is split, and read where it is decoded."""

import json

from pydantic import ValidationError

from schemas.errors import ItemTooLarge, MediaError, format_field_error
from schemas.media import Item
from schemas.requests import TextRequest
from schemas.wire import Buffer

MOST_BYTES = 16 << 20  # of an item
BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_WRITE_REQUEST = 'write {"prompt": "..."} or {"messages": [{"role": "user", "content": "..."}]}'
_WRITE_UTF8 = "convert it: iconv -f ENCODING -t UTF-8"


def read_item(item: Item, data: Buffer) -> tuple[str, bytes]:
    """Return the text of an item, and the JSON of one that is a line. Raises MediaError, ItemTooLarge."""
    if not item.line:
        return plain_text(data), b""
    line = bytes(data)
    return request_of(line).words, line


def plain_text(data: Buffer) -> str:
    """Return the text of a file without its byte order mark. Raises MediaError if it is no text, or blank."""
    head = bytes(data[:3])
    if head[:2] in _UTF16:
        raise MediaError("it is UTF-16, and not UTF-8", "convert it: iconv -f UTF-16 -t UTF-8")
    try:
        text = str(data[3:] if head == BOM else data, "utf-8")
    except UnicodeDecodeError as error:
        line = bytes(data[: error.start]).count(b"\n") + 1
        raise MediaError(f"line {line}: it is not UTF-8, {error.reason}", _WRITE_UTF8) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise MediaError(f"line {line}: it has a NUL character, which is no text", "remove it")
    if not text.strip():
        raise MediaError("its text is empty", "write something into it")
    return text


def checked_line(line: bytes, name: str) -> Item:
    """Return the item of a line of JSON: it is called as its `id` is, or `name`. Raises MediaError, ItemTooLarge."""
    request = request_of(line)
    return Item(name=name if request.id is None else str(request.id), line=True)


def request_of(line: bytes) -> TextRequest:
    """Return the request that a line of JSON is. Raises MediaError, ItemTooLarge."""
    if len(line) > MOST_BYTES:
        raise ItemTooLarge(f"it has more than {MOST_BYTES} bytes", "cut it")
    try:
        return TextRequest.model_validate_json(line.rstrip())
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False)[0]
        if detail["type"] == "json_invalid":
            if _has_half_a_character(line):
                what = "it has half of a character: a surrogate (\\ud800 to \\udfff) without the other one"
                raise MediaError(what, "write the character itself, or both halves") from error
            reason = detail["ctx"]["error"]
            raise MediaError(f"it is no JSON: {reason}", "write a JSON object on each line") from error
        raise MediaError(format_field_error(detail), _WRITE_REQUEST) from error


def _has_half_a_character(line: bytes) -> bool:
    """Whether a line is JSON but for a lone surrogate, which is no character and has no UTF-8."""
    try:
        json.dumps(json.loads(line), ensure_ascii=False).encode()
        return False
    except UnicodeEncodeError:
        return True
    except (ValueError, RecursionError):
        return False
