"""Reads headers and status of the broker's answers."""

from collections.abc import Mapping

from nats.aio.msg import Msg

STATUS = "Status"  # header of the server's own answers
PLACE = "Nats-Sequence"  # header that the server adds to a message of a stream, whatever headers that has


def headers_bytes(headers: Mapping[str, str]) -> int:
    """Bytes of headers on the wire: a line for the version, one a header, and an empty one."""
    nbytes = 14 + 4 * len(headers)
    for name, value in headers.items():
        nbytes += len(name) + len(value if value.isascii() else value.encode(errors="surrogateescape"))
    return nbytes


def headers_of(message: Msg) -> dict[str, str]:
    """A message's headers; nats-py has None where there are none."""
    return message.headers or {}


def status_of(message: Msg) -> str:
    """The status of an answer of the server; "" for a message of a stream, which may have that header too."""
    headers = headers_of(message)
    return "" if PLACE in headers else headers.get(STATUS, "")
