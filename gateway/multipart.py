"""Reads multipart forms as they come: the fields first, then one file, of which nothing is kept; or files alone."""

import re
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError, MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.problems import HttpError

MOST_FIELDS, MOST_FIELD_BYTES = 64, 64 << 10
_ENCODED_NAME = re.compile(rb";\s*filename\*\s*=\s*\"?utf-8'[^']*'([^;\"\s]*)", re.IGNORECASE)  # RFC 8187
ORDER = "send the fields first, then one part with a filename"


@dataclass(slots=True)
class FilePart:
    """The head of the part that is the file."""

    filename: str
    content_type: str


@dataclass(slots=True)
class _Part:
    headers: dict[bytes, bytes] = field(default_factory=dict)
    name: str = ""
    file: FilePart | None = None
    value: bytearray = field(default_factory=bytearray)


class Form:
    """A form in the body of a request: `read_fields`, then `chunks` of the file. Raises HttpError for its boundary."""

    def __init__(self, boundary: bytes, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self._events: deque[_Part | bytes | None] = deque()  # None: the file ends
        self._part = _Part()
        self._header = (bytearray(), bytearray())
        self._fields = 0
        self._files = 0
        self._ended = False
        called: Any = {
            "on_part_begin": self._on_part,
            "on_header_field": lambda data, start, end: self._on_header(0, data[start:end]),
            "on_header_value": lambda data, start, end: self._on_header(1, data[start:end]),
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers,
            "on_part_data": lambda data, start, end: self._on_data(data[start:end]),
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }
        if not boundary:
            raise HttpError(HTTPStatus.BAD_REQUEST, "the form has no boundary", "let your HTTP library make it")
        try:
            self._parser = MultipartParser(boundary, called)
        except FormParserError as error:
            what = f"the boundary of the form cannot be used: {error}"
            raise HttpError(HTTPStatus.BAD_REQUEST, what, "let your HTTP library make it") from error

    async def read_fields(self) -> tuple[list[tuple[str, str]], FilePart | None]:
        """Names and values of the fields before the file, and the file's head; None without one. Raises HttpError."""
        fields: list[tuple[str, str]] = []
        while True:
            event = await self._next()
            if event is None:
                return fields, None
            assert isinstance(event, _Part)
            if event.file is not None:
                return fields, event.file
            fields.append((event.name, event.value.decode(errors="replace")))

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes of the file. Raises HttpError when something follows it, or the form is cut off."""
        while (event := await self._next()) is not None:
            assert isinstance(event, bytes)
            yield event
        if await self._next() is not None or self._files != 1:
            raise HttpError(HTTPStatus.UNPROCESSABLE_ENTITY, "something follows the file in the form", ORDER)

    async def files(self) -> AsyncIterator[tuple[FilePart, AsyncIterator[bytes]]]:
        """All files of a form that has nothing else: the head of each and its bytes, which are to be read entirely.

        Raises HttpError.
        """
        while (event := await self._next()) is not None:
            assert isinstance(event, _Part)
            if event.file is None:
                what = f"the form has the field {event.name[:100]!a}"
                raise HttpError(HTTPStatus.BAD_REQUEST, what, "send parameters in the address, and files in the form")
            yield event.file, self._bytes()

    async def _bytes(self) -> AsyncIterator[bytes]:
        """The bytes of the file that has begun."""
        while (event := await self._next()) is not None:
            assert isinstance(event, bytes)
            yield event

    async def _next(self) -> _Part | bytes | None:
        """The next event; None at the end of the file and of the form."""
        while not self._events:
            data = await anext(self._body, None)
            if data is None:
                if not self._ended:
                    raise HttpError(HTTPStatus.BAD_REQUEST, "the form is cut off", "send all of it")
                return None
            try:
                self._parser.write(data)
            except MultipartParseError as error:
                raise HttpError(HTTPStatus.BAD_REQUEST, f"the form cannot be read: {error}", ORDER) from error
        return self._events.popleft()

    def _on_part(self) -> None:
        self._part = _Part()

    def _on_header(self, which: int, data: bytes) -> None:
        self._header[which].extend(data)

    def _on_header_end(self) -> None:
        name, value = map(bytes, self._header)
        self._part.headers[name.lower()] = value
        self._header = (bytearray(), bytearray())

    def _on_headers(self) -> None:
        disposition = self._part.headers.get(b"content-disposition", b"")
        _, options = parse_options_header(disposition)
        self._part.name = options.get(b"name", b"").decode(errors="replace")
        encoded, filename = _ENCODED_NAME.search(disposition), options.get(b"filename")
        if encoded is not None:  # as .NET sends it, beside a `filename` in a form of mails
            filename = unquote_to_bytes(encoded[1])
        if filename is not None:
            self._files += 1
            name = filename.decode(errors="replace")
            self._part.file = FilePart(name, self._part.headers.get(b"content-type", b"").decode(errors="replace"))
            self._events.append(self._part)

    def _on_data(self, data: bytes) -> None:
        if self._part.file is not None:
            self._events.append(data)
            return
        self._part.value += data
        if len(self._part.value) > MOST_FIELD_BYTES:
            raise MultipartParseError(f"a field has more than {MOST_FIELD_BYTES:,} bytes")

    def _on_part_end(self) -> None:
        if self._part.file is not None:
            self._events.append(None)
            return
        self._fields += 1
        if self._fields > MOST_FIELDS:
            raise MultipartParseError(f"it has more than {MOST_FIELDS} fields")
        self._events.append(self._part)

    def _on_end(self) -> None:
        self._ended = True
